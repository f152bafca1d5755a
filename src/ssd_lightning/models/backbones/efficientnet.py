"""EfficientNet-B3 as lufficc/SSD uses it."""

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import EfficientNet_B3_Weights, efficientnet_b3

from ssd_lightning.models.backbones.pretrained import load_backbone
from ssd_lightning.models.layers import Norm
from ssd_lightning.ops.normalization import IMAGENET
from ssd_lightning.specs import Described

LAST_STAGES = (3, 5, 7)
"""The last stages of stride 8, 16 and 32."""


class EfficientNetB3(Described, nn.Module):
    """EfficientNet-B3; gives maps of stride 8, 16 and 32.

    Args:
        same_padding: pad convolutions of stride 2 as TensorFlow does, more right and below, which weights
            converted from there (and lufficc's) want; torchvision's pads all sides alike.
        norm: makes the normalisations; None is torchvision's, with eps 1e-5. TensorFlow's and lufficc's have .001.
        weights: torchvision's `IMAGENET1K_V1` or a file.

    Raises:
        WeightsError: the weights cannot be had, or do not fit.
    """

    not_described = ("weights",)

    def __init__(self, *, same_padding: bool = False, norm: Norm | None = None, weights: str | None = None) -> None:
        super().__init__()
        network = efficientnet_b3(weights=None, norm_layer=norm)
        if weights is not None:
            load_backbone(network, weights, EfficientNet_B3_Weights)
        self.features = network.features[: LAST_STAGES[-1] + 1]
        if same_padding:
            _pad_as_tensorflow(self.features)
        self.out_channels = (48, 136, 384)
        self.normalization = IMAGENET

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised pictures `[B, 3, H, W]` to maps of stride 8, 16 and 32."""
        maps: list[Tensor] = []
        for index, stage in enumerate(self.features):
            images = stage(images)
            if index in LAST_STAGES:
                maps.append(images)
        return maps


class SamePadConv2d(nn.Conv2d):
    """A convolution whose output has ceil(input / stride) cells; what is odd of the padding goes right and down."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve `[B, in_channels, H, W]`."""
        sides = []
        for size, kernel, stride in zip(input.shape[-2:], self.kernel_size, self.stride, strict=True):
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides.append((missing // 2, missing - missing // 2))
        (top, bottom), (left, right) = sides
        return super().forward(F.pad(input, (left, right, top, bottom)))


def _pad_as_tensorflow(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
                padded = SamePadConv2d(
                    layer.in_channels,
                    layer.out_channels,
                    layer.kernel_size,  # type: ignore[arg-type]
                    stride=2,
                    groups=layer.groups,
                    bias=False,
                )
                padded.load_state_dict(layer.state_dict())
                setattr(parent, name, padded)
