"""Backbones compute the first feature maps from images. One file per family; see `models.protocols.Backbone`."""

from ssd_lightning.models.backbones.efficientnet import EfficientNetB3
from ssd_lightning.models.backbones.mobilenet import MobileNetV2, MobileNetV3Large
from ssd_lightning.models.backbones.mobilenet_v1 import MobileNetV1
from ssd_lightning.models.backbones.resnet import ResNet
from ssd_lightning.models.backbones.squeezenet import SqueezeNet
from ssd_lightning.models.backbones.timm_models import TimmBackbone
from ssd_lightning.models.backbones.tiny import TinyBackbone
from ssd_lightning.models.backbones.vgg import VGG16

__all__ = [
    "VGG16",
    "EfficientNetB3",
    "MobileNetV1",
    "MobileNetV2",
    "MobileNetV3Large",
    "ResNet",
    "SqueezeNet",
    "TimmBackbone",
    "TinyBackbone",
]
