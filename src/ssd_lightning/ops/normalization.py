"""What an image's colours become before the first layer. The preset belongs to the weights: swapping costs 5 mAP."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalization:
    """(colour - mean) / std in units of 0..255, in the channel order that the weights were trained with.

    Attributes:
        mean: of the red, green and blue channel.
        std: of the red, green and blue channel.
        bgr: the network wants blue first.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False

    def __post_init__(self) -> None:
        # A checkpoint's plain containers have no tuples; equality should not notice.
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise `[B, 3, H, W]` RGB images of 0..255, uint8 or float; gives a float tensor."""
        images = images if images.is_floating_point() else images.to(torch.get_default_dtype())
        # Filled where the images are: a list of numbers would be copied there, and the host would wait.
        mean, std = (
            torch.stack([images.new_full((1, 1), value) for value in values]) for values in (self.mean, self.std)
        )
        images = (images - mean) / std
        return images.flip(1) if self.bgr else images


IDENTITY = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""The input is normalised already."""

IMAGENET = Normalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""torchvision's ImageNet backbones; also what training from scratch uses."""

SUBTRACT_MEAN_RGB = Normalization((123.0, 117.0, 104.0), (1.0, 1.0, 1.0))
"""ssd.pytorch's own detectors: red first."""

SUBTRACT_MEAN_BGR = Normalization((123.0, 117.0, 104.0), (1.0, 1.0, 1.0), bgr=True)
"""Weights converted from Caffe: blue first."""

TORCHVISION_SSD = Normalization((0.48235 * 255, 0.45882 * 255, 0.40784 * 255), (1.0, 1.0, 1.0))
"""torchvision's SSD and its VGG16 `IMAGENET1K_FEATURES`: mean of 0-1 colours, std 1/255."""

MEAN_127_STD_128 = Normalization((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
"""qfgaohao/pytorch-ssd's MobileNets and SqueezeNet."""

TORCHVISION_SSDLITE = Normalization((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
"""torchvision's SSDLite320: -1..1."""
