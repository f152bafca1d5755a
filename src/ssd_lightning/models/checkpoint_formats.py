"""Recognise the format of a weights file by its parameter names."""

from collections.abc import Mapping
from dataclasses import dataclass

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
        normalization: normalisation that the weights were trained with; None if the file stores it.
        priors: priors that the weights were trained with, by name in `ops.priors.PUBLISHED`.
        clip: how these priors are clipped; see `make_priors`.
    """

    source: str
    keys: tuple[str, ...]
    overrides: str
    tensors: int = 0
    normalization: Normalization | None = None
    priors: str = ""
    clip: Clip = True


def _lufficc(key: str, overrides: str, tensors: int, priors: str, *more_keys: str) -> CheckpointFormat:
    return CheckpointFormat("lufficc", ("box_head.", key, *more_keys), overrides, tensors, SUBTRACT_MEAN_RGB, priors)


def _qfgaohao(
    key: str, overrides: str, tensors: int, priors: str = "mobilenet_ssd300", head: str = ""
) -> CheckpointFormat:
    return CheckpointFormat(
        "qfgaohao", (f"classification_headers.{head}", key), overrides, tensors, MEAN_127_STD_128, priors
    )


# The first match is used, so specific formats come before general ones.
ORIGINS = (
    CheckpointFormat(OURS, ("extractor.backbone.",), "the network that its run's config.yaml describes"),
    CheckpointFormat(
        "ssd.pytorch", ("vgg.0.", "loc.6."), "model=amdegroot_ssd512", 79, SUBTRACT_MEAN_RGB, "ssd512_voc"
    ),
    CheckpointFormat(
        "ssd.pytorch", ("vgg.0.", "loc.0."), "model=amdegroot_ssd300", 71, SUBTRACT_MEAN_RGB, "ssd300_voc"
    ),
    _lufficc("backbone.vgg.0.", "model=lufficc_ssd512", 79, "ssd512_voc", "backbone.extras.9."),
    _lufficc("backbone.vgg.0.", "model=lufficc_ssd300", 71, "ssd300_voc"),
    _lufficc("backbone._blocks.0.", "model=lufficc_efficientnet_b3", 602, "ssd300_voc"),
    _lufficc("backbone.features.1.conv.0.0.", "model=lufficc_mobilenet_v2", 478, "mobilenet_ssd320"),
    _lufficc("backbone.features.1.conv.4.", "model=lufficc_mobilenet_v3", 490, "mobilenet_ssd320"),
    CheckpointFormat(
        "qfgaohao", ("source_layer_add_ons.",), "model=qfgaohao_vgg16", 75, SUBTRACT_MEAN_RGB, "ssd300_voc"
    ),
    _qfgaohao("base_net.3.squeeze.", "model=qfgaohao_squeezenet_lite", 124, "squeezenet_ssd300"),
    _qfgaohao("base_net.1.conv.", "model=qfgaohao_mobilenet_v2_lite", 478),
    _qfgaohao("base_net.1.3.", "model=qfgaohao_mobilenet_v1_lite", 230, head="0.2."),
    _qfgaohao("base_net.1.3.", "model=qfgaohao_mobilenet_v1", 202, head="0."),
    CheckpointFormat(
        "torchvision",
        ("head.classification_head.", "backbone.scale_weight"),
        "model=torchvision_ssd300",
        71,
        TORCHVISION_SSD,
        "ssd300_coco",
        "size",
    ),
    CheckpointFormat(
        "torchvision",
        ("head.classification_head.", "backbone.features.0.13."),
        "model=torchvision_ssdlite320",
        476,
        TORCHVISION_SSDLITE,
        "ssdlite320",
        "size",
    ),
    CheckpointFormat(CLASSIFIER, ("features.0.", "classifier."), "backbone.weights=FILE"),
    CheckpointFormat(CLASSIFIER, ("layer1.0.conv1.", "fc."), "backbone.weights=FILE"),
    CheckpointFormat(CLASSIFIER, ("0.weight", "2.weight", "33.weight"), "backbone.weights=FILE"),  # vgg16_reducedfc.pth
)


def distance_of_priors(origin: CheckpointFormat, priors_cxcywh: Tensor) -> float:
    """Compute the largest difference between priors `[K, 4]` and those that the weights were trained with.

    0 if the format does not specify priors, infinity if the numbers of priors differ.
    """
    if not origin.priors:
        return 0.0
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
