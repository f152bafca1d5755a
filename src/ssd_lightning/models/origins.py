"""Whose weights a file holds, told by the names in it."""

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

OURS = "ssd_lightning"
CLASSIFIER = "torchvision's classifier"


@dataclass(frozen=True)
class Origin:
    """One published network: how its file is recognised, and which words of the command line make the same network.

    Attributes:
        source: the project.
        keys: parameters that only this network's file has.
        words: of the command line.
        normalization: that the weights were trained with; None where the file says so itself.
    """

    source: str
    keys: tuple[str, ...]
    words: str
    normalization: Normalization | None = None


# The first that fits is taken, so the special ones come before the general.
ORIGINS = (
    Origin(OURS, ("extractor.backbone.",), "the network that its run's config.yaml describes"),
    Origin("ssd.pytorch", ("vgg.0.", "loc.6."), "model=amdegroot_ssd512", SUBTRACT_MEAN_RGB),
    Origin("ssd.pytorch", ("vgg.0.", "loc.0."), "model=amdegroot_ssd300", SUBTRACT_MEAN_RGB),
    Origin(
        "lufficc", ("box_head.", "backbone.vgg.0.", "backbone.extras.9."), "model=lufficc_ssd512", SUBTRACT_MEAN_RGB
    ),
    Origin("lufficc", ("box_head.", "backbone.vgg.0."), "model=lufficc_ssd300", SUBTRACT_MEAN_RGB),
    Origin("lufficc", ("box_head.", "backbone._blocks.0."), "model=lufficc_efficientnet_b3", SUBTRACT_MEAN_RGB),
    Origin("lufficc", ("box_head.", "backbone.features.1.conv.0.0."), "model=lufficc_mobilenet_v2", SUBTRACT_MEAN_RGB),
    Origin("lufficc", ("box_head.", "backbone.features.1.conv.4."), "model=lufficc_mobilenet_v3", SUBTRACT_MEAN_RGB),
    Origin("qfgaohao", ("source_layer_add_ons.",), "model=qfgaohao_vgg16", SUBTRACT_MEAN_RGB),
    Origin(
        "qfgaohao",
        ("classification_headers.", "base_net.3.squeeze."),
        "model=qfgaohao_squeezenet_lite",
        MEAN_127_STD_128,
    ),
    Origin(
        "qfgaohao",
        ("classification_headers.", "base_net.1.conv."),
        "model=qfgaohao_mobilenet_v2_lite",
        MEAN_127_STD_128,
    ),
    Origin(
        "qfgaohao",
        ("classification_headers.0.2.", "base_net.1.3."),
        "model=qfgaohao_mobilenet_v1_lite",
        MEAN_127_STD_128,
    ),
    Origin("qfgaohao", ("classification_headers.0.", "base_net.1.3."), "model=qfgaohao_mobilenet_v1", MEAN_127_STD_128),
    Origin(
        "torchvision",
        ("head.classification_head.", "backbone.scale_weight"),
        "model=torchvision_ssd300",
        TORCHVISION_SSD,
    ),
    Origin(
        "torchvision", ("head.classification_head.", "backbone.features.0.13."), "model=ssdlite320", TORCHVISION_SSDLITE
    ),
    Origin(CLASSIFIER, ("features.0.", "classifier."), "backbone.weights=FILE"),
    Origin(CLASSIFIER, ("layer1.0.conv1.", "fc."), "backbone.weights=FILE"),
)


def recognise(state_dict: Mapping[str, Tensor], file: str) -> Origin:
    """Tell whose network a state dict belongs to, by its names.

    Raises:
        WeightsError: nobody's that is known.
    """
    for origin in ORIGINS:
        if all(any(name.startswith(key) for name in state_dict) for key in origin.keys):
            return origin
    first = "; ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in list(state_dict.items())[:3])
    known = "; ".join(f"{origin.source} ({', '.join(origin.keys)})" for origin in _one_a_source())
    raise WeightsError(f"{file}: whose weights these are is not known. It begins with {first}. Known are {known}")


def _one_a_source() -> list[Origin]:
    return list({origin.source: origin for origin in reversed(ORIGINS)}.values())[::-1]
