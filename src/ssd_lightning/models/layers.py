"""Building blocks that several networks share."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torchvision.ops import Conv2dNormActivation


class L2Norm(nn.Module):
    """L2 normalisation over channels with a learned scale per channel (ParseNet; SSD paper, section 3.1).

    The features of conv4_3 differ in magnitude from those of deeper layers; this layer rescales them. It computes in
    float32 or better, because the sum of 512 squares overflows half precision.

    Args:
        channels: channels of the feature map.
        scale: initial value of all scales; 20 in the paper.
    """

    def __init__(self, channels: int, scale: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, features: Tensor) -> Tensor:
        """Normalise `[B, channels, H, W]`. The result has the dtype of the scales, which is float32 under autocast."""
        precision = torch.promote_types(features.dtype, torch.float32)
        # Only the lengths are computed in float32, so that no copy of the features is kept for the gradient. The
        # gradient of a product needs less memory than that of a quotient.
        length = torch.linalg.vector_norm(features, dim=1, keepdim=True, dtype=precision).clamp(min=1e-10)
        return (features * length.reciprocal() * self.weight.to(precision)[:, None, None]).to(self.weight.dtype)


Norm = Callable[[int], nn.Module]
"""Builds a normalisation for a number of channels, such as `nn.BatchNorm2d` or a `partial` of it."""

Init = Callable[[nn.Module], None]
"""Initialises all convolutions of a module, such as `init_xavier`."""

Activation = Callable[[], nn.Module]
"""Builds an activation, such as `nn.ReLU`."""


conv_block = partial(Conv2dNormActivation, norm_layer=None, inplace=None)
"""Builds a convolution, an optional normalisation (`norm_layer`) and an optional activation (`activation_layer`, ReLU).

Without a given `bias`, the convolution has one only if no normalisation follows.
"""


class FoldingSequential(nn.Sequential):
    """A sequence that folds each frozen batch norm into the weights of the preceding convolution.

    A batch norm with fixed statistics is one factor and one shift per channel. Applying them to the small weights
    instead of the large feature map computes the same function of image, weights and norm parameters. A training step
    of MobileNetV2 on a CPU takes two thirds of the time. Parameters and their names do not change.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Apply the layers in sequence."""
        layers = [*self]
        while layers:
            layer = layers.pop(0)
            norm = layers[0] if layers else None
            if type(layer) is nn.Conv2d and isinstance(norm, nn.BatchNorm2d) and not norm.training:
                features = convolve_and_normalize(layer, norm, features)
                layers.pop(0)
            else:
                features = layer(features)
        return features


def convolve_and_normalize(conv: nn.Conv2d, norm: nn.BatchNorm2d, features: Tensor) -> Tensor:
    """Apply a convolution and a batch norm with fixed statistics `[C]` as one convolution."""
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
    """Replace each sequence in a module that has a convolution before a batch norm by a `FoldingSequential`."""
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
    """Build a 3 x 3 convolution.

    `separable` uses a depthwise and a 1 x 1 convolution with nothing between them, as Keras' `SeparableConv2D`; `bias`
    is that of the last one.
    """
    if not separable:
        return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=bias)
    depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(in_channels, out_channels, 1, bias=bias))


def apply_in_turn(layers: Iterable[nn.Module], features: Tensor) -> list[Tensor]:
    """Apply the layers in sequence and return the output of each."""
    maps = []
    for layer in layers:
        features = layer(features)
        maps.append(features)
    return maps


class _ShapesOnly(TorchFunctionMode):
    """Skips activations and fixed batch norms. On the meta device they take most of the time, .2 s of MobileNetV3."""

    same_shape = (F.relu, F.relu6, F.hardswish, F.hardsigmoid, F.silu)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return the input of what does not change its shape. A norm of another number of channels fails as usual."""
        kwargs = kwargs or {}
        is_fixed_norm = func is F.batch_norm and not kwargs["training"] and args[0].shape[1] == len(args[1])
        if func in self.same_shape or is_fixed_norm:
            return args[0]
        return func(*args, **kwargs)


def pass_on_meta(network: nn.Module, shape: tuple[int, ...], *, training: bool) -> list[Tensor]:
    """Pass an input of this shape through a network on the meta device, without computing values."""
    tensors = chain(network.named_parameters(), network.named_buffers())
    meta = {name: tensor.detach().to("meta") for name, tensor in tensors}
    modes = {module: module.training for module in network.modules()}
    network.train(training)
    try:
        with _ShapesOnly():
            return functional_call(network, meta, torch.empty(*shape, device="meta"))
    finally:
        for module, mode in modes.items():
            module.training = mode


def init_xavier(module: nn.Module) -> None:
    """Initialise all convolutions with Xavier weights and zero biases, as the Caffe reference does for new layers."""
    _init_convolutions(module, nn.init.xavier_uniform_)


def init_normal(module: nn.Module, std: float = 0.03) -> None:
    """Initialise all convolutions, including depthwise ones, with normal weights and zero biases.

    torchvision's SSDLite uses .03. Xavier takes the fan-out of a depthwise layer as its channels times nine, so its
    weights would start close to zero.
    """
    _init_convolutions(module, partial(nn.init.normal_, std=std))


def init_he(module: nn.Module) -> None:
    """Initialise all convolutions with He weights (fan out) and zero biases (He et al., arXiv 1502.01852)."""
    _init_convolutions(module, partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu"))


def _init_convolutions(module: nn.Module, init_weight: Callable[[Tensor], Tensor]) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            init_weight(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
