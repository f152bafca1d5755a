"""Prediction heads: small convolutions from each feature map to offsets and logits (SSD paper, section 2.1)."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.models.config import ConfigMixin
from ssd_lightning.models.layers import Activation, Init, Norm, conv3x3, conv_block, init_normal, init_xavier


class SSDHead(ConfigMixin, nn.Module):
    """Two 3 x 3 convolutions for each feature map, one for offsets and one for logits.

    Args:
        in_channels: channels of each feature map.
        boxes_per_cell: priors per cell of each feature map.
        num_classes: number of classes C, without the background.
        prior_probability: foreground probability that an untrained head predicts. Focal loss needs a small value, .01
            (Lin et al. 2017, section 4.1). None keeps the biases at zero.
        init: initialises the weights; Caffe uses Xavier.

    Raises:
        ConfigurationError: `prior_probability` is outside (0, 1).
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        boxes_per_cell: Sequence[int],
        num_classes: int,
        prior_probability: float | None = None,
        init: Init = init_xavier,
    ) -> None:
        super().__init__()
        self.num_logits = num_classes + 1
        sizes = list(zip(in_channels, boxes_per_cell, strict=True))
        last = len(sizes) - 1
        self.box = nn.ModuleList(self.predictor(c, boxes * 4, i == last) for i, (c, boxes) in enumerate(sizes))
        self.cls = nn.ModuleList(
            self.predictor(c, boxes * self.num_logits, i == last) for i, (c, boxes) in enumerate(sizes)
        )
        init(self)
        expect_background(self.cls, self.num_logits, prior_probability)

    def predictor(self, in_channels: int, out_channels: int, is_last_level: bool) -> nn.Module:
        """Build the predictor of one feature map. Its last layer is a convolution."""
        return nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Predict from the feature maps `[B, in_channels[i], H_i, W_i]`.

        Returns:
            Offsets `[B, K, 4]` and logits `[B, K, C + 1]`, in the order of the priors: level, row, column, box.
        """
        return _predict(self.box, features, 4), _predict(self.cls, features, self.num_logits)


class LiteHead(SSDHead):
    """SSDLite's head: a depthwise 3 x 3 and a 1 x 1 convolution per feature map (MobileNetV2 paper, section 6.2).

    Args:
        in_channels: channels of each feature map.
        boxes_per_cell: priors per cell of each feature map.
        num_classes: number of classes C, without the background.
        prior_probability: see `SSDHead`.
        norm: builds the normalisation between the two. qfgaohao's MobileNetV1 and SqueezeNet use None.
        activation: builds the activation between the two.
        depthwise_bias: give the depthwise convolution a bias even if a normalisation follows, as lufficc and qfgaohao
            do.
        plain_last_level: use a single 1 x 1 convolution on the last feature map, as lufficc and qfgaohao do.
        init: initialises the weights; lufficc and qfgaohao use Xavier. Without normalisation, `init_normal` makes the
            signal vanish.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        boxes_per_cell: Sequence[int],
        num_classes: int,
        prior_probability: float | None = None,
        norm: Norm | None = nn.BatchNorm2d,
        activation: Activation = nn.ReLU6,
        depthwise_bias: bool = False,
        plain_last_level: bool = False,
        init: Init = init_normal,
    ) -> None:
        self._norm, self._activation, self._bias = norm, activation, depthwise_bias or norm is None
        self._plain_last_level = plain_last_level
        super().__init__(
            in_channels=in_channels,
            boxes_per_cell=boxes_per_cell,
            num_classes=num_classes,
            prior_probability=prior_probability,
            init=init,
        )

    def predictor(self, in_channels: int, out_channels: int, is_last_level: bool) -> nn.Module:
        """Build the predictor of one feature map. Its last layer is a convolution."""
        pointwise = nn.Conv2d(in_channels, out_channels, 1)
        if is_last_level and self._plain_last_level:
            return pointwise
        depthwise = conv_block(
            in_channels,
            in_channels,
            groups=in_channels,
            norm_layer=self._norm,
            activation_layer=self._activation,
            bias=self._bias,
        )
        return nn.Sequential(depthwise, pointwise)


class SharedHead(ConfigMixin, nn.Module):
    """One head for all feature maps: shared convolutions with separate batch norms per map, then the predictors.

    TensorFlow's `WeightSharedConvolutionalBoxPredictor` (convolutional_keras_box_predictor.py): "Each feature gets a
    separate batchnorm parameter even though they share the same convolution weights." `box` and `cls` hold one
    predictor each, which all maps share.

    Args:
        in_channels: channels of each feature map; all must be equal.
        boxes_per_cell: priors per cell of each feature map; all must be equal.
        num_classes: number of classes C, without the background.
        prior_probability: see `SSDHead`.
        channels: channels of the tower.
        num_layers: number of convolutions in the tower.
        separable: split each convolution and predictor into a depthwise and a 1 x 1 convolution.
        one_tower: offsets and logits share one tower, as in FPNLite. Otherwise each has its own, as in RetinaNet.
        norm: builds the normalisation after each convolution of the tower.
        activation: builds the activation after each normalisation.
        init: initialises the weights.

    Raises:
        ConfigurationError: the feature maps differ in channels or boxes, or `prior_probability` is outside (0, 1).
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        boxes_per_cell: Sequence[int],
        num_classes: int,
        prior_probability: float | None = 0.01,
        channels: int = 128,
        num_layers: int = 4,
        separable: bool = True,
        one_tower: bool = True,
        norm: Norm = nn.BatchNorm2d,
        activation: Activation = nn.ReLU6,
        init: Init = init_normal,
    ) -> None:
        super().__init__()
        for values, what, reason in (
            (in_channels, "channels", "neck=fpnlite or neck=fpn"),
            (boxes_per_cell, "priors per cell", "priors=fpnlite or priors=linear"),
        ):
            if len(set(values)) > 1:
                raise ConfigurationError(
                    f"a shared head needs the same number of {what} on all levels, got {list(values)}: use {reason}"
                )
        self.num_logits = num_classes + 1

        def tower() -> _SharedTower:
            convs = [
                conv3x3(in_channels[0] if layer == 0 else channels, channels, separable=separable)
                for layer in range(num_layers)
            ]
            return _SharedTower(convs, num_levels=len(in_channels), norm=lambda: norm(channels), activation=activation)

        self.tower = tower()
        self.cls_tower = None if one_tower else tower()
        out = channels if num_layers else in_channels[0]
        self.box = nn.ModuleList([conv3x3(out, boxes_per_cell[0] * 4, separable=separable, bias=True)])
        self.cls = nn.ModuleList([conv3x3(out, boxes_per_cell[0] * self.num_logits, separable=separable, bias=True)])
        init(self)
        expect_background(self.cls, self.num_logits, prior_probability)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Predict from the feature maps `[B, in_channels[i], H_i, W_i]`; see `SSDHead.forward`."""
        for_boxes = self.tower(features)
        for_classes = for_boxes if self.cls_tower is None else self.cls_tower(features)
        box, cls = ([predictors[0]] * len(features) for predictors in (self.box, self.cls))
        return _predict(box, for_boxes, 4), _predict(cls, for_classes, self.num_logits)


class _SharedTower(nn.Module):
    """Convolutions that all levels share, with a separate normalisation per level after each."""

    def __init__(
        self,
        convs: Sequence[nn.Module],
        *,
        num_levels: int,
        norm: Callable[[], nn.Module],
        activation: Activation,
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(nn.ModuleList(norm() for _ in convs) for _ in range(num_levels))
        self.activation = activation()

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        maps = []
        norms: Any
        for norms, x in zip(self.norms, features, strict=True):
            for conv, norm in zip(self.convs, norms, strict=True):
                x = self.activation(norm(conv(x)))
            maps.append(x)
        return maps


def expect_background(predictors: Iterable[nn.Module], num_logits: int, prior_probability: float | None) -> None:
    """Initialise the biases of class predictors so that they predict a given foreground probability, if any.

    Each predictor ends in a convolution with boxes times logits output channels.

    Raises:
        ConfigurationError: `prior_probability` is outside (0, 1).
    """
    if prior_probability is None:
        return
    if not 0 < prior_probability < 1:
        raise ConfigurationError(f"head.prior_probability is {prior_probability}; it must be between 0 and 1")
    # The softmax of (b, 0, .., 0) over C + 1 classes gives all foreground classes together the probability p.
    background = math.log((num_logits - 1) * (1 - prior_probability) / prior_probability)
    for predictor in predictors:
        bias = last_convolution(predictor).bias
        assert bias is not None
        with torch.no_grad():
            bias.view(-1, num_logits)[:, 0] = background


def last_convolution(predictor: nn.Module) -> nn.Conv2d:
    """Return the convolution of a predictor whose output channels are boxes times logits."""
    return [layer for layer in predictor.modules() if isinstance(layer, nn.Conv2d)][-1]


def _predict(predictors: Iterable[nn.Module], features: Iterable[Tensor], width: int) -> Tensor:
    # The channel index is box * width + (coordinate or class). Move channels last, then merge cells and boxes.
    maps = (predictor(feature).permute(0, 2, 3, 1) for predictor, feature in zip(predictors, features, strict=True))
    return torch.cat([cells.unflatten(3, (-1, width)).flatten(1, 3) for cells in maps], dim=1)
