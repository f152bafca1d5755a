"""The parts of an SSD. Each is an `nn.Module` with these attributes and this `forward`.

Each also derives from `ConfigMixin` and is defined in `ssd_lightning.models`, so that a checkpoint can rebuild it.

Extra layers, neck and head can only be built when the channels of the parts before them are known. `SSD` therefore
takes a factory for each of these three: a class such as `LiteHead`, or a `functools.partial` of the class with its
settings. In the YAML files, `_partial_: true` makes this factory.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from ssd_lightning.ops.normalization import Normalization


class Backbone(Protocol):
    """Images in, the first feature maps out, the finest first.

    Two attributes are optional. `new_layers` are the names of layers that ImageNet weights do not contain; they are
    never frozen. `last_map_is_for_extras_only = True` says that the last map goes to the extra layers, not to the head.
    """

    out_channels: tuple[int, ...]
    """Channels of its feature maps."""
    normalization: Normalization
    """Colour normalisation that its weights were trained with."""

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Map normalised images `[B, 3, H, W]` to feature maps `[B, out_channels[i], H_i, W_i]`."""


class Extras(Protocol):
    """Extra layers: the last feature map of the backbone in, coarser maps out."""

    out_channels: tuple[int, ...]
    """Channels of its feature maps."""

    def __call__(self, features: Tensor) -> list[Tensor]:
        """Map `[B, C, H, W]` to one feature map `[B, out_channels[i], H_i, W_i]` for each level."""


class Neck(Protocol):
    """All feature maps in, the feature maps of the head out."""

    out_channels: tuple[int, ...]
    """Channels of its feature maps."""

    def __call__(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map `[B, in_channels[i], H_i, W_i]` to `[B, out_channels[i], H_i, W_i]`; it may add levels at the end."""


class Head(Protocol):
    """Feature maps in, predictions for all K priors out."""

    def __call__(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Map feature maps to offsets `[B, K, 4]` and class logits `[B, K, C + 1]`."""


MakeExtras = Callable[[int], Extras]
"""Factory of the extra layers. Its argument: channels of the backbone's last feature map."""

MakeNeck = Callable[[Sequence[int]], Neck]
"""Factory of the neck. Its argument: channels of all feature maps of backbone and extra layers."""

MakeHead = Callable[..., Head]
"""Factory of the head.

Keyword arguments: `in_channels` and `boxes_per_cell` of each feature map; `num_classes` without the background.
"""
