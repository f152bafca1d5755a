"""ResNet-34 and ResNet-50 as SSD backbones."""

from typing import Literal

from torch import Tensor, nn
from torchvision.models import ResNet34_Weights, ResNet50_Weights, resnet34, resnet50

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.models.backbones.pretrained import load_backbone
from ssd_lightning.ops.normalization import IMAGENET
from ssd_lightning.specs import Described

NETWORKS = {34: (resnet34, ResNet34_Weights), 50: (resnet50, ResNet50_Weights)}


class ResNet(Described, nn.Module):
    """ResNet, cut off where SSD goes on.

    Args:
        depth: 34 or 50.
        maps: `conv4` is NVIDIA's (DeepLearningExamples): conv4 keeps the grid of conv3, 38 x 38 of 300 pixels, and is
            the only map. `conv3_to_conv5` leaves the network whole and takes its last three stages, 38, 19 and 10.
        weights: torchvision's name, such as `IMAGENET1K_V1`, or a file.

    Raises:
        ConfigurationError: there is no such depth or choice of maps.
        WeightsError: the weights cannot be had, or do not fit.
    """

    not_described = ("weights",)

    def __init__(
        self,
        *,
        depth: Literal[34, 50] = 50,
        maps: Literal["conv4", "conv3_to_conv5"] = "conv4",
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if depth not in NETWORKS:
            raise ConfigurationError(f"backbone.depth is {depth}; it can be 34 or 50")
        if maps not in ("conv4", "conv3_to_conv5"):
            raise ConfigurationError(f"backbone.maps is '{maps}'; it can be conv4 or conv3_to_conv5")
        make, names = NETWORKS[depth]
        network = make(weights=None)
        if weights is not None:
            load_backbone(network, weights, names)
        stem = (network.conv1, network.bn1, network.relu, network.maxpool)
        conv2, conv3, conv4, conv5 = network.layer1, network.layer2, network.layer3, network.layer4
        if maps == "conv4":
            _remove_stride(conv4[0])
            stages = [nn.Sequential(*stem, conv2, conv3, conv4)]
            last_blocks = [conv4[-1]]
        else:
            stages = [nn.Sequential(*stem, conv2, conv3), conv4, conv5]
            last_blocks = [conv3[-1], conv4[-1], conv5[-1]]
        self.stages = nn.ModuleList(stages)
        self.out_channels = tuple(_channels(block) for block in last_blocks)
        self.normalization = IMAGENET

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised pictures `[B, 3, H, W]` to the chosen maps."""
        maps: list[Tensor] = []
        for stage in self.stages:
            images = stage(images)
            maps.append(images)
        return maps


def _remove_stride(block: nn.Module) -> None:
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)


def _channels(block: nn.Module) -> int:
    return [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)][-1].out_channels
