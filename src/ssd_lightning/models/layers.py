"""Small parts that several networks share."""

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn
from torch.func import functional_call


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
        # The lengths alone are widened, not the features: no copy of them is kept for the gradient. That of a product
        # needs less memory than that of a quotient.
        length = torch.linalg.vector_norm(features, dim=1, keepdim=True, dtype=precision).clamp(min=1e-10)
        return (features * length.reciprocal() * self.weight.to(precision)[:, None, None]).to(self.weight.dtype)


Norm = Callable[[int], nn.Module]
"""Makes a normalisation for a number of channels, such as `nn.BatchNorm2d` or a `partial` of it."""

Activation = Callable[[], nn.Module]
"""Makes an activation, such as `nn.ReLU`."""


def conv_block(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    norm: Norm | None = None,
    activation: Activation | None = nn.ReLU,
    bias: bool | None = None,
) -> nn.Sequential:
    """Make convolution, normalisation if wanted, and activation if wanted.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: of the convolution.
        stride: of the convolution.
        padding: of the convolution.
        dilation: of the convolution.
        groups: of the convolution.
        norm: makes the normalisation for `out_channels`.
        activation: makes the activation.
        bias: whether the convolution has one; None gives it one where no normalisation follows.
    """
    bias = norm is None if bias is None else bias
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
    layers: list[nn.Module] = [conv]
    if norm is not None:
        layers.append(norm(out_channels))
    if activation is not None:
        layers.append(activation())
    return nn.Sequential(*layers)


def conv3x3(
    in_channels: int, out_channels: int, *, stride: int = 1, separable: bool = False, bias: bool = False
) -> nn.Module:
    """Make a 3 x 3 convolution; a separable one is a depthwise one and a 1 x 1 one with nothing between them.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: of the convolution.
        separable: see above; Keras' `SeparableConv2D`.
        bias: whether the output has one.
    """
    if not separable:
        return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=bias)
    depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(in_channels, out_channels, 1, bias=bias))


def pass_on_meta(network: nn.Module, shape: tuple[int, ...], *, training: bool) -> list[Tensor]:
    """Pass an image of a shape through a network on the meta device, which computes nothing."""
    tensors = chain(network.named_parameters(), network.named_buffers())
    meta = {name: tensor.detach().to("meta") for name, tensor in tensors}
    modes = {module: module.training for module in network.modules()}
    network.train(training)
    try:
        return functional_call(network, meta, torch.empty(*shape, device="meta"))
    finally:
        for module, mode in modes.items():
            module.training = mode


def init_xavier(module: nn.Module) -> None:
    """Initialise all convolutions as the Caffe reference does its new layers: Xavier weights, zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def init_normal(module: nn.Module, std: float) -> None:
    """Initialise all convolutions with normal weights of a deviation and zero biases, depthwise ones like the others.

    Xavier counts a depthwise layer's fan-out as its channels times nine, and so starts it nearly at zero.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def init_he(module: nn.Module) -> None:
    """Initialise all convolutions for training from scratch (He et al., arXiv 1502.01852): fan out, zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
