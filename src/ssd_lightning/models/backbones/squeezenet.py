"""SqueezeNet 1.1 as qfgaohao's SSDLite uses it."""

from torch import Tensor, nn
from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

from ssd_lightning.models.backbones.pretrained import load_backbone
from ssd_lightning.ops.normalization import IMAGENET
from ssd_lightning.specs import Described


class SqueezeNet(Described, nn.Module):
    """SqueezeNet 1.1; gives the map before its last fire module, and that module's output for the extra layers alone.

    Args:
        ceil_mode: of the pooling: torchvision's rounds up, which turns 300 pixels into 18 cells; qfgaohao's rounds
            down, 17 cells.
        weights: torchvision's `IMAGENET1K_V1` or a file.

    Raises:
        WeightsError: the weights cannot be had, or do not fit.
    """

    not_described = ("weights",)
    last_map_is_for_extras_only = True

    def __init__(self, *, ceil_mode: bool = True, weights: str | None = None) -> None:
        super().__init__()
        network = squeezenet1_1(weights=None)
        if weights is not None:
            load_backbone(network, weights, SqueezeNet1_1_Weights)
        self.features = network.features
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = ceil_mode
        self.out_channels = (512, 512)
        self.normalization = IMAGENET

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised pictures `[B, 3, H, W]` to two maps `[B, 512, ...]` of stride 16."""
        features = self.features[:-1](images)
        return [features, self.features[-1](features)]
