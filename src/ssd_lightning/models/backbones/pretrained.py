"""Load torchvision's pretrained backbones by name (from its cache or a download) or from a file."""

import socket
from collections.abc import Mapping
from contextlib import nullcontext
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor, nn

from ssd_lightning.errors import WeightsError
from ssd_lightning.models.files import first_line, read_tensors

FETCH_TIMEOUT_S = 30.0


def read_backbone_weights(weights: str, names: type[Enum]) -> dict[str, Tensor]:
    """Read weights by torchvision's name (from its cache or a download) or from a file of the same format.

    `names` is torchvision's weights enum of the network.

    Raises:
        WeightsError: `weights` is not a known name, the file cannot be read safely, or the download fails.
    """
    if weights in names.__members__:
        return _fetch(names[weights].value.url)
    path = Path(weights)
    if path.is_dir():
        raise WeightsError(f"backbone.weights={weights} is a folder; for a run directory use init_from={weights}")
    if not path.is_file():
        raise WeightsError(
            f"backbone.weights={weights}: neither a file nor one of {', '.join(names.__members__)}; "
            "backbone.weights=null starts from random weights"
        )
    return read_tensors(path, setting="backbone.weights=")


def _fetch(url: str) -> dict[str, Tensor]:
    """Read a file from torch's cache. The first process on this machine that needs the file downloads it."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    timeout_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(FETCH_TIMEOUT_S)  # torch.hub has no time-out
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # No lock if the file exists, because the folder may be read-only.
        with nullcontext() if path.is_file() else FileLock(f"{path}.lock"):
            return torch.hub.load_state_dict_from_url(url, check_hash=True, weights_only=True, map_location="cpu")
    except Exception as error:  # no network, a wrong checksum, or a damaged file in the cache
        raise WeightsError(
            f"cannot get the ImageNet weights {url} ({first_line(error)}): put that file at {path}, "
            "or start from random weights with backbone.weights=null"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout_s)


def load_backbone(network: nn.Module, weights: str | None, names: type[Enum]) -> Any:
    """Load pretrained weights, if any, into a network of torchvision, before it is split into feature extractors.

    The classifier is not loaded, so weights with another number of classes also fit. Returns the network.

    Raises:
        WeightsError: the weights are not available, or belong to another network.
    """
    if weights is None:
        return network
    given, wanted = (
        {name: tensor for name, tensor in state.items() if not name.startswith(("classifier.", "fc."))}
        for state in (read_backbone_weights(weights, names), network.state_dict())
    )
    require_same_names(given, wanted, weights, f"torchvision's {type(network).__name__}")
    network.load_state_dict(given, strict=False)
    return network


def require_same_names(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], weights: str, kind: str) -> None:
    """Check that the weights of a file have the names and shapes of a network.

    Raises:
        WeightsError: they have not; the message contains the file and the first difference.
    """
    wrong = [name for name in wanted if name not in given or given[name].shape != wanted[name].shape]
    wrong += given.keys() - wanted.keys()
    if wrong:
        raise WeightsError(
            f"backbone.weights={weights}: not {kind}: {len(wrong)} names or shapes differ, first {wrong[0]}; the file "
            f"begins with {', '.join(list(given)[:3]) or 'other names'}"
        )
