"""Extra feature layers that SSD adds after the backbone. Each level is coarser than the previous one."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NotRequired, TypedDict

from torch import Tensor, nn
from torch.nn.functional import max_pool2d
from torchvision.ops import SqueezeExcitation

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.models.backbones.tiny import down_sample_block
from ssd_lightning.models.config import ConfigMixin
from ssd_lightning.models.layers import Activation, Init, Norm, apply_in_turn, conv_block, init_normal, init_xavier
from ssd_lightning.models.protocols import MakeExtras


class ExtraLayer(TypedDict):
    """One extra level: a 1 x 1 convolution to `mid_channels`, then a larger convolution to `out_channels`."""

    mid_channels: int
    out_channels: int
    stride: int
    padding: int
    kernel_size: NotRequired[int]


class _Levels(nn.Module):
    """Base class of extra levels, each of which continues the previous one."""

    levels: nn.ModuleList
    out_channels: tuple[int, ...]

    def forward(self, features: Tensor) -> list[Tensor]:
        """Map the backbone's last `[B, in_channels, H, W]` to one feature map per level."""
        return apply_in_turn(self.levels, features)


class SSDExtras(ConfigMixin, _Levels):
    """conv8 to conv11 (SSD paper, figure 2).

    Args:
        in_channels: channels of the backbone's last feature map.
        layers: one entry per level; none for a backbone or a neck that provides all levels.
        norm: builds the normalisation after each convolution. The paper uses none.
    """

    def __init__(self, in_channels: int, *, layers: Sequence[ExtraLayer], norm: Norm | None = None) -> None:
        super().__init__()
        levels = []
        for layer in layers:
            squeeze = conv_block(in_channels, layer["mid_channels"], kernel_size=1, norm_layer=norm)
            expand = conv_block(
                layer["mid_channels"],
                layer["out_channels"],
                kernel_size=layer.get("kernel_size", 3),
                stride=layer["stride"],
                padding=layer["padding"],
                norm_layer=norm,
            )
            levels.append(nn.Sequential(squeeze, expand))
            in_channels = layer["out_channels"]
        self.levels = nn.ModuleList(levels)
        self.out_channels = tuple(layer["out_channels"] for layer in layers)
        init_xavier(self)


class LiteExtras(ConfigMixin, _Levels):
    """Extra levels with a depthwise 3 x 3 between two 1 x 1 convolutions (MobileNetV2 paper, section 6.2).

    Args:
        in_channels: channels of the backbone's last feature map.
        layers: one entry per level.
        norm: builds the normalisation after each convolution. qfgaohao's MobileNetV1 and SqueezeNet use None.
        activation: builds the activation after the first two convolutions.
        last_activation: builds the activation after the third convolution. None keeps it linear, as in an inverted
            residual.
        squeeze_ratio: add squeeze and excitation with this fraction of the channels before the second activation, as
            in lufficc's MobileNetV3.
        init: initialises the weights; lufficc and qfgaohao use Xavier. Without normalisation, `init_normal` makes the
            signal vanish.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        layers: Sequence[ExtraLayer],
        norm: Norm | None = nn.BatchNorm2d,
        activation: Activation = nn.ReLU6,
        last_activation: Activation | None = None,
        squeeze_ratio: float | None = None,
        init: Init = init_normal,
    ) -> None:
        super().__init__()
        levels = []
        for layer in layers:
            mid, out = layer["mid_channels"], layer["out_channels"]
            depthwise = conv_block(
                mid,
                mid,
                kernel_size=layer.get("kernel_size", 3),
                stride=layer["stride"],
                padding=layer["padding"],
                groups=mid,
                norm_layer=norm,
                activation_layer=activation,
            )
            if squeeze_ratio is not None:
                depthwise.insert(
                    len(depthwise) - 1,
                    SqueezeExcitation(mid, int(mid * squeeze_ratio), scale_activation=nn.Hardsigmoid),
                )
            levels.append(
                nn.Sequential(
                    conv_block(in_channels, mid, kernel_size=1, norm_layer=norm, activation_layer=activation),
                    depthwise,
                    conv_block(mid, out, kernel_size=1, norm_layer=norm, activation_layer=last_activation),
                )
            )
            in_channels = out
        self.levels = nn.ModuleList(levels)
        self.out_channels = tuple(layer["out_channels"] for layer in layers)
        init(self)


class GlobalMaxPool(nn.Module):
    """The maximum of each channel. As a plain pooling layer, which pnnx and ncnn know, unlike `AdaptiveMaxPool2d`."""

    def forward(self, features: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to `[B, C, 1, 1]`."""
        height, width = features.shape[-2:]
        return max_pool2d(features, (height, width))


class TinyExtras(ConfigMixin, _Levels):
    """Down-sampling blocks and a last level with a single cell (Dive into Deep Learning, TinySSD).

    Args:
        in_channels: channels of the backbone's feature map.
        channels: channels of each block. The last level has the channels of the last block.
    """

    def __init__(self, in_channels: int, *, channels: Sequence[int] = (128, 128, 128)) -> None:
        super().__init__()
        sizes = [in_channels, *channels]
        blocks: list[nn.Module] = [down_sample_block(a, b) for a, b in pairwise(sizes)]
        self.levels = nn.ModuleList([*blocks, GlobalMaxPool()])
        self.out_channels = (*channels, channels[-1])


class ShortenedExtras(ConfigMixin, _Levels):
    """Extra levels without the last ones, for ablations. The weights keep their names.

    Args:
        in_channels: channels of the backbone's feature map.
        extras: factory of all extra levels, see `models.protocols`.
        drop_last: number of levels to drop.

    Raises:
        ConfigurationError: there are fewer extra levels.
    """

    def __init__(self, in_channels: int, *, extras: MakeExtras, drop_last: int) -> None:
        super().__init__()
        whole: Any = extras(in_channels)
        if not 0 < drop_last <= len(whole.out_channels):
            raise ConfigurationError(f"{drop_last} extra levels cannot be dropped; there are {len(whole.out_channels)}")
        self.levels = whole.levels[:-drop_last]
        self.out_channels = whole.out_channels[:-drop_last]
