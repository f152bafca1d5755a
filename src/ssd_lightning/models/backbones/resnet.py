"""ResNet-34 and ResNet-50 as SSD backbones."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torchvision.models import ResNet34_Weights, ResNet50_Weights, resnet34, resnet50

from ssd_lightning.checks import require_choice
from ssd_lightning.models.backbones.pretrained import load_backbone
from ssd_lightning.models.backbones.strides import check_strides
from ssd_lightning.models.config import ConfigMixin
from ssd_lightning.models.layers import apply_in_turn
from ssd_lightning.ops.normalization import IMAGENET

NETWORKS = {34: (resnet34, ResNet34_Weights), 50: (resnet50, ResNet50_Weights)}


class ResNet(ConfigMixin, nn.Module):
    """ResNet without the layers that SSD does not use.

    Args:
        depth: 34 or 50.
        maps: `conv4`, as NVIDIA (DeepLearningExamples): conv4 keeps the grid of conv3, 38 x 38 at 300 pixels, and is
            the only map. `conv3_to_conv5` keeps the whole network and returns its last three stages, 38, 19 and 10.
        strides: strides of the feature maps of the whole network, from 4, 8, 16 and 32; must include 32. None uses
            `maps`.
        weights: torchvision's name, such as `IMAGENET1K_V1`, or a file.

    Raises:
        ConfigurationError: the depth, the maps or the strides are invalid.
        WeightsError: the weights are not available, or do not fit.
    """

    def __init__(
        self,
        *,
        depth: Literal[34, 50] = 50,
        maps: Literal["conv4", "conv3_to_conv5"] = "conv4",
        strides: Sequence[int] | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        require_choice("backbone.depth", depth, (*NETWORKS,))
        require_choice("backbone.maps", maps, ("conv4", "conv3_to_conv5"))
        make, names = NETWORKS[depth]
        network = load_backbone(make(weights=None), weights, names)
        stem = (network.conv1, network.bn1, network.relu, network.maxpool)
        conv2, conv3, conv4, conv5 = network.layer1, network.layer2, network.layer3, network.layer4
        if strides is None and maps == "conv4":
            _remove_stride(conv4[0])
            stages = [nn.Sequential(*stem, conv2, conv3, conv4)]
        else:
            of_stride = {4: [*stem, conv2], 8: [conv3], 16: [conv4], 32: [conv5]}
            chosen = (8, 16, 32) if strides is None else strides
            ends = check_strides(chosen, possible=(*of_stride,), network=f"ResNet-{depth}")
            stages = _joined(of_stride, ends)
        self.stages = nn.ModuleList(stages)
        self.out_channels = tuple(_channels(stage) for stage in stages)
        self.normalization = IMAGENET

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised images `[B, 3, H, W]` to the chosen maps."""
        return apply_in_turn(self.stages, images)


def _remove_stride(block: nn.Module) -> None:
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)


def _joined(of_stride: dict[int, list[nn.Sequential]], ends: Sequence[int]) -> list[nn.Sequential]:
    """Join layers into stages that end at the given strides."""
    stages, layers = [], []
    for stride, more in of_stride.items():
        layers += more
        if stride in ends:
            stages.append(layers[0] if len(layers) == 1 else nn.Sequential(*layers))
            layers = []
    return stages


def _channels(stage: nn.Module) -> int:
    return [layer for layer in stage.modules() if isinstance(layer, nn.Conv2d)][-1].out_channels
