"""Recognise the format of a weights file by its parameter names."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ssd_lightning.errors import WeightsError
from ssd_lightning.ops.normalization import (
    MEAN_127_STD_128,
    SUBTRACT_MEAN_RGB,
    TORCHVISION_SSD,
    TORCHVISION_SSDLITE,
    Normalization,
)
from ssd_lightning.ops.priors import PUBLISHED, Clip, make_priors

OURS = "ssd_lightning"
CLASSIFIER = "torchvision's classifier"


@dataclass(frozen=True)
class CheckpointFormat:
    """One published network: how its file is recognised, and which overrides build the same network.

    Attributes:
        source: name of the project.
        keys: name prefixes; every file of this network has a parameter with each.
        overrides: overrides on the command line that build the network.
        tensors: number of tensors in its state dict.
        priors: priors that the weights were trained with, by name in `ops.priors.PUBLISHED`.
        normalization: normalisation that the weights were trained with; None if the file stores it.
        clip: how these priors are clipped; see `make_priors`.
    """

    source: str
    keys: tuple[str, ...]
    overrides: str
    tensors: int = 0
    priors: str = ""
    normalization: Normalization | None = None
    clip: Clip = True


_ssd_pytorch = partial(CheckpointFormat, "ssd.pytorch", normalization=SUBTRACT_MEAN_RGB)
_lufficc = partial(CheckpointFormat, "lufficc", normalization=SUBTRACT_MEAN_RGB)
_qfgaohao = partial(CheckpointFormat, "qfgaohao", normalization=MEAN_127_STD_128)
_torchvision = partial(CheckpointFormat, "torchvision", clip="size")
_classifier = partial(CheckpointFormat, CLASSIFIER, overrides="backbone.weights=FILE")

# The first match is used, so specific formats come before general ones.
ORIGINS = (
    CheckpointFormat(OURS, ("extractor.backbone.",), "the network that its run's config.yaml describes"),
    _ssd_pytorch(("vgg.0.", "loc.6."), "model=amdegroot_ssd512", 79, "ssd512_voc"),
    _ssd_pytorch(("vgg.0.", "loc.0."), "model=amdegroot_ssd300", 71, "ssd300_voc"),
    _lufficc(("box_head.", "backbone.vgg.0.", "backbone.extras.9."), "model=lufficc_ssd512", 79, "ssd512_voc"),
    _lufficc(("box_head.", "backbone.vgg.0."), "model=lufficc_ssd300", 71, "ssd300_voc"),
    _lufficc(("box_head.", "backbone._blocks.0."), "model=lufficc_efficientnet_b3", 602, "ssd300_voc"),
    _lufficc(("box_head.", "backbone.features.1.conv.0.0."), "model=lufficc_mobilenet_v2", 478, "mobilenet_ssd320"),
    _lufficc(("box_head.", "backbone.features.1.conv.4."), "model=lufficc_mobilenet_v3", 490, "mobilenet_ssd320"),
    _qfgaohao(("source_layer_add_ons.",), "model=qfgaohao_vgg16", 75, "ssd300_voc", normalization=SUBTRACT_MEAN_RGB),
    _qfgaohao(
        ("classification_headers.", "base_net.3.squeeze."), "model=qfgaohao_squeezenet_lite", 124, "squeezenet_ssd300"
    ),
    _qfgaohao(
        ("classification_headers.", "base_net.1.conv."), "model=qfgaohao_mobilenet_v2_lite", 478, "mobilenet_ssd300"
    ),
    _qfgaohao(
        ("classification_headers.0.2.", "base_net.1.3."), "model=qfgaohao_mobilenet_v1_lite", 230, "mobilenet_ssd300"
    ),
    _qfgaohao(("classification_headers.0.", "base_net.1.3."), "model=qfgaohao_mobilenet_v1", 202, "mobilenet_ssd300"),
    _torchvision(
        ("head.classification_head.", "backbone.scale_weight"),
        "model=torchvision_ssd300",
        71,
        "ssd300_coco",
        TORCHVISION_SSD,
    ),
    _torchvision(
        ("head.classification_head.", "backbone.features.0.13."),
        "model=torchvision_ssdlite320",
        476,
        "ssdlite320",
        TORCHVISION_SSDLITE,
    ),
    _classifier(("features.0.", "classifier.")),
    _classifier(("layer1.0.conv1.", "fc.")),
    _classifier(("0.weight", "2.weight", "33.weight")),  # vgg16_reducedfc.pth
)


def distance_of_priors(origin: CheckpointFormat, priors_cxcywh: Tensor) -> float:
    """Compute the largest difference between priors `[K, 4]` and those of another project's network.

    Infinity if the numbers of priors differ.
    """
    side, levels = PUBLISHED[origin.priors]
    theirs = make_priors(levels, side, clip=origin.clip)
    if theirs.shape != priors_cxcywh.shape:
        return float("inf")
    return float((theirs - priors_cxcywh.cpu()).abs().max())


def recognise(state_dict: Mapping[str, Tensor], file: str) -> CheckpointFormat:
    """Find the format of a state dict by its parameter names.

    Raises:
        WeightsError: the format is unknown.
    """
    for origin in ORIGINS:
        if all(any(name.startswith(key) for name in state_dict) for key in origin.keys):
            return origin
    first = "; ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in list(state_dict.items())[:3])
    one_a_source = {origin.source: origin for origin in reversed(ORIGINS)}
    known = "; ".join(f"{origin.source} ({', '.join(origin.keys)})" for origin in reversed(one_a_source.values()))
    raise WeightsError(f"{file}: unknown checkpoint format. The file begins with {first}. Known formats are {known}")
