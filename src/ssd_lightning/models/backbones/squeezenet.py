"""SqueezeNet 1.1 as qfgaohao's SSDLite uses it."""

from collections.abc import Sequence

from torch import nn
from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

from ssd_lightning.models.backbones.pretrained import load_backbone
from ssd_lightning.models.backbones.strides import SequenceBackbone, check_strides
from ssd_lightning.models.config import ConfigMixin
from ssd_lightning.ops.normalization import IMAGENET

ENDS = {4: 5, 8: 8, 16: 12}
"""Stride -> number of layers up to the map of that stride: before the next pooling, or the last fire module."""


class SqueezeNet(ConfigMixin, SequenceBackbone):
    """SqueezeNet 1.1. Returns the maps of the strides, and the last fire module's output for the extra layers only.

    Args:
        strides: strides of the feature maps, from 4, 8 and 16; must include 16.
        ceil_mode: round up in the poolings, as torchvision does: 300 pixels become 18 cells. qfgaohao rounds down, to
            17 cells.
        weights: torchvision's `IMAGENET1K_V1` or a file.

    Raises:
        ConfigurationError: the strides are invalid.
        WeightsError: the weights are not available, or do not fit.
    """

    last_map_is_for_extras_only = True

    def __init__(self, *, strides: Sequence[int] = (16,), ceil_mode: bool = True, weights: str | None = None) -> None:
        super().__init__()
        chosen = check_strides(strides, possible=(*ENDS,), network="SqueezeNet")
        network = load_backbone(squeezenet1_1(weights=None), weights, SqueezeNet1_1_Weights)
        self.features = network.features
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = ceil_mode
        self.ends = (*(ENDS[stride] for stride in chosen), len(self.features))
        channels = {4: 128, 8: 256, 16: 512}  # of the fire modules at these strides
        self.out_channels = (*(channels[stride] for stride in chosen), 512)
        self.normalization = IMAGENET
