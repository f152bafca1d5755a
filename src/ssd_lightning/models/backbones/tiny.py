"""The backbone of TinySSD (Dive into Deep Learning, section "Single Shot Multibox Detection")."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from ssd_lightning.models.config import ConfigMixin
from ssd_lightning.models.layers import conv_block
from ssd_lightning.ops.normalization import IMAGENET


def down_sample_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Build two 3 x 3 convolutions with batch norm, followed by a pooling that halves the grid."""
    return nn.Sequential(
        conv_block(in_channels, out_channels, norm_layer=nn.BatchNorm2d),
        conv_block(out_channels, out_channels, norm_layer=nn.BatchNorm2d),
        nn.MaxPool2d(2),
    )


class TinyBackbone(ConfigMixin, nn.Module):
    """Down-sampling blocks. The output of the last block is the only feature map.

    Args:
        channels: channels of each block. d2l uses 16, 32, 64, which reduces 256 x 256 to 32 x 32.
    """

    def __init__(self, *, channels: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        sizes = [3, *channels]
        self.blocks = nn.Sequential(*(down_sample_block(a, b) for a, b in pairwise(sizes)))
        self.out_channels = (channels[-1],)
        self.normalization = IMAGENET

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised images `[B, 3, H, W]` to one feature map of 1/8 of the size for three blocks."""
        return [self.blocks(images)]
