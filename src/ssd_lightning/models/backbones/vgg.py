"""VGG16 as SSD uses it: convolutions to conv5_3, and fc6 and fc7 turned into convolutions (SSD paper, section 3)."""

import logging
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models import VGG16_BN_Weights, VGG16_Weights
from torchvision.models.vgg import cfgs, make_layers

from ssd_lightning.errors import ConfigurationError, WeightsError
from ssd_lightning.models.backbones.pretrained import read_backbone_weights
from ssd_lightning.models.config import ConfigMixin
from ssd_lightning.models.layers import L2Norm, conv_block, init_he
from ssd_lightning.ops.normalization import IMAGENET, SUBTRACT_MEAN_RGB, TORCHVISION_SSD, Normalization

log = logging.getLogger(__name__)

CONV4_3_CHANNELS, CONV7_CHANNELS = 512, 1024


class VGG16(ConfigMixin, nn.Module):
    """VGG16 up to conv7. Returns conv4_3, normalised, and conv7.

    Args:
        batch_norm: add batch norm after each convolution.
        conv4_3_norm: `l2`, as in the paper, or `batch`, as in qfgaohao/pytorch-ssd.
        weights: torchvision's `IMAGENET1K_V1` (all layers, fc6 and fc7 decimated) or a file of that format. Without
            batch norm also `IMAGENET1K_FEATURES` (without fc6 and fc7; the SSD of Caffe and torchvision start from it),
            a file of that format, or `vgg16_reducedfc.pth` (ssd.pytorch, lufficc and RFBNet start from it).

    Raises:
        ConfigurationError: `conv4_3_norm` is invalid.
        WeightsError: the weights are not available, or do not fit.
    """

    def __init__(
        self,
        *,
        batch_norm: bool = False,
        conv4_3_norm: Literal["l2", "batch"] = "l2",
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if conv4_3_norm not in ("l2", "batch"):
            raise ConfigurationError(f"backbone.conv4_3_norm is '{conv4_3_norm}'; it can be l2 or batch")
        layers = make_layers(cfgs["D"], batch_norm=batch_norm)
        pools = [index for index, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        layers[pools[2]].ceil_mode = True  # 75 -> 38, so that the first grid has step 8 over all 300 pixels
        layers[pools[4]] = nn.MaxPool2d(3, stride=1, padding=1)
        norm = nn.BatchNorm2d if batch_norm else None
        self.to_conv4_3 = layers[: pools[3]]
        self.to_conv7 = nn.Sequential(
            *layers[pools[3] :],
            # conv6: a quarter of fc6, dilated to the same receptive field
            *conv_block(512, CONV7_CHANNELS, dilation=6, norm_layer=norm),
            *conv_block(CONV7_CHANNELS, CONV7_CHANNELS, kernel_size=1, norm_layer=norm),
        )
        self.norm = L2Norm(CONV4_3_CHANNELS) if conv4_3_norm == "l2" else nn.BatchNorm2d(CONV4_3_CHANNELS)
        self.out_channels = (CONV4_3_CHANNELS, CONV7_CHANNELS)
        of_vgg = len(layers[pools[3] :])
        self.new_layers = ("norm", *(f"to_conv7.{index}" for index in range(of_vgg, len(self.to_conv7))))
        init_he(self)
        self.normalization = IMAGENET if weights is None else self._load(weights, batch_norm)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised images `[B, 3, H, W]` to conv4_3 `[B, 512, ...]` and conv7 `[B, 1024, ...]`."""
        conv4_3 = self.to_conv4_3(images)
        return [self.norm(conv4_3), self.to_conv7(conv4_3)]

    def with_weights(self, weights: str) -> "VGG16":
        """Build a copy of this backbone with the weights of a name or file."""
        return VGG16(**{**self._arguments, "weights": weights})

    def _load(self, weights: str, batch_norm: bool) -> Normalization:
        state = read_backbone_weights(weights, VGG16_BN_Weights if batch_norm else VGG16_Weights)
        if "0.weight" in state and not batch_norm:  # vgg16_reducedfc.pth
            return self._load_reduced(weights, state)
        convolutions = [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]
        try:
            self._load_features(state, count=26 if batch_norm else 13)
            # The paper's a-trous conversion: every 4th of 4096 channels, every 3rd of 7 x 7 positions.
            fc6, fc6_bias = state["classifier.0.weight"], state["classifier.0.bias"]
            fc7, fc7_bias = state["classifier.3.weight"], state["classifier.3.bias"]
            fc6, fc6_bias = fc6.view(4096, 512, 7, 7)[::4, :, ::3, ::3], fc6_bias[::4]
            fc7, fc7_bias = fc7.view(4096, 4096, 1, 1)[::4, ::4], fc7_bias[::4]
            if not fc6.isfinite().all():
                log.info("backbone.weights: no fc6 and fc7 in these weights; conv6 and conv7 start from scratch")
                return TORCHVISION_SSD
            _copy(convolutions[13], fc6, fc6_bias)
            _copy(convolutions[14], fc7, fc7_bias)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            kind = "VGG16 with batch norm" if batch_norm else "VGG16"
            raise WeightsError(f"backbone.weights={weights}: not torchvision's {kind}: {error}") from error
        return IMAGENET

    def _load_features(self, state: dict[str, Tensor], *, count: int) -> None:
        """Load conv1_1 to conv5_3 and their batch norms, if any: `count` layers in total."""
        ours = [layer for layer in (*self.to_conv4_3, *self.to_conv7) if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d))]
        names = [name.removesuffix(".weight") for name in state if name.startswith("features.") and ".weight" in name]
        if len(names) != count:
            raise ValueError(f"it has {len(names)} layers with weights under 'features.', expected {count}")
        for layer, name in zip(ours[:count], names, strict=True):
            layer.load_state_dict({key: state[f"{name}.{key}"] for key in layer.state_dict()})

    def _load_reduced(self, weights: str, state: dict[str, Tensor]) -> Normalization:
        """Load `vgg16_reducedfc.pth`: one flat list of layers with fc6 and fc7 already decimated."""
        layers = dict(enumerate([*self.to_conv4_3, *self.to_conv7]))
        try:
            for name in state:
                index, _, kind = name.partition(".")
                layer = layers[int(index)]
                if kind == "weight" and isinstance(layer, nn.Conv2d):
                    _copy(layer, state[name], state[f"{index}.bias"])
            if len(state) != 2 * sum(isinstance(layer, nn.Conv2d) for layer in layers.values()):
                raise ValueError(f"it has {len(state)} tensors")
        except (KeyError, ValueError) as error:
            raise WeightsError(f"backbone.weights={weights}: not vgg16_reducedfc.pth: {error}") from error
        return SUBTRACT_MEAN_RGB


def _copy(layer: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    if layer.weight.shape != weight.shape:
        raise ValueError(f"a layer of shape {tuple(layer.weight.shape)} got weights of {tuple(weight.shape)}")
    with torch.no_grad():
        layer.weight.copy_(weight)
        if layer.bias is not None:  # no bias if a batch norm follows
            layer.bias.copy_(bias)
