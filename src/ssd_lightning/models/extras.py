"""Extra feature layers: what SSD grows on top of a backbone, each level coarser than the one before."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NotRequired, TypedDict

from torch import Tensor, nn

from ssd_lightning.models.backbones.tiny import down_sample_block
from ssd_lightning.models.layers import conv_block, init_xavier
from ssd_lightning.specs import Described


class ExtraLayer(TypedDict):
    """One extra level: a 1 x 1 convolution to `mid_channels`, then a larger one to `out_channels`."""

    mid_channels: int
    out_channels: int
    stride: int
    padding: int
    kernel_size: NotRequired[int]


class SSDExtras(Described, nn.Module):
    """conv8 to conv11 (SSD paper, figure 2).

    Args:
        in_channels: of the backbone's last feature map.
        layers: one entry a level.
        batch_norm: normalise after each convolution; the paper does not.
    """

    def __init__(self, in_channels: int, *, layers: Sequence[ExtraLayer], batch_norm: bool = False) -> None:
        super().__init__()
        levels = []
        for layer in layers:
            squeeze = conv_block(in_channels, layer["mid_channels"], kernel_size=1, batch_norm=batch_norm)
            expand = conv_block(
                layer["mid_channels"],
                layer["out_channels"],
                kernel_size=layer.get("kernel_size", 3),
                stride=layer["stride"],
                padding=layer["padding"],
                batch_norm=batch_norm,
            )
            levels.append(nn.Sequential(squeeze, expand))
            in_channels = layer["out_channels"]
        self.levels = nn.ModuleList(levels)
        self.out_channels = tuple(layer["out_channels"] for layer in layers)
        init_xavier(self)

    def forward(self, features: Tensor) -> list[Tensor]:
        """Map the backbone's last `[B, in_channels, H, W]` to one feature map a level."""
        return apply_in_turn(self.levels, features)


class TinyExtras(Described, nn.Module):
    """Down-sampling blocks and a last level of one cell (Dive into Deep Learning, TinySSD).

    Args:
        in_channels: of the backbone's feature map.
        channels: of each block; the cell of the last level has those of the last block.
    """

    def __init__(self, in_channels: int, *, channels: Sequence[int] = (128, 128, 128)) -> None:
        super().__init__()
        sizes = [in_channels, *channels]
        blocks: list[nn.Module] = [down_sample_block(a, b) for a, b in pairwise(sizes)]
        self.levels = nn.ModuleList([*blocks, nn.AdaptiveMaxPool2d(1)])
        self.out_channels = (*channels, channels[-1])

    def forward(self, features: Tensor) -> list[Tensor]:
        """Map the backbone's last `[B, in_channels, H, W]` to one feature map a level."""
        return apply_in_turn(self.levels, features)


def apply_in_turn(levels: nn.ModuleList, features: Tensor) -> list[Tensor]:
    """Feed each level what the one before it gave, and keep all."""
    maps = []
    for level in levels:
        features = level(features)
        maps.append(features)
    return maps
