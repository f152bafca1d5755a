"""Networks from the configuration, for tests of what can be chosen."""

import json

import torch
from omegaconf import DictConfig

from ssd_lightning.assembly import make_net
from ssd_lightning.config import find_folder
from ssd_lightning.models.config import from_config, to_config
from ssd_lightning.models.ssd import SSD

CONF = find_folder("conf")


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def meta_net(config: DictConfig, num_classes: int = 3) -> SSD:
    """Build it without weights."""
    with torch.device("meta"):
        return make_net(config, num_classes, pretrained=False)


def build_net(config: DictConfig) -> SSD:
    """Build it as a run does, and once more from what its checkpoint would say of it."""
    net = meta_net(config)
    with torch.device("meta"):
        again = from_config(json.loads(json.dumps(to_config(net))))
    assert {name: tensor.shape for name, tensor in again.state_dict().items()} == {
        name: tensor.shape for name, tensor in net.state_dict().items()
    }
    return net
