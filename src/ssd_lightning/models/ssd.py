"""SSD: Single Shot MultiBox Detector (Liu et al., arXiv 1512.02325)."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from ssd_lightning.checks import require_number
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.models.config import ConfigMixin
from ssd_lightning.models.freezing import Stages, freeze_backbone
from ssd_lightning.models.head import SSDHead
from ssd_lightning.models.layers import pass_on_meta
from ssd_lightning.models.neck import NoNeck
from ssd_lightning.models.protocols import Backbone, MakeExtras, MakeHead, MakeNeck
from ssd_lightning.ops.normalization import Normalization
from ssd_lightning.ops.priors import Clip, PriorLevel, Size, as_height_width, fit_to_grids, make_priors, rescale_levels
from ssd_lightning.types import SSDOutput


class FeatureExtractor(nn.Module):
    """Backbone, extra layers and an optional neck. The arguments are those of `SSD`."""

    def __init__(self, backbone: Backbone, extras: MakeExtras, neck: MakeNeck = NoNeck) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.extras: Any = extras(backbone.out_channels[-1])
        self._num_backbone_levels = len(backbone.out_channels) - getattr(backbone, "last_map_is_for_extras_only", False)
        self.neck: Any = neck([*backbone.out_channels[: self._num_backbone_levels], *self.extras.out_channels])
        self.out_channels: tuple[int, ...] = self.neck.out_channels

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised images `[B, 3, H, W]` to feature maps `[B, out_channels[i], H_i, W_i]`."""
        maps = self.backbone(images)
        return self.neck([*maps[: self._num_backbone_levels], *self.extras(maps[-1])])


def measure_grids(extractor: nn.Module, image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Measure (rows, columns) of each feature map. The forward pass runs on the meta device, without values.

    Raises:
        ConfigurationError: a layer does not support images of this size, or a part gives other feature maps than its
            `out_channels` say.
    """
    parts = extractor.children() if isinstance(extractor, FeatureExtractor) else ()
    hooks = [part.register_forward_hook(_check_maps) for part in parts]
    try:
        maps = pass_on_meta(extractor, (1, 3, *image_size), training=False)
    except (AssertionError, RuntimeError) as error:  # too small for a layer, or not a transformer's fixed size
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"image_size {image_size} does not fit this network's layers: {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()
    return [(feature.shape[-2], feature.shape[-1]) for feature in maps]


def _check_maps(part: Any, _: object, maps: Any) -> None:
    name = type(part).__name__
    if not isinstance(maps, list | tuple):
        raise ConfigurationError(f"{name} returns a {type(maps).__name__}; it must be a list of feature maps")
    given, claimed = [feature.shape[1] for feature in maps], list(part.out_channels)
    if given != claimed:
        raise ConfigurationError(f"{name} returns feature maps of {given} channels, but its out_channels are {claimed}")


def check_batch_size(net: "SSD", batch_size: int) -> None:
    """Check that a network can train with this batch size.

    Args:
        net: the network.
        batch_size: number of images that a batch norm layer sees at once: those of one device, or of all devices if
            batch norm is synchronised.

    Raises:
        ConfigurationError: a batch norm layer would see a single value per channel.
    """
    for height, width in (net.image_size, *net.training_sizes):
        try:
            pass_on_meta(nn.Sequential(net.extractor, net.head), (batch_size, 3, height, width), training=True)
        except ValueError as error:
            raise ConfigurationError(
                f"data.batch_size is too small: each device gets {batch_size} image at a time, the last level has "
                f"one cell at {height} x {width} pixels, but batch norm needs at least two values"
            ) from error


class SSD(ConfigMixin, nn.Module):
    """An SSD detector: backbone, extra layers, optional neck, head and priors.

    `extras`, `neck` and `head` are factories, since their channels depend on the parts before them: a class, or a
    `functools.partial` of a class with its settings, such as `partial(SSDExtras, layers=...)`.

    Args:
        backbone: the backbone, see `models.backbones`.
        extras: factory of the extra layers, see `models.extras`.
        levels: prior levels, one per feature map.
        image_size: input size in pixels, one number or (height, width).
        num_classes: number of classes C, without the background.
        head: factory of the head, see `models.head`.
        neck: factory of the neck between the feature maps and the head, see `models.neck`.
        normalization: colour normalisation; None uses that of the backbone's weights.
        clip_priors: whether priors (default boxes, anchors) are clipped to the image, see `make_priors`.

    Raises:
        ConfigurationError: the prior levels do not match the feature maps; the message has a table of both. Or
            `num_classes`, `image_size` or `clip_priors` is invalid.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        extras: MakeExtras,
        levels: Sequence[PriorLevel],
        image_size: Size,
        num_classes: int,
        head: MakeHead = SSDHead,
        neck: MakeNeck = NoNeck,
        normalization: Normalization | None = None,
        clip_priors: Clip = False,
    ) -> None:
        super().__init__()
        self._norms_in_evaluation: tuple[str, ...] = ()
        require_number("num_classes", num_classes, 1, whole=True)
        self.num_classes = num_classes
        self.image_size = as_height_width(image_size, "image_size")
        self.normalization: Normalization
        self.use_normalization(normalization or backbone.normalization)

        self.extractor = FeatureExtractor(backbone, extras, neck)
        self.levels = fit_to_grids(levels, measure_grids(self.extractor, self.image_size))
        self.head: Any = head(
            in_channels=self.extractor.out_channels,
            boxes_per_cell=[level.boxes_per_cell for level in self.levels],
            num_classes=num_classes,
        )
        self.clip_priors = clip_priors
        self._training_priors: dict[tuple[int, int], Tensor] = {}
        self.priors_cxcywh: Tensor
        priors = make_priors(self.levels, self.image_size, clip=clip_priors)
        self.register_buffer("priors_cxcywh", priors, persistent=False)  # [K, 4]

    @property
    def training_sizes(self) -> tuple[tuple[int, int], ...]:
        """Input sizes (height, width) that training accepts besides `image_size`."""
        return tuple(self._training_priors)

    def allow_training_sizes(self, sizes: Sequence[Size]) -> None:
        """Accept inputs of other sizes, (height, width) or one number, in training and create their priors.

        Raises:
            ConfigurationError: a size is invalid, or a layer does not support it.
        """
        for given in sizes:
            size = as_height_width(given, "data.multiscale")
            if size == self.image_size:
                continue
            try:
                grids = measure_grids(self.extractor, size)
            except ConfigurationError as error:
                raise ConfigurationError(f"data.multiscale includes {size[0]} x {size[1]}: {error}") from error
            levels = fit_to_grids(rescale_levels(self.levels, self.image_size, size), grids)
            self._training_priors[size] = make_priors(levels, size, clip=self.clip_priors)

    def use_normalization(self, normalization: Normalization) -> None:
        """Set the colour normalisation. It must be the one that the weights were trained with."""
        self.normalization = normalization
        # A checkpoint stores the normalisation, because the origin of the weights is not known when it is loaded.
        self._arguments.update(normalization=normalization)

    def freeze_backbone(self, *, stages: Stages = None, norm: bool = False) -> None:
        """Freeze layers of the backbone, including the running statistics of their batch norms.

        Args:
            stages: number of stages to freeze, counted from the input, or `all`. None freezes no stage.
            norm: also freeze all batch norms of the backbone.

        Raises:
            ConfigurationError: the backbone has fewer stages.
        """
        norms = freeze_backbone(self.extractor.backbone, self.image_size, stages=stages, norm=norm)
        self._norms_in_evaluation = tuple(f"extractor.backbone.{name}" for name in norms)
        self.train(self.training)  # now: Lightning's Trainer never calls `train()`

    def train(self, mode: bool = True) -> "SSD":
        """Set the training mode; frozen batch norms stay in evaluation mode."""
        super().train(mode)
        for name in self._norms_in_evaluation:  # by name: conversion to SyncBatchNorm replaces the modules
            self.get_submodule(name).eval()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SSD":
        priors = self.priors_cxcywh
        super()._apply(fn, recurse)
        # Priors stay float32 in a half-precision network: its three digits are not enough for box coordinates.
        self.priors_cxcywh = priors.to(self.priors_cxcywh.device)
        return self

    def forward(self, images: Tensor) -> SSDOutput:
        """Predict box offsets and class logits for a batch.

        Args:
            images: `[B, 3, H, W]`, RGB, 0..255, uint8 or float. The size is `image_size`; training also accepts
                `training_sizes`.

        Returns:
            Offsets `[B, K, 4]`, logits `[B, K, C + 1]` and the priors `[K, 4]`.

        Raises:
            ValueError: the images have another size.
        """
        priors_cxcywh = self._priors_for((images.shape[-2], images.shape[-1]))
        features = self.extractor(self.normalization(images))
        box_offsets, class_logits = self.head(features)
        return SSDOutput(box_offsets, class_logits, priors_cxcywh)

    def _priors_for(self, size: tuple[int, int]) -> Tensor:
        if size == self.image_size:
            return self.priors_cxcywh
        if not self.training or size not in self._training_priors:
            raise ValueError(f"the network expects images of size {self.image_size}, got {size}")
        self._training_priors[size] = self._training_priors[size].to(self.priors_cxcywh.device)
        return self._training_priors[size]
