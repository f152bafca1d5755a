"""Small parts that several networks share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class L2Norm(nn.Module):
    """L2 normalisation over channels with a learned scale for each (ParseNet; SSD paper, section 3.1).

    conv4_3 has features of another magnitude than the deeper layers; this brings them together. Computed in float32 or
    better, since the sum of 512 squares overflows half precision.

    Args:
        channels: of the feature map.
        scale: initial value of all scales; the paper's is 20.
    """

    def __init__(self, channels: int, scale: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, features: Tensor) -> Tensor:
        """Normalise `[B, channels, H, W]`; gives the scales' precision, so float32 under autocast."""
        precision = torch.promote_types(features.dtype, torch.float32)
        normalised = F.normalize(features.to(precision), dim=1, eps=1e-10)
        return (normalised * self.weight.to(precision)[:, None, None]).to(self.weight.dtype)


def conv_block(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    batch_norm: bool = False,
) -> nn.Sequential:
    """Make convolution, batch normalisation if wanted, and ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=not batch_norm)
    layers = [conv, nn.BatchNorm2d(out_channels), nn.ReLU()] if batch_norm else [conv, nn.ReLU()]
    return nn.Sequential(*layers)


def init_xavier(module: nn.Module) -> None:
    """Initialise all convolutions as the Caffe reference does its new layers: Xavier weights, zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
