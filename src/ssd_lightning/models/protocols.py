"""The parts of an SSD. Each is an `nn.Module` with these attributes and this `forward`.

Each also derives from `ConfigMixin` and is defined in `ssd_lightning.models`, so that a checkpoint can rebuild it.

The channels of extra layers, neck and head depend on the parts before them. Therefore SSD takes factories for these
three: a class, or a `functools.partial` with its settings.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from ssd_lightning.ops.normalization import Normalization


class Backbone(Protocol):
    """Images in, the first feature maps out, the finest first.

    Layers that ImageNet weights do not have are its `new_layers`. A backbone with `last_map_is_for_extras_only = True`
    gives a last map that the extra layers use and the head does not see.
    """

    out_channels: tuple[int, ...]
    """Of its feature maps."""
    normalization: Normalization
    """What its weights were trained with."""

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Map normalised images `[B, 3, H, W]` to feature maps `[B, out_channels[i], H_i, W_i]`."""


class Extras(Protocol):
    """Extra layers: the last feature map of the backbone in, coarser maps out."""

    out_channels: tuple[int, ...]

    def __call__(self, features: Tensor) -> list[Tensor]:
        """Map `[B, C, H, W]` to one feature map `[B, out_channels[i], H_i, W_i]` for each level."""


class Neck(Protocol):
    """All feature maps in, the maps that the head sees out."""

    out_channels: tuple[int, ...]

    def __call__(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map `[B, in_channels[i], H_i, W_i]` to `[B, out_channels[i], H_i, W_i]`; more levels may follow."""


class Head(Protocol):
    """Feature maps in, predictions for all K priors out."""

    def __call__(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Map feature maps to offsets `[B, K, 4]` and class logits `[B, K, C + 1]`."""


MakeExtras = Callable[[int], Extras]
"""Takes the channels of the backbone's last feature map."""

MakeNeck = Callable[[Sequence[int]], Neck]
"""Takes the channels of all feature maps."""


class MakeHead(Protocol):
    """Makes a head for the feature maps."""

    def __call__(self, *, in_channels: Sequence[int], boxes_per_cell: Sequence[int], num_classes: int) -> Head:
        """Take the channels and the priors of a cell of each feature map, and C, without the background."""
