"""Colour normalisation of the input. It must be that of the weights; a wrong one costs 5 mAP."""

import math
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from ssd_lightning.errors import ConfigurationError


@dataclass(frozen=True)
class Normalization:
    """Computes (colour - mean) / std on 0..255 and sets the channel order that the weights were trained with.

    Attributes:
        mean: mean of the red, green and blue channel.
        std: standard deviation of the red, green and blue channel.
        bgr: the network expects BGR images.

    Raises:
        ConfigurationError: not three finite numbers each, or a standard deviation is not above 0.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False

    def __post_init__(self) -> None:
        # Checkpoints store lists. Convert them to tuples so that equal presets compare equal.
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        are_numbers = all(isinstance(value, Real) and math.isfinite(value) for value in (*self.mean, *self.std))
        if len(self.mean) != 3 or len(self.std) != 3 or not are_numbers or min(self.std) <= 0:
            raise ConfigurationError(f"a normalization has three means and three std above 0, got {self}")

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise `[B, 3, H, W]` RGB images of 0..255, uint8 or float. Returns a float tensor."""
        images = images if images.is_floating_point() else images.to(torch.get_default_dtype())
        # Filled on the device: a list of numbers would be copied from the host, which would have to wait.
        mean, std = (
            torch.stack([images.new_full((1, 1), value) for value in values]) for values in (self.mean, self.std)
        )
        images = (images - mean) / std
        return images.flip(-3) if self.bgr else images


IDENTITY = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""The input is normalised already."""

IMAGENET = Normalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""torchvision's ImageNet backbones; also the default for training from scratch."""

SUBTRACT_MEAN_RGB = Normalization((123.0, 117.0, 104.0), (1.0, 1.0, 1.0))
"""ssd.pytorch's own detectors, RGB."""

SUBTRACT_MEAN_BGR = Normalization((123.0, 117.0, 104.0), (1.0, 1.0, 1.0), bgr=True)
"""Weights converted from Caffe, BGR."""

TORCHVISION_SSD = Normalization((0.48235 * 255, 0.45882 * 255, 0.40784 * 255), (1.0, 1.0, 1.0))
"""torchvision's SSD and its VGG16 `IMAGENET1K_FEATURES`: mean of 0..1 colours, std 1/255."""

MEAN_127_STD_128 = Normalization((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
"""qfgaohao/pytorch-ssd's MobileNets and SqueezeNet."""

TORCHVISION_SSDLITE = Normalization((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
"""torchvision's SSDLite320: scales to -1..1."""
