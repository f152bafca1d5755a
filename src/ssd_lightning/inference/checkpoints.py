"""Checkpoints of detectors: where they are, what they contain, and how a network is built from one."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssd_lightning.data.resize import ResizeMode, Stretch, as_resize_mode, plain_mode
from ssd_lightning.errors import UserError, WeightsError
from ssd_lightning.models.config import from_config, to_config
from ssd_lightning.models.files import NET_PREFIX, first_line, read_checkpoint, require_file
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.models.ssd import SSD
from ssd_lightning.ops.normalization import Normalization

HUB_WEIGHTS = "model.safetensors"
"""The weights in a folder that `Detector.push_to_hub` wrote."""
MOST_PRIORS = 10_000_000
"""Limit for a network read from a file. Published networks have 25 thousand priors."""


def detector_spec(
    net: SSD,
    class_names: Sequence[str],
    postprocess: PostProcess,
    resize: ResizeMode = Stretch(),  # noqa: B008  it cannot be changed
) -> dict[str, Any]:
    """Describe a detector without its weights, in plain containers."""
    return {
        "network": to_config(net),
        "class_names": list(class_names),
        "postprocess": postprocess.settings(),
        "resize": plain_mode(resize),
    }


def find_checkpoint(path: Path) -> Path:
    """Resolve a checkpoint file, or a folder: the best checkpoint of a run, else the last one, else a file in it.

    Raises:
        WeightsError: there is no checkpoint.
    """
    if not path.is_dir():
        return require_file(path)
    names = ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "*.ckpt", HUB_WEIGHTS)
    found = next((file for name in names for file in sorted(path.glob(name)) if file.is_file()), None)
    if found is None:
        raise no_checkpoint(path, names)
    return found


def no_checkpoint(folder: Path, names: Sequence[str]) -> WeightsError:
    """Describe that a folder has none of the files that are searched."""
    return WeightsError(f"there is no checkpoint in {folder}: no {', '.join(names[:-1])} or {names[-1]}")


def read_detector(path: Path) -> dict[str, Any]:
    """Read the arguments of `Detector` from a training checkpoint, from what `Detector.save` or `export` wrote.

    Raises:
        WeightsError: the file is missing, is not a checkpoint of this package, needs unpickling, or its weights do not
            fit the network that it describes.
    """
    checkpoint = read_checkpoint(path)
    spec, weights = checkpoint.get("detector"), checkpoint.get("state_dict")
    if not isinstance(spec, dict) or not {"network", "class_names", "postprocess"} <= spec.keys():
        keys = ", ".join(list(map(str, checkpoint))[:5])
        raise WeightsError(f"{path} does not describe a detector: expected the key 'detector', found {keys}, ...")
    net = _build_network(spec["network"], weights if isinstance(weights, dict) else {}, path)
    class_names = spec["class_names"]
    if not isinstance(class_names, list) or not all(isinstance(name, str) for name in class_names):
        raise WeightsError(f"{path} needs a list of class names, found {class_names!r:.100}")
    if len(class_names) != net.num_classes:
        raise WeightsError(f"{path} names {len(class_names)} classes for a network of {net.num_classes} classes")
    with _errors_naming(path):
        postprocess = PostProcess.from_settings(spec["postprocess"])
        resize = as_resize_mode(spec.get("resize"))  # missing in older files, which stretch images
    return {
        "net": net,
        "class_names": class_names,
        "postprocess": postprocess,
        "resize": resize,
        "data_settings": checkpoint.get("data"),
    }


def _build_network(spec: Any, weights: Mapping[str, Any], path: Path) -> SSD:
    """Build the network that a file describes, and load its weights.

    It is built on the meta device first: a description of a few bytes may ask for terabytes.
    """
    with _errors_naming(path):
        with torch.device("meta"):
            planned = from_config(spec)
        if not isinstance(planned, SSD):
            raise WeightsError(f"it describes a {type(planned).__name__}, not a network")
        if not isinstance(planned.normalization, Normalization):
            raise WeightsError(f"its normalization is {planned.normalization!r:.100}")
        if len(planned.priors_cxcywh) > MOST_PRIORS:
            raise WeightsError(f"its network has {len(planned.priors_cxcywh):,} priors, more than {MOST_PRIORS:,}")
    fitting = fitting_weights(planned, weights, path)
    with _errors_naming(path):
        net = from_config(spec)
        if not net.priors_cxcywh.isfinite().all():
            raise WeightsError("its priors are not finite")
    net.load_state_dict(fitting)
    return net


@contextmanager
def _errors_naming(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise WeightsError(f"{path}: {error}") from error
    except Exception as error:  # wrong sizes and types raise nearly any error
        raise WeightsError(f"{path} describes a network that cannot be built: {first_line(error)[:200]}") from error


def fitting_weights(net: SSD, state_dict: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the network's weights from a checkpoint, without the key prefix.

    Raises:
        WeightsError: names or shapes differ; the message names the first few.
    """
    tensors = {str(name): value for name, value in state_dict.items() if isinstance(value, Tensor)}
    given = {name.removeprefix(NET_PREFIX): value for name, value in tensors.items() if name.startswith(NET_PREFIX)}
    given = given or tensors  # safetensors files have no prefix
    wanted = net.state_dict()
    problems = [f"{name} is missing" for name in wanted.keys() - given.keys()]
    problems += [f"{name} is unknown" for name in given.keys() - wanted.keys()]
    problems += [
        f"{name} has shape {tuple(given[name].shape)}, the network needs {tuple(wanted[name].shape)}"
        for name in wanted.keys() & given.keys()
        if given[name].shape != wanted[name].shape
    ]
    # A number stored with strides of 0 can have any shape: a tiny file could ask for a network of terabytes.
    problems += [
        f"{name} has fewer numbers than its shape {tuple(value.shape)}"
        for name, value in given.items()
        if value.layout != torch.strided or value.untyped_storage().nbytes() < value.nbytes
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:3])
        raise WeightsError(f"{path} does not fit its network in {len(problems)} of {len(wanted)} weights: {shown}")
    return given
