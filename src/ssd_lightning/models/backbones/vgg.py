"""VGG16 as SSD uses it: convolutions to conv5_3, and fc6 and fc7 turned into convolutions (SSD paper, section 3)."""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import VGG16_Weights
from torchvision.models.vgg import cfgs, make_layers

from ssd_lightning.errors import WeightsError
from ssd_lightning.models.layers import L2Norm, conv_block
from ssd_lightning.ops.normalization import IMAGENET, TORCHVISION_SSD, Normalization
from ssd_lightning.specs import Described

log = logging.getLogger(__name__)

CONV4_3_CHANNELS, CONV7_CHANNELS = 512, 1024


class VGG16(Described, nn.Module):
    """VGG16 up to conv7; gives conv4_3, L2-normalised, and conv7.

    Args:
        batch_norm: normalise after each convolution, for training from scratch.
        weights: torchvision's `IMAGENET1K_V1` (all layers, fc6 and fc7 decimated) or `IMAGENET1K_FEATURES` (what
            Caffe's and torchvision's SSD start from; it has no fc6 and fc7), or a file of either format.

    Raises:
        WeightsError: the weights cannot be had, or do not fit.
    """

    not_described = ("weights",)

    def __init__(self, *, batch_norm: bool = False, weights: str | None = None) -> None:
        super().__init__()
        layers = make_layers(cfgs["D"], batch_norm=batch_norm)
        pools = [index for index, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        layers[pools[2]].ceil_mode = True  # 75 -> 38, so that the first grid has step 8 over all 300 pixels
        layers[pools[4]] = nn.MaxPool2d(3, stride=1, padding=1)
        self.to_conv4_3 = layers[: pools[3]]
        self.to_conv7 = nn.Sequential(
            *layers[pools[3] :],
            *conv_block(
                512, CONV7_CHANNELS, kernel_size=3, padding=6, dilation=6, batch_norm=batch_norm
            ),  # conv6: a quarter of fc6, spread by dilation to see as far as fc6 does
            *conv_block(CONV7_CHANNELS, CONV7_CHANNELS, kernel_size=1, batch_norm=batch_norm),
        )
        self.norm = L2Norm(CONV4_3_CHANNELS)
        self.out_channels = (CONV4_3_CHANNELS, CONV7_CHANNELS)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.normalization = IMAGENET if weights is None else self._load(weights, batch_norm)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised pictures `[B, 3, H, W]` to conv4_3 `[B, 512, ...]` and conv7 `[B, 1024, ...]`."""
        conv4_3 = self.to_conv4_3(images)
        return [self.norm(conv4_3), self.to_conv7(conv4_3)]

    def _load(self, weights: str, batch_norm: bool) -> Normalization:
        if batch_norm:
            raise WeightsError("backbone.weights: torchvision's VGG16 weights have no batch norm; use backbone=vgg16")
        state = read_vgg16_weights(weights)
        try:
            convolutions = [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]
            features = [name.removesuffix(".weight") for name in state if name.startswith("features.")]
            features = [name for name in features if not name.endswith(".bias")]
            for layer, name in zip(convolutions[:13], features, strict=True):
                _copy(layer, state[f"{name}.weight"], state[f"{name}.bias"])
            # The paper's a-trous conversion: every 4th of 4096 channels, every 3rd of 7 x 7 positions.
            fc6, fc6_bias = state["classifier.0.weight"], state["classifier.0.bias"]
            fc7, fc7_bias = state["classifier.3.weight"], state["classifier.3.bias"]
            fc6, fc6_bias = fc6.view(4096, 512, 7, 7)[::4, :, ::3, ::3], fc6_bias[::4]
            fc7, fc7_bias = fc7.view(4096, 4096, 1, 1)[::4, ::4], fc7_bias[::4]
            if not fc6.isfinite().all():
                log.info("backbone.weights: no fc6 and fc7 in these weights; conv6 and conv7 start anew")
                return TORCHVISION_SSD
            _copy(convolutions[13], fc6, fc6_bias)
            _copy(convolutions[14], fc7, fc7_bias)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise WeightsError(f"backbone.weights={weights}: not torchvision's VGG16: {error}") from error
        return IMAGENET


def read_vgg16_weights(weights: str) -> dict[str, Tensor]:
    """Read torchvision's VGG16 weights by name (from its cache, else by download) or from a file.

    Raises:
        WeightsError: neither a known name nor a file that can be read safely, or there is no network to fetch it.
    """
    if weights in VGG16_Weights.__members__:
        url = VGG16_Weights[weights].url
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
        try:
            return torch.hub.load_state_dict_from_url(url, check_hash=True, weights_only=True)
        except Exception as error:  # no network, a wrong checksum, or a damaged file in the cache
            raise WeightsError(
                f"backbone.weights: cannot get {url} ({_first_line(error)}); put that file at {place}"
            ) from error
    path = Path(weights)
    if not path.is_file():
        names = ", ".join(VGG16_Weights.__members__)
        raise WeightsError(f"backbone.weights={weights}: neither a file nor one of {names}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"backbone.weights={weights}: not a file of tensors alone: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _copy(layer: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    if layer.weight.shape != weight.shape:
        raise ValueError(f"a layer of shape {tuple(layer.weight.shape)} got weights of {tuple(weight.shape)}")
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
