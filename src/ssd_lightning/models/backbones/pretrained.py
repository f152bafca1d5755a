"""torchvision's pretrained backbones: by name from its cache or the network, or from a file."""

import socket
from contextlib import nullcontext
from enum import Enum
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor, nn

from ssd_lightning.errors import WeightsError
from ssd_lightning.models.files import first_line, read_tensors

FETCH_TIMEOUT_S = 30.0


def read_backbone_weights(weights: str, names: type[Enum]) -> dict[str, Tensor]:
    """Read weights by torchvision's name (from its cache, else by download) or from a file.

    Args:
        weights: a member of `names`, or the path of a file of the same format.
        names: torchvision's weights of the network.

    Raises:
        WeightsError: neither a known name nor a file that can be read safely, or there is no network to fetch it.
    """
    if weights in names.__members__:
        return _fetch(names[weights].value.url)
    path = Path(weights)
    if path.is_dir():
        raise WeightsError(f"backbone.weights={weights} is a folder; a run directory is given as init_from={weights}")
    if not path.is_file():
        raise WeightsError(
            f"backbone.weights={weights}: neither a file nor one of {', '.join(names.__members__)}; "
            "backbone.weights=null starts from random weights"
        )
    return read_tensors(path, setting="backbone.weights=")


def _fetch(url: str) -> dict[str, Tensor]:
    """Read a file of torchvision's from torch's cache; the first process of this machine that needs it fetches it."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    timeout_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(FETCH_TIMEOUT_S)  # torch.hub waits for ever
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A folder that is only read has the file already.
        with nullcontext() if path.is_file() else FileLock(f"{path}.lock"):
            return torch.hub.load_state_dict_from_url(url, check_hash=True, weights_only=True, map_location="cpu")
    except Exception as error:  # no network, a wrong checksum, or a damaged file in the cache
        raise WeightsError(
            f"cannot get the ImageNet weights {url} ({first_line(error)}): put that file at {path}, "
            "or start from random weights with backbone.weights=null"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout_s)


def load_backbone(network: nn.Module, weights: str, names: type[Enum]) -> None:
    """Put pretrained weights into one of torchvision's networks, before it is cut into feature maps.

    Its classifier is not needed, so weights of a fine-tuned one with another number of classes fit as well.

    Raises:
        WeightsError: the weights cannot be had, or are those of another network.
    """
    given = read_backbone_weights(weights, names)
    wanted = network.state_dict()
    kept = {name: tensor for name, tensor in given.items() if not name.startswith(("classifier.", "fc."))}
    needed = [name for name in wanted if not name.startswith(("classifier.", "fc."))]
    wrong = [name for name in needed if name not in kept or kept[name].shape != wanted[name].shape]
    wrong += [name for name in kept if name not in wanted]
    if wrong:
        kind = type(network).__name__
        raise WeightsError(
            f"backbone.weights={weights}: these are not torchvision's {kind}: {len(wrong)} names or shapes differ, "
            f"first {wrong[0]}; the file begins with {', '.join(list(given)[:3])}"
        )
    network.load_state_dict(kept, strict=False)
