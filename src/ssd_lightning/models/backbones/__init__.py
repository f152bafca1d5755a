"""Backbones: images in, the first feature maps out. One file a family.

A backbone is an `nn.Module` that gives a list of feature maps, states their channels as `out_channels` and the
`normalization` that its weights were trained with. Layers that ImageNet weights do not have are its `new_layers`.
"""

from typing import Protocol

from torch import Tensor

from ssd_lightning.models.backbones.efficientnet import EfficientNetB3
from ssd_lightning.models.backbones.mobilenet import MobileNetV2, MobileNetV3Large
from ssd_lightning.models.backbones.mobilenet_v1 import MobileNetV1
from ssd_lightning.models.backbones.resnet import ResNet
from ssd_lightning.models.backbones.squeezenet import SqueezeNet
from ssd_lightning.models.backbones.timm_models import TimmBackbone
from ssd_lightning.models.backbones.tiny import TinyBackbone
from ssd_lightning.models.backbones.vgg import VGG16
from ssd_lightning.ops.normalization import Normalization

__all__ = [
    "VGG16",
    "Backbone",
    "EfficientNetB3",
    "MobileNetV1",
    "MobileNetV2",
    "MobileNetV3Large",
    "ResNet",
    "SqueezeNet",
    "TimmBackbone",
    "TinyBackbone",
]


class Backbone(Protocol):
    """What SSD asks of a backbone.

    One that sets `last_map_is_for_extras_only` gives a last map that the extra layers grow on and the head does not
    see.
    """

    out_channels: tuple[int, ...]
    normalization: Normalization

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Map normalised images `[B, 3, H, W]` to feature maps `[B, out_channels[i], H_i, W_i]`."""
        ...
