"""MobileNetV2 and MobileNetV3 as SSDLite uses them."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights, MobileNet_V3_Large_Weights, mobilenet_v2, mobilenet_v3_large
from torchvision.ops import SqueezeExcitation

from ssd_lightning.checks import require_choice
from ssd_lightning.models.backbones.pretrained import load_backbone
from ssd_lightning.models.backbones.strides import check_strides
from ssd_lightning.models.config import ConfigMixin
from ssd_lightning.models.layers import Norm
from ssd_lightning.ops.normalization import IMAGENET

Tap = Literal["expansion", "block"]
"""Where a feature map is taken: after the expansion of the first block of the next stride (torchvision, qfgaohao; for
stride 16 MobileNetV2 paper, section 6.2), or before that block (lufficc). The map of stride 32 is the last one."""

STRIDES = (4, 8, 16, 32)


class _TappedNetwork(nn.Module):
    """Base class of networks whose feature maps are taken inside blocks.

    Attributes:
        first_blocks: indices of the first block of stride 8, 16 and 32.
        layers_name: attribute with a block's layers.
    """

    first_blocks: tuple[int, ...]
    layers_name: str

    def _take(self, features: nn.Sequential, strides: Sequence[int], tap: Tap) -> None:
        require_choice("backbone.tap", tap, get_args(Tap))
        chosen = check_strides(strides, possible=STRIDES, network=type(self).__name__)
        self.features = features
        self.tap = tap
        self._tapped = tuple(self.first_blocks[STRIDES.index(stride)] for stride in chosen[:-1])
        expansions = [self._layers(index)[0][0] for index in self._tapped]
        channels = (conv.out_channels if tap == "expansion" else conv.in_channels for conv in expansions)
        last: Any = features[-1]
        self.out_channels: tuple[int, ...] = (*channels, last.out_channels)

    def _layers(self, index: int) -> Any:
        return getattr(self.features[index], self.layers_name)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised images `[B, 3, H, W]` to maps of the chosen strides."""
        maps: list[Tensor] = []
        start = 0
        for index in self._tapped:
            before: Tensor = self.features[start:index](images)
            layers = self._layers(index)
            expanded = layers[0](before)
            maps.append(expanded if self.tap == "expansion" else before)
            images, start = layers[1:](expanded), index + 1
        return [*maps, self.features[start:](images)]


class MobileNetV2(ConfigMixin, _TappedNetwork):
    """MobileNetV2.

    Args:
        strides: strides of the feature maps, from 4, 8, 16 and 32; must include 32.
        tap: where all maps except the last are taken.
        weights: torchvision's `IMAGENET1K_V1` or `IMAGENET1K_V2`, or a file.

    Raises:
        ConfigurationError: the tap or the strides are invalid.
        WeightsError: the weights are not available, or do not fit.
    """

    first_blocks = (4, 7, 14)
    layers_name = "conv"

    def __init__(
        self, *, strides: Sequence[int] = (16, 32), tap: Tap = "expansion", weights: str | None = None
    ) -> None:
        super().__init__()
        network = load_backbone(mobilenet_v2(weights=None), weights, MobileNet_V2_Weights)
        self._take(network.features, strides, tap)
        self.normalization = IMAGENET


class MobileNetV3Large(ConfigMixin, _TappedNetwork):
    """MobileNetV3-Large.

    Args:
        strides: strides of the feature maps, from 4, 8, 16 and 32; must include 32.
        tap: where all maps except the last are taken.
        reduced_tail: halve the channels after the map of stride 16, as torchvision does for an SSDLite trained from
            scratch (MobileNetV3 paper, section 6.3).
        norm: builds the normalisations. None is torchvision's, with eps .001 and momentum .01.
        excite_before_activation: put squeeze and excitation before the activation of the depthwise convolution, as
            lufficc does, instead of after it.
        weights: torchvision's `IMAGENET1K_V1` or `IMAGENET1K_V2`, or a file.

    Raises:
        ConfigurationError: the tap or the strides are invalid.
        WeightsError: the weights are not available, or do not fit.
    """

    first_blocks = (4, 7, 13)
    layers_name = "block"

    def __init__(
        self,
        *,
        strides: Sequence[int] = (16, 32),
        tap: Tap = "expansion",
        reduced_tail: bool = False,
        norm: Norm | None = None,
        excite_before_activation: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        network = mobilenet_v3_large(weights=None, reduced_tail=reduced_tail, norm_layer=norm)
        load_backbone(network, weights, MobileNet_V3_Large_Weights)
        if excite_before_activation:
            for block in network.features[1:-1]:
                _swap_excitation(block.block)
        self._take(network.features, strides, tap)
        self.normalization = IMAGENET


def _swap_excitation(layers: nn.Sequential) -> None:
    for index, layer in enumerate(layers):
        if isinstance(layer, SqueezeExcitation):
            depthwise: Any = layers[index - 1]
            depthwise[2], layers[index] = layer, depthwise[2]
