"""EfficientNet-B3 as lufficc/SSD uses it."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import EfficientNet_B3_Weights, efficientnet_b3

from ssd_lightning.models.backbones.pretrained import load_backbone
from ssd_lightning.models.backbones.strides import SequenceBackbone, check_strides
from ssd_lightning.models.config import ConfigMixin
from ssd_lightning.models.layers import Norm
from ssd_lightning.ops.normalization import IMAGENET

ENDS = {4: 3, 8: 4, 16: 6, 32: 8}
"""Stride -> number of stages up to the last one of that stride."""


class EfficientNetB3(ConfigMixin, SequenceBackbone):
    """EfficientNet-B3.

    Args:
        strides: strides of the feature maps, from 4, 8, 16 and 32; must include 32.
        same_padding: pad convolutions of stride 2 as TensorFlow does, with more padding right and below. Weights
            converted from TensorFlow, and lufficc's, need this. torchvision pads all sides equally.
        norm: builds the normalisations. None is torchvision's, with eps 1e-5. TensorFlow and lufficc use .001.
        weights: torchvision's `IMAGENET1K_V1` or a file.

    Raises:
        ConfigurationError: the strides are invalid.
        WeightsError: the weights are not available, or do not fit.
    """

    def __init__(
        self,
        *,
        strides: Sequence[int] = (8, 16, 32),
        same_padding: bool = False,
        norm: Norm | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.ends = tuple(ENDS[s] for s in check_strides(strides, possible=(*ENDS,), network="EfficientNet-B3"))
        network = load_backbone(efficientnet_b3(weights=None, norm_layer=norm), weights, EfficientNet_B3_Weights)
        self.features = network.features[: self.ends[-1]]
        if same_padding:
            _pad_as_tensorflow(self.features)
        self.out_channels = tuple(network.features[end - 1][-1].out_channels for end in self.ends)
        self.normalization = IMAGENET


class SamePadConv2d(nn.Conv2d):
    """A convolution with ceil(input / stride) output cells. Odd padding goes to the right and the bottom."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve `[B, in_channels, H, W]`."""
        sides = []
        for size, kernel, stride in zip(input.shape[-2:], self.kernel_size, self.stride, strict=True):
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides.append((missing // 2, missing - missing // 2))
        (top, bottom), (left, right) = sides
        return super().forward(F.pad(input, (left, right, top, bottom)))


def _pad_as_tensorflow(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
            layer.__class__, layer.padding = SamePadConv2d, (0, 0)  # they differ only in `forward`
