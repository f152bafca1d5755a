"""MobileNetV1 (Howard et al., arXiv 1704.04861), which torchvision does not have."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from ssd_lightning.models.backbones.pretrained import require_same_names
from ssd_lightning.models.backbones.strides import SequenceBackbone, check_strides
from ssd_lightning.models.config import ConfigMixin
from ssd_lightning.models.files import read_tensors
from ssd_lightning.models.layers import conv_block, init_he
from ssd_lightning.ops.normalization import IMAGENET, MEAN_127_STD_128, Normalization

# (output channels, stride) of the thirteen separable convolutions (table 1 of the paper)
SEPARABLE = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))

ENDS = {4: 4, 8: 6, 16: 12, 32: 14}
"""Stride -> number of layers up to the last layer of that stride."""


class MobileNetV1(ConfigMixin, SequenceBackbone):
    """MobileNetV1. Returns the last map of each stride.

    Args:
        strides: strides of the feature maps, from 4, 8, 16 and 32; must include 32.
        weights: a file of qfgaohao/pytorch-ssd's classification network (`model.0.0.weight`, ...), trained on images
            normalised with mean 127 and standard deviation 128.

    Raises:
        ConfigurationError: the strides are invalid.
        WeightsError: the file cannot be read, or has weights of another network.
    """

    def __init__(self, *, strides: Sequence[int] = (16, 32), weights: str | None = None) -> None:
        super().__init__()
        self.ends = tuple(ENDS[s] for s in check_strides(strides, possible=(*ENDS,), network="MobileNetV1"))
        blocks: list[nn.Module] = [conv_block(3, 32, stride=2, norm_layer=nn.BatchNorm2d)]
        channels = 32
        for out_channels, stride in SEPARABLE:
            blocks.append(_separable(channels, out_channels, stride))
            channels = out_channels
        self.features = nn.Sequential(*blocks)
        self.out_channels = tuple(SEPARABLE[end - 2][0] for end in self.ends)  # layer 0 is not in SEPARABLE
        init_he(self)
        self.normalization: Normalization = IMAGENET if weights is None else self._load(weights)

    def _load(self, weights: str) -> Normalization:
        given = read_tensors(Path(weights), setting="backbone.weights=")
        given = {name: tensor for name, tensor in given.items() if not name.startswith("fc.")}
        wanted = {_classifier_name(name): tensor for name, tensor in self.features.state_dict().items()}
        require_same_names(given, wanted, weights, "qfgaohao's MobileNetV1")
        self.features.load_state_dict({name: given[_classifier_name(name)] for name in self.features.state_dict()})
        return MEAN_127_STD_128


def _separable(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        conv_block(in_channels, in_channels, stride=stride, groups=in_channels, norm_layer=nn.BatchNorm2d),
        conv_block(in_channels, out_channels, kernel_size=1, norm_layer=nn.BatchNorm2d),
    )


def _classifier_name(ours: str) -> str:
    """Convert a name to that of a block with one flat list of six layers: 3.1.0.weight becomes model.3.3.weight."""
    block, *inner, kind = ours.split(".")
    index = int(inner[0]) if len(inner) == 1 else int(inner[0]) * 3 + int(inner[1])
    return f"model.{block}.{index}.{kind}"
