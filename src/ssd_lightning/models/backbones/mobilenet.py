"""MobileNetV2 and MobileNetV3 as SSDLite uses them."""

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights, MobileNet_V3_Large_Weights, mobilenet_v2, mobilenet_v3_large
from torchvision.ops import SqueezeExcitation

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.models.backbones.pretrained import load_backbone
from ssd_lightning.models.layers import Norm
from ssd_lightning.ops.normalization import IMAGENET
from ssd_lightning.specs import Described

Tap = Literal["expansion", "block"]
"""Where the map of stride 16 is taken: after the expansion of the first block of stride 32 (MobileNetV2 paper, section
6.2; torchvision, qfgaohao), or before that block (lufficc)."""


class MobileNetV2(Described, nn.Module):
    """MobileNetV2; gives maps of stride 16 and 32.

    Args:
        tap: where the map of stride 16 is taken.
        weights: torchvision's `IMAGENET1K_V1` or `IMAGENET1K_V2`, or a file.

    Raises:
        ConfigurationError: there is no such tap.
        WeightsError: the weights cannot be had, or do not fit.
    """

    not_described = ("weights",)
    first_of_stride_32 = 14

    def __init__(self, *, tap: Tap = "expansion", weights: str | None = None) -> None:
        super().__init__()
        network = mobilenet_v2(weights=None)
        if weights is not None:
            load_backbone(network, weights, MobileNet_V2_Weights)
        self.features = network.features
        self.tap = _checked(tap)
        self.out_channels = (576 if tap == "expansion" else 96, 1280)
        self.normalization = IMAGENET

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised pictures `[B, 3, H, W]` to maps of stride 16 and 32."""
        return _tapped(self.features, self.first_of_stride_32, lambda block: block.conv, self.tap, images)


class MobileNetV3Large(Described, nn.Module):
    """MobileNetV3-Large; gives maps of stride 16 and 32.

    Args:
        tap: where the map of stride 16 is taken.
        reduced_tail: halve the channels after it, as torchvision's SSDLite does when it is trained from scratch
            (MobileNetV3 paper, section 6.3).
        norm: makes the normalisations; None is torchvision's, with eps .001 and momentum .01.
        excite_before_activation: squeeze and excitation comes before the activation of the depthwise convolution, as in
            lufficc's network, instead of after it.
        weights: torchvision's `IMAGENET1K_V1` or `IMAGENET1K_V2`, or a file.

    Raises:
        ConfigurationError: there is no such tap.
        WeightsError: the weights cannot be had, or do not fit.
    """

    not_described = ("weights",)
    first_of_stride_32 = 13

    def __init__(
        self,
        *,
        tap: Tap = "expansion",
        reduced_tail: bool = False,
        norm: Norm | None = None,
        excite_before_activation: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        network = mobilenet_v3_large(weights=None, reduced_tail=reduced_tail, norm_layer=norm)
        if weights is not None:
            load_backbone(network, weights, MobileNet_V3_Large_Weights)
        self.features = network.features
        if excite_before_activation:
            for block in self.features[1:-1]:
                _swap_excitation(block.block)
        self.tap = _checked(tap)
        expanded = self.features[self.first_of_stride_32].block[0].out_channels
        self.out_channels = (expanded if tap == "expansion" else 112, self.features[-1].out_channels)
        self.normalization = IMAGENET

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised pictures `[B, 3, H, W]` to maps of stride 16 and 32."""
        return _tapped(self.features, self.first_of_stride_32, lambda block: block.block, self.tap, images)


def _checked(tap: Tap) -> Tap:
    if tap not in ("expansion", "block"):
        raise ConfigurationError(f"backbone.tap is '{tap}'; it can be expansion or block")
    return tap


def _tapped(
    features: nn.Sequential, index: int, layers_of: Callable[[Any], nn.Sequential], tap: Tap, images: Tensor
) -> list[Tensor]:
    stride_16: Tensor = features[:index](images)
    layers = layers_of(features[index])
    expanded = layers[0](stride_16)
    stride_32 = features[index + 1 :](layers[1:](expanded))
    return [expanded if tap == "expansion" else stride_16, stride_32]


def _swap_excitation(layers: nn.Sequential) -> None:
    for index, layer in enumerate(layers):
        if isinstance(layer, SqueezeExcitation):
            depthwise: Any = layers[index - 1]
            depthwise[2], layers[index] = layer, depthwise[2]
