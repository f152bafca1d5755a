"""VGG16 as SSD uses it: convolutions to conv5_3, and fc6 and fc7 turned into convolutions (SSD paper, section 3)."""

import logging
from typing import Literal

from torch import Tensor, nn
from torchvision.models import VGG16_BN_Weights, VGG16_Weights
from torchvision.models.vgg import cfgs, make_layers

from ssd_lightning.checks import require_choice
from ssd_lightning.errors import WeightsError
from ssd_lightning.models.backbones.pretrained import read_backbone_weights, require_same_names
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
        require_choice("backbone.conv4_3_norm", conv4_3_norm, ("l2", "batch"))
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
        layers = nn.Sequential(*self.to_conv4_3, *self.to_conv7)  # numbered as torchvision's `features`
        if "0.weight" in state and not batch_norm:  # one list of layers, with fc6 and fc7 already decimated
            require_same_names(state, layers.state_dict(), weights, "vgg16_reducedfc.pth")
            layers.load_state_dict(state)
            return SUBTRACT_MEAN_RGB
        kind = "torchvision's VGG16 with batch norm" if batch_norm else "torchvision's VGG16"
        given = {name: tensor for name, tensor in state.items() if name.startswith("features.")}
        *_, conv6, conv7 = (index for index, layer in enumerate(layers) if isinstance(layer, nn.Conv2d))
        try:
            # The paper's a-trous conversion: every 4th of 4096 channels, every 3rd of 7 x 7 positions.
            fc6 = state["classifier.0.weight"].view(4096, 512, 7, 7)[::4, :, ::3, ::3]
            fc7 = state["classifier.3.weight"].view(4096, 4096, 1, 1)[::4, ::4]
            biases = {
                f"features.{conv6}.bias": state["classifier.0.bias"][::4],
                f"features.{conv7}.bias": state["classifier.3.bias"][::4],
            }
        except (KeyError, RuntimeError) as error:
            raise WeightsError(f"backbone.weights={weights}: not {kind}: {error}") from error
        has_fc = bool(fc6.isfinite().all())
        if has_fc:
            given |= {f"features.{conv6}.weight": fc6, f"features.{conv7}.weight": fc7}
            given |= {} if batch_norm else biases
        else:
            log.info("backbone.weights: no fc6 and fc7 in these weights; conv6 and conv7 start from scratch")
        ours = nn.ModuleDict({"features": layers})
        new = tuple(f"features.{index}." for index in range(conv6, len(layers)))
        wanted = {name: own for name, own in ours.state_dict().items() if name in given or not name.startswith(new)}
        require_same_names(given, wanted, weights, kind)
        ours.load_state_dict(given, strict=False)
        return IMAGENET if has_fc else TORCHVISION_SSD
