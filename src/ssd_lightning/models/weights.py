"""Load weights of other projects into our networks, and export ours to their formats.

`load_pretrained` implements `init_from=FILE`; `export_weights` is the inverse.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ssd_lightning.errors import ConfigurationError, WeightsError
from ssd_lightning.models.backbones import VGG16
from ssd_lightning.models.checkpoint_formats import CLASSIFIER, OURS, CheckpointFormat, distance_of_priors, recognise
from ssd_lightning.models.config import from_config, to_config
from ssd_lightning.models.files import NET_PREFIX, read_checkpoint, stored_levels, stored_normalization, tensors_in
from ssd_lightning.models.head import last_convolution
from ssd_lightning.models.key_mapping import NETWORKS, rules_for, translate
from ssd_lightning.models.ssd import SSD

SETTING = "init_from="
"""Setting that the error messages name."""


@dataclass
class Loaded:
    """Result of `load_pretrained`."""

    origin: CheckpointFormat
    kept: list[str]
    """Names of our parameters that were loaded."""
    reinitialised: dict[str, str]
    """Names of our parameters that keep their random initialisation, with the reason."""
    other_priors: str | None = None
    """A sentence, if the weights were trained with priors that differ from those of the network."""


def load_pretrained(
    net: SSD, path: Path | str, *, class_names: tuple[str, ...] | None = None, keep_normalization: bool = False
) -> Loaded:
    """Load the weights of a file of any supported format into a network.

    Class predictors are reinitialised if the file's number of classes differs, or if its class names differ from
    `class_names`. Any other mismatch is an error.

    Args:
        net: network to load into, in place. Its normalisation becomes that of the weights.
        path: a file of this package, ssd.pytorch, lufficc/SSD, qfgaohao/pytorch-ssd or torchvision, in torch's format
            (read without running code) or safetensors.
        class_names: the network's class names, compared with those of a checkpoint of this package.
        keep_normalization: keep the network's own normalisation.

    Raises:
        WeightsError: the file cannot be read safely, its format is unknown, or it belongs to another network.
    """
    path = Path(path)
    checkpoint, given, origin = _read(path)
    spoilt = [name for name, tensor in given.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if spoilt and not spoilt[0].startswith("classifier."):  # torchvision's IMAGENET1K_FEATURES has no fc6 and fc7
        raise WeightsError(f"{SETTING}{path}: {spoilt[0]} has values that are not finite")
    if origin.source == CLASSIFIER:
        return _start_backbone_from(net, path, origin, keep_normalization)

    spec = checkpoint.get("detector") if origin.source == OURS else None
    other_classes = bool(spec and class_names and tuple(spec.get("class_names", ())) != class_names)
    ours = net.state_dict()
    try:
        names = {name: name for name in ours} if origin.source == OURS else key_mapping(net, origin.source)
    except WeightsError as error:
        raise WeightsError(f"{SETTING}{path}: these weights are made for {origin.overrides}; {error}") from error
    theirs = {name: given[other] for name, other in names.items() if other in given}
    reinitialised = _other_classes(net, theirs, other_classes)
    problems = [f"{names[name]} is missing" for name in ours if name not in theirs]
    for name, tensor in theirs.items():
        start = 1 if name in reinitialised else 0  # the number of classes of reinitialised layers may differ
        if _trimmed(tensor)[start:] != _trimmed(ours[name])[start:]:
            problems.append(f"{names[name]} has shape {tuple(tensor.shape)}, expected {tuple(ours[name].shape)}")
    problems += [f"{name} is unknown" for name in given.keys() - set(names.values())]
    if problems:
        raise WeightsError(
            f"{SETTING}{path}: these weights are {origin.source}'s, made for {origin.overrides}; in this network "
            f"{len(problems)} names or shapes differ: {'; '.join(problems[:3])}"
        )
    kept = [name for name in names if name not in reinitialised]
    net.load_state_dict({name: theirs[name].view_as(ours[name]) for name in kept}, strict=False)
    if not keep_normalization:
        found = stored_normalization(checkpoint) if origin.source == OURS else origin.normalization
        net.use_normalization(found or net.normalization)
    return Loaded(origin, kept, reinitialised, _other_priors(net, origin, spec))


def levels_for_weights(path: Path, default: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Return the prior levels that match the box heads in a weights file.

    Args:
        path: a checkpoint of this package, or another project's weights.
        default: levels for a detector of another project, whose file does not store its levels.

    Returns:
        The levels in the form of `models.config.to_config`; None for weights of only a backbone.

    Raises:
        WeightsError: the file cannot be read, or its format is unknown.
    """
    checkpoint, _, origin = _read(path)
    if origin.source == CLASSIFIER:
        return None
    return stored_levels(checkpoint, path) if origin.source == OURS and "detector" in checkpoint else default


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], CheckpointFormat]:
    """Read a file of `init_from`: the raw checkpoint, the weights of its network and their format."""
    checkpoint = read_checkpoint(path, setting=SETTING)
    given = tensors_in(checkpoint, f"{SETTING}{path}")
    # A training checkpoint also stores the state of the metrics.
    of_network = {name: tensor for name, tensor in given.items() if not name.startswith(("metrics.", "loss."))}
    given = {name.removeprefix(NET_PREFIX): tensor for name, tensor in of_network.items()}
    return checkpoint, given, recognise(given, f"{SETTING}{path}")


def _other_priors(net: SSD, origin: CheckpointFormat, spec: Any) -> str | None:
    if origin.source == OURS:
        there, here = (spec or {}).get("network", {}), {"clip_priors": False, **to_config(net)}
        keys = [key for key in ("levels", "clip_priors", "image_size") if key in there]
        # Compare built objects, so that settings missing in older files get their defaults.
        differs = [key for key in keys if from_config(there[key]) != from_config(here[key])]
        return f"they were trained with other priors ({', '.join(differs)} differ)" if differs else None
    distance = distance_of_priors(origin, net.priors_cxcywh)
    if distance <= 1e-5:
        return None
    return f"they were trained with the priors of {origin.overrides}, which differ by up to {distance:.3f}"


def _other_classes(net: SSD, theirs: Mapping[str, Tensor], other_classes: bool) -> dict[str, str]:
    """Return the parameters of class predictors that cannot be loaded, with the reason."""
    reinitialised = {}
    # A shared head has one predictor; its levels all have the same number of boxes.
    for level, (predictor, boxes) in enumerate(zip(net.head.cls, net.levels, strict=False)):
        inner = next(name for name, layer in predictor.named_modules() if layer is last_convolution(predictor))
        for kind in ("weight", "bias"):
            name = ".".join(filter(None, ("head.cls", str(level), inner, kind)))
            if name not in theirs:
                continue
            there = len(theirs[name]) // boxes.boxes_per_cell - 1
            if there != net.num_classes:
                reinitialised[name] = f"{there} classes in the file, {net.num_classes} in the network"
            elif other_classes:
                reinitialised[name] = "different classes"
    return reinitialised


def key_mapping(net: SSD, source: str) -> dict[str, str]:
    """Map the names of a network's parameters and buffers to those of another project.

    Args:
        net: the network.
        source: `ssd.pytorch`, `lufficc`, `qfgaohao` or `torchvision`.

    Raises:
        ConfigurationError: the project is unknown.
        WeightsError: the project has no such network.
    """
    if source not in NETWORKS:
        raise ConfigurationError(f"unknown project '{source}'; known are {', '.join(NETWORKS)}")
    state = net.state_dict()
    rules = rules_for(source, net.extractor.backbone, state.keys())
    try:
        return {name: translate(name, rules) for name in state}
    except KeyError as error:
        raise WeightsError(f"{source} has no network with the parameter {error.args[0]}") from error


def export_weights(net: SSD, source: str) -> dict[str, Tensor]:
    """Convert a network's weights to the names and shapes of another project; see `key_mapping` for it and the errors.

    The other project must normalise images as `net.normalization` does.
    """
    state = net.state_dict()
    names = key_mapping(net, source)
    # Squeeze and excitation has fully connected layers in lufficc's networks and 1 x 1 convolutions in ours.
    exported = {
        theirs: state[ours].flatten(1) if ".fc." in theirs and state[ours].dim() == 4 else state[ours]
        for ours, theirs in names.items()
    }
    origin = recognise(exported, source)
    if len(exported) != origin.tensors:
        raise WeightsError(
            f"{source} has no such network: the closest, {origin.overrides}, has {origin.tensors} tensors, this "
            f"network has {len(exported)}"
        )
    return exported


def _start_backbone_from(net: SSD, path: Path, origin: CheckpointFormat, keep_normalization: bool) -> Loaded:
    backbone = net.extractor.backbone
    if not isinstance(backbone, VGG16):
        raise WeightsError(f"init_from={path} is a classifier, not a detector; load it with backbone.weights={path}")
    state = net.state_dict()
    pretrained = backbone.with_weights(str(path))
    backbone.load_state_dict(pretrained.state_dict())
    prefix = "extractor.backbone."
    kept = [name for name in state if name.startswith(prefix)]
    reinitialised = {name: "not in a classifier" for name in state if not name.startswith(prefix)}
    if not keep_normalization:
        net.use_normalization(pretrained.normalization)
    return Loaded(origin, kept, reinitialised)


def _trimmed(tensor: Tensor) -> list[int]:
    """Return the shape without trailing ones: a 1 x 1 convolution is equivalent to a fully connected layer."""
    shape = list(tensor.shape)
    while shape and shape[-1] == 1:
        shape.pop()
    return shape
