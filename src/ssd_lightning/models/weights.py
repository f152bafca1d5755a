"""Other people's weights in our networks, and ours in theirs.

`start_from` is what `init_from=FILE` does; `export_weights` is the way back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ssd_lightning.errors import ConfigurationError, WeightsError
from ssd_lightning.models.backbones import VGG16
from ssd_lightning.models.files import read_checkpoint, tensors_in
from ssd_lightning.models.foreign_names import NETWORKS, rules_for, translate
from ssd_lightning.models.head import last_convolution
from ssd_lightning.models.ssd import SSD
from ssd_lightning.ops.normalization import (
    MEAN_127_STD_128,
    SUBTRACT_MEAN_RGB,
    TORCHVISION_SSD,
    TORCHVISION_SSDLITE,
    Normalization,
)
from ssd_lightning.specs import build

OURS = "ssd_lightning"
CLASSIFIER = "torchvision's classifier"
NET_PREFIX = "net."
"""Where a training checkpoint's `state_dict` holds the network."""


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
    Origin(OURS, ("extractor.backbone.",), "the words that it was trained with"),
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


@dataclass
class Loaded:
    """What `start_from` did.

    Attributes:
        origin: where the weights come from.
        kept: names of our parameters that were filled.
        anew: names of our parameters that keep their fresh start, with the reason.
        normalization: that the network now prepares pictures with.
    """

    origin: Origin
    kept: list[str]
    normalization: Normalization
    anew: dict[str, str] = field(default_factory=dict)


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


def start_from(
    net: SSD, path: Path | str, *, class_names: tuple[str, ...] | None = None, keep_normalization: bool = False
) -> Loaded:
    """Fill a network with the weights of a file, whoever wrote it.

    All that fits is taken. What predicts classes starts anew where the file has another number of classes, or names
    other classes than `class_names`; anything else that does not fit is an error.

    Args:
        net: to be filled, in place. It takes on the weights' normalisation too.
        path: a file of ours, ssd.pytorch, lufficc/SSD, qfgaohao/pytorch-ssd or torchvision, in torch's format (read
            without running code) or safetensors.
        class_names: of the network's classes, to be compared with those of a file of ours.
        keep_normalization: the network's own normalisation stays.

    Raises:
        WeightsError: the file cannot be read safely, its origin is not known, or it belongs to another network.
    """
    path = Path(path)
    setting = "init_from="
    checkpoint = read_checkpoint(path, setting=setting)
    given = tensors_in(checkpoint, f"{setting}{path}")
    given = {name.removeprefix(NET_PREFIX): tensor for name, tensor in given.items() if _is_of_network(name)}
    origin = recognise(given, f"{setting}{path}")
    if origin.source == CLASSIFIER:
        return _start_backbone_from(net, path, origin, keep_normalization)

    ours = net.state_dict()
    names = {name: name for name in ours} if origin.source == OURS else foreign_names(net, origin.source)
    spec = checkpoint.get("detector") if origin.source == OURS else None
    other_classes = bool(spec and class_names and tuple(spec.get("class_names", ())) != class_names)
    class_layers = _class_layers(net)
    loaded = Loaded(origin, [], net.normalization)
    problems: list[str] = []
    for name, theirs in names.items():
        if theirs not in given:
            problems.append(f"{theirs} is missing")
        elif (
            name in class_layers
            and given[theirs].shape != ours[name].shape
            and _same_but_classes(given[theirs], ours[name])
        ):
            there, here = (len(t) // class_layers[name] - 1 for t in (given[theirs], ours[name]))
            loaded.anew[name] = f"{there} classes there, {here} here"
        elif name in class_layers and other_classes:
            loaded.anew[name] = "other classes"
        elif given[theirs].numel() != ours[name].numel() or _trimmed(given[theirs]) != _trimmed(ours[name]):
            problems.append(f"{theirs} has shape {tuple(given[theirs].shape)}, needed is {tuple(ours[name].shape)}")
        else:
            loaded.kept.append(name)
    problems += [f"{name} is unknown" for name in given.keys() - set(names.values())]
    if problems:
        shown = "; ".join(problems[:3])
        raise WeightsError(
            f"{setting}{path}: these weights are {origin.source}'s and do not fit this network in {len(problems)} of "
            f"{len(names)} places: {shown}. The network that they are for: {origin.words}"
        )
    net.load_state_dict({name: given[names[name]].view_as(ours[name]) for name in loaded.kept}, strict=False)
    if not keep_normalization:
        net.use_normalization(_normalization_of(origin, spec) or net.normalization)
    loaded.normalization = net.normalization
    return loaded


def foreign_names(net: SSD, source: str) -> dict[str, str]:
    """Translate the names of a network's parameters and buffers into another project's.

    Args:
        net: the network.
        source: `ssd.pytorch`, `lufficc`, `qfgaohao` or `torchvision`.

    Raises:
        ConfigurationError: there is no such project.
        WeightsError: the project has no such network.
    """
    if source not in NETWORKS:
        raise ConfigurationError(f"no names are known for '{source}'; they are for {', '.join(NETWORKS)}")
    state = net.state_dict()
    rules = rules_for(source, net.extractor.backbone, state.keys())
    try:
        return {name: translate(name, rules) for name in state}
    except KeyError as error:
        raise WeightsError(f"{source} has no network with a part such as {error.args[0]}") from error


def export_weights(net: SSD, source: str) -> dict[str, Tensor]:
    """Give a network's weights under another project's names and in its shapes.

    Args:
        net: the network. The other project has to prepare pictures as `net.normalization` says.
        source: see `foreign_names`.

    Raises:
        ConfigurationError: there is no such project.
        WeightsError: the project has no such network.
    """
    state = net.state_dict()
    names = foreign_names(net, source)
    # lufficc's squeeze and excitation has fully connected layers where ours has 1 x 1 convolutions.
    return {
        theirs: state[ours].flatten(1) if ".fc." in theirs and state[ours].dim() == 4 else state[ours]
        for ours, theirs in names.items()
    }


def _start_backbone_from(net: SSD, path: Path, origin: Origin, keep_normalization: bool) -> Loaded:
    backbone = net.extractor.backbone
    if not isinstance(backbone, VGG16):
        raise WeightsError(
            f"init_from={path} holds a classifier without a detector; give it as backbone.weights={path}"
        )
    state = net.state_dict()
    pretrained = backbone.with_weights(str(path))
    backbone.load_state_dict(pretrained.state_dict())
    prefix = "extractor.backbone."
    kept = [name for name in state if name.startswith(prefix)]
    anew = {name: "not in a classifier" for name in state if not name.startswith(prefix)}
    if not keep_normalization:
        net.use_normalization(pretrained.normalization)
    return Loaded(origin, kept, net.normalization, anew)


def _is_of_network(name: str) -> bool:
    # A training checkpoint also holds the metrics' states.
    return not name.startswith(("metrics.", "loss."))


def _class_layers(net: SSD) -> dict[str, int]:
    """Name the parameters whose first axis is boxes times classes, with the number of boxes of a cell."""
    return {
        f"head.cls.{level}{suffix}.{kind}": boxes.boxes_per_cell
        for level, (predictor, boxes) in enumerate(zip(net.head.cls, net.levels, strict=True))
        for suffix in [_path_of(predictor, last_convolution(predictor))]
        for kind in ("weight", "bias")
    }


def _path_of(parent: Any, layer: Any) -> str:
    return next(f".{name}" if name else "" for name, module in parent.named_modules() if module is layer)


def _same_but_classes(theirs: Tensor, ours: Tensor) -> bool:
    return theirs.shape[1:] == ours.shape[1:]


def _trimmed(tensor: Tensor) -> tuple[int, ...]:
    """Give the shape without the ones at its end: a 1 x 1 convolution is a fully connected layer."""
    shape = list(tensor.shape)
    while shape and shape[-1] == 1:
        shape.pop()
    return tuple(shape)


def _normalization_of(origin: Origin, spec: Any) -> Normalization | None:
    if origin.source != OURS:
        return origin.normalization
    described = spec["network"].get("normalization") if isinstance(spec, dict) else None
    found = build(described) if described else None
    return found if isinstance(found, Normalization) else None


def _one_a_source() -> list[Origin]:
    return list({origin.source: origin for origin in reversed(ORIGINS)}.values())[::-1]
