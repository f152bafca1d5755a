"""Necks: feature maps in, as many feature maps out, each knowing more than before."""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from ssd_lightning.specs import Described


class FPN(Described, nn.Module):
    """A feature pyramid: coarse levels are added to finer ones (Lin et al., arXiv 1612.03144).

    Args:
        in_channels: of every feature map.
        out_channels: of all feature maps afterwards.
    """

    def __init__(self, in_channels: Sequence[int], *, out_channels: int = 256) -> None:
        super().__init__()
        self.pyramid = FeaturePyramidNetwork(list(in_channels), out_channels)
        self.out_channels = (out_channels,) * len(in_channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map `[B, in_channels[i], H_i, W_i]` to `[B, out_channels, H_i, W_i]`."""
        named = {str(index): feature for index, feature in enumerate(features)}
        return list(self.pyramid(named).values())


class NoNeck(Described, nn.Module):
    """The feature maps as they are.

    Args:
        in_channels: of every feature map.
    """

    def __init__(self, in_channels: Sequence[int]) -> None:
        super().__init__()
        self.out_channels = tuple(in_channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Give the maps back."""
        return list(features)
