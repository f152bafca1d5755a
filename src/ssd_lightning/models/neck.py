"""Necks: combine the feature maps and return at least as many."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from ssd_lightning.models.config import ConfigMixin
from ssd_lightning.models.layers import Activation, Init, Norm, apply_in_turn, conv3x3, init_normal


class FPN(ConfigMixin, nn.Module):
    """A feature pyramid that adds coarse levels to finer ones (Lin et al., arXiv 1612.03144).

    Args:
        in_channels: channels of each feature map.
        out_channels: channels of each output map.
    """

    def __init__(self, in_channels: Sequence[int], *, out_channels: int = 256) -> None:
        super().__init__()
        self.pyramid = FeaturePyramidNetwork(list(in_channels), out_channels)
        self.out_channels = (out_channels,) * len(in_channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map `[B, in_channels[i], H_i, W_i]` to `[B, out_channels, H_i, W_i]`."""
        named = {str(index): feature for index, feature in enumerate(features)}
        return list(self.pyramid(named).values())


class FPNLite(ConfigMixin, nn.Module):
    """The feature pyramid of TensorFlow's detection API, with its own coarse levels.

    As `KerasFpnTopDownFeatureMaps` in feature_map_generators.py: the coarsest map is only projected. Each other map is
    projected, added to the next coarser map and smoothed. Each extra level is a convolution of stride 2, starting from
    the coarsest map (ssd_mobilenet_v2_fpn_keras_feature_extractor.py).

    Args:
        in_channels: channels of each feature map.
        out_channels: channels of each output map.
        extra_levels: number of extra levels.
        separable: split each 3 x 3 convolution into a depthwise and a 1 x 1 convolution.
        norm: builds the normalisation after each 3 x 3 convolution.
        activation: builds the activation after each normalisation.
        init: initialises the weights.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        *,
        out_channels: int = 128,
        extra_levels: int = 2,
        separable: bool = True,
        norm: Norm = nn.BatchNorm2d,
        activation: Activation = nn.ReLU6,
        init: Init = init_normal,
    ) -> None:
        super().__init__()

        def block(stride: int) -> nn.Sequential:
            conv = conv3x3(out_channels, out_channels, stride=stride, separable=separable)
            return nn.Sequential(conv, norm(out_channels), activation())

        self.projections = nn.ModuleList(nn.Conv2d(channels, out_channels, 1) for channels in in_channels)
        self.smoothings = nn.ModuleList(block(stride=1) for _ in in_channels[:-1])
        self.levels = nn.ModuleList(block(stride=2) for _ in range(extra_levels))
        self.out_channels = (out_channels,) * (len(in_channels) + extra_levels)
        init(self)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map `[B, in_channels[i], H_i, W_i]` to `[B, out_channels, H_i, W_i]` and append the extra levels."""
        *finer, top = (project(feature) for project, feature in zip(self.projections, features, strict=True))
        maps = [top]
        for lateral, smooth in zip(reversed(finer), reversed(self.smoothings), strict=True):
            maps.append(smooth(lateral + F.interpolate(maps[-1], size=lateral.shape[-2:], mode="nearest")))
        return [*reversed(maps), *apply_in_turn(self.levels, top)]


class NoNeck(ConfigMixin, nn.Module):
    """No neck: returns the feature maps unchanged."""

    def __init__(self, in_channels: Sequence[int]) -> None:
        super().__init__()
        self.out_channels = tuple(in_channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the maps unchanged."""
        return list(features)
