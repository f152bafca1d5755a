"""Networks from the configuration, for tests of what can be chosen."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ssd_lightning.assembly import make_net
from ssd_lightning.config import find_folder
from ssd_lightning.models.config import from_config, to_config
from ssd_lightning.models.ssd import SSD

CONF = find_folder("conf")


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def meta_net(config: DictConfig, num_classes: int = 3) -> SSD:
    """Build it without weights, and once for all configurations that have the same network."""
    return _meta_net(json.dumps(OmegaConf.to_container(config.model, resolve=True)), num_classes)


@lru_cache(maxsize=20)
def _meta_net(model: str, num_classes: int) -> SSD:
    with torch.device("meta"), only_shapes():
        return make_net(SimpleNamespace(model=OmegaConf.create(json.loads(model))), num_classes, pretrained=False)  # type: ignore[arg-type]


@contextmanager
def without_initialization() -> Iterator[None]:
    """Skip the initialisation of parameters: on the meta device it does nothing, and loaded weights replace it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in vars(nn.init):
            if name.endswith("_") and not name.startswith("_"):
                patch.setattr(nn.init, name, _same)
        yield


@contextmanager
def only_shapes() -> Iterator[None]:
    """Skip what takes long on the meta device and changes no shape: initialisation, norms and activations."""

    def batch_norm(tensor: Tensor, mean: Tensor, *_: Any, **__: Any) -> Tensor:
        assert tensor.shape[1:2] == mean.shape
        return tensor

    with without_initialization(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "batch_norm", batch_norm)
        for name in ("relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "silu"):
            patch.setattr(nn.functional, name, _same)
        yield


def _same(tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    return tensor


def build_net(config: DictConfig) -> SSD:
    """Build it as a run does, and once more from what its checkpoint would say of it."""
    net = meta_net(config)
    with torch.device("meta"), only_shapes():
        again = from_config(json.loads(json.dumps(to_config(net))))
    assert {name: tensor.shape for name, tensor in again.state_dict().items()} == {
        name: tensor.shape for name, tensor in net.state_dict().items()
    }
    return net
