"""Read weights files and checkpoints without running code from them."""

import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ssd_lightning.errors import WeightsError
from ssd_lightning.models.config import from_config
from ssd_lightning.ops.normalization import Normalization
from ssd_lightning.ops.priors import PriorLevel

NET_PREFIX = "net."
"""Prefix of the network in the `state_dict` of a training checkpoint."""
DETECTOR_KEY = "detector"
"""Entry of a checkpoint with the description of the detector; metadata of a safetensors file, as JSON."""


def require_file(path: Path, *, setting: str = "") -> Path:
    """Return the path if there is such a file.

    Args:
        path: the file.
        setting: prefix of the path in the error message.

    Raises:
        WeightsError: there is none; the message names the path.
    """
    if not path.is_file():
        raise WeightsError(f"{setting}{path}: there is no such file")
    return path


def read_checkpoint(path: Path, *, setting: str = "", mapped: bool = False) -> dict[str, Any]:
    """Read a file of tensors and plain containers, in torch's format or safetensors.

    Args:
        path: the file; the suffix `.safetensors` selects that format.
        setting: prefix of the path in error messages.
        mapped: map the tensors of torch's format into memory, which reads their values only when they are used.

    Raises:
        WeightsError: the file is missing or damaged, or reading it would run code.
    """
    require_file(path, setting=setting)
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        with path.open("rb") as file:
            start = file.read(16)
        if not start:
            raise WeightsError(f"{setting}{path} is empty")
        if not start.startswith((b"PK", b"\x80")):  # a zip archive, or torch's old format
            raise WeightsError(f"{setting}{path} is not a torch weights file: it begins with {start!r}")
        if zipfile.is_zipfile(path):
            _refuse_compressed(path, setting)
        with warnings.catch_warnings():  # weights_only=True refuses such pickles
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            try:
                checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
            except RuntimeError:  # some network file systems cannot map files
                if not mapped:
                    raise
                checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{setting}{path} holds more than plain tensors and containers. It is not read, because loading would run "
            "code from the file. Save only the tensors with the program that wrote it: "
            "torch.save(network.state_dict(), NEW_FILE)"
        ) from error
    except WeightsError:
        raise
    except Exception as error:  # damaged files raise nearly any type, often without a message
        reason = first_line(error).partition(". ")[0]
        raise WeightsError(f"{setting}{path} is damaged or not a checkpoint: {reason[:200]}") from error
    if not isinstance(checkpoint, dict):
        raise WeightsError(f"{setting}{path} holds a {type(checkpoint).__name__}, not a checkpoint")
    return checkpoint


def _read_safetensors(path: Path) -> dict[str, Any]:
    """Return `state_dict`, and `detector` if the file has the description of one."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    described = {DETECTOR_KEY: json.loads(metadata[DETECTOR_KEY])} if DETECTOR_KEY in metadata else {}
    return {**described, "state_dict": weights}


def _refuse_compressed(path: Path, setting: str) -> None:
    """Raise an error for a compressed archive. Torch never writes one, and a small file could fill the memory."""
    with zipfile.ZipFile(path) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise WeightsError(f"{setting}{path} is not a torch weights file: its entries are compressed")


def read_tensors(path: Path, *, setting: str = "") -> dict[str, Tensor]:
    """Read a state dict; see `tensors_in`.

    Raises:
        WeightsError: see `read_checkpoint`; or the file has no tensors.
    """
    return tensors_in(read_checkpoint(path, setting=setting), f"{setting}{path}")


def tensors_in(checkpoint: dict[str, Any], file: str) -> dict[str, Tensor]:
    """Return the state dict of a checkpoint, also if it is under a common key such as `state_dict` or `model`.

    Raises:
        WeightsError: the checkpoint has no tensors; the message begins with `file`.
    """
    for key in ("state_dict", "model", "model_state_dict", "model_ema", "weights", "net"):
        if isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
            break
    tensors = {str(name): value for name, value in checkpoint.items() if isinstance(value, Tensor)}
    if not tensors:
        shown = ", ".join(list(map(str, checkpoint))[:5]) or "nothing"
        raise WeightsError(f"{file} holds no weights; it holds {shown}")
    # DataParallel adds this prefix to all names.
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    for name in [*tensors]:
        if name.endswith("running_mean"):  # files of torch 0.4.0 and earlier do not count the batches
            tensors.setdefault(name.removesuffix("running_mean") + "num_batches_tracked", torch.tensor(0))
    return tensors


def stored_normalization(checkpoint: dict[str, Any]) -> Normalization | None:
    """Return the normalisation of a checkpoint of this package; None if the checkpoint does not store it."""
    found = from_config(_described_network(checkpoint).get("normalization"))
    return found if isinstance(found, Normalization) else None


def stored_levels(checkpoint: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """Return the prior levels of a checkpoint of this package, in the form of `models.config.to_config`.

    Raises:
        WeightsError: the checkpoint, which was read from `path`, has no prior levels.
    """
    levels = _described_network(checkpoint).get("levels")
    if not isinstance(levels, list) or not all(isinstance(from_config(level), PriorLevel) for level in levels):
        raise WeightsError(f"{path} does not contain its prior levels")
    return levels


def _described_network(checkpoint: dict[str, Any]) -> dict[str, Any]:
    detector = checkpoint.get(DETECTOR_KEY)
    network = detector.get("network") if isinstance(detector, dict) else None
    return network if isinstance(network, dict) else {}


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
