"""Small parts that several networks share."""

from collections import OrderedDict
from collections.abc import Callable
from itertools import chain, pairwise

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

Init = Callable[[nn.Module], None]
"""Gives all convolutions of a module their first weights, such as `init_xavier`."""

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


class FoldingSequential(nn.Sequential):
    """A sequence in which a frozen batch norm costs nothing: its factors go into the weights of the convolution before.

    A batch norm with fixed statistics is one factor and one shift a channel. To apply them to the weights, which are
    small, is the same function of image, weights and the norm's own parameters as to apply them to the map, which is
    large; on a processor a training step of MobileNetV2 takes two thirds of the time. Parameters and their names stay.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Apply the layers in turn."""
        layers = [*self.children(), None]
        folded = False
        for layer, following in pairwise(layers):
            if folded:
                folded = False
            elif type(layer) is nn.Conv2d and isinstance(following, nn.BatchNorm2d) and not following.training:
                features, folded = convolve_and_normalize(layer, following, features), True
            else:
                assert layer is not None
                features = layer(features)
        return features


def convolve_and_normalize(conv: nn.Conv2d, norm: nn.BatchNorm2d, features: Tensor) -> Tensor:
    """Compute a convolution and a batch norm of fixed statistics `[C]` in one."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = torch.rsqrt(norm.running_var + norm.eps)
    if norm.affine:
        factor = factor * norm.weight
    shift = -norm.running_mean * factor
    if conv.bias is not None:
        shift = shift + conv.bias * factor
    if norm.affine:
        shift = shift + norm.bias
    return conv._conv_forward(features, conv.weight * factor[:, None, None, None], shift)


def fold_norms(module: nn.Module) -> None:
    """Let all sequences inside of a module that hold a convolution before a batch norm fold it while it is frozen."""
    for name, child in [*module.named_children()]:
        fold_norms(child)
        if isinstance(child, nn.Sequential) and not isinstance(child, FoldingSequential):
            layers = [*child.children()]
            if any(type(a) is nn.Conv2d and isinstance(b, nn.BatchNorm2d) for a, b in pairwise(layers)):
                folding = FoldingSequential(OrderedDict(child.named_children()))
                setattr(module, name, folding.train(child.training))


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


def init_normal(module: nn.Module, std: float = 0.03) -> None:
    """Initialise all convolutions with normal weights of a deviation and zero biases, depthwise ones like the others.

    torchvision's SSDLite has .03. Xavier counts a depthwise layer's fan-out as its channels times nine, and so starts
    it nearly at zero.
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
