"""Pieces of trainings that end in milliseconds."""

from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from helpers.small_network import small_net
from helpers.targets import make_target
from ssd_lightning.data.dataset import collate
from ssd_lightning.losses import MultiBoxLoss
from ssd_lightning.training import SSDModule
from ssd_lightning.training.schedules import multistep
from ssd_lightning.types import Target

SIZE = 32
SGD = partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=5e-4)


def small_module(**settings: Any) -> SSDModule:
    """Make a module of a small network, for images of `SIZE`."""
    net, loss = settings.pop("net", None) or small_net(), settings.pop("loss", None) or MultiBoxLoss()
    return SSDModule(
        net=net, loss=loss, **{"optimizer": SGD, "scheduler": multistep, "class_names": ("cat", "dog"), **settings}
    )


def target(*boxes: list[float], name: str = "a") -> Target:
    return make_target(torch.tensor(boxes).reshape(-1, 4), image_id=name, size_px=SIZE)


def loader(targets: list[Target], batch_size: int = 2) -> DataLoader:
    """Give random images with these targets."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (len(targets), 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    return DataLoader(list(zip(images, targets, strict=True)), batch_size=batch_size, collate_fn=collate)


def quiet_trainer(**settings: Any) -> pl.Trainer:
    """Make a trainer on the processor that prints and writes nothing."""
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return pl.Trainer(**{"accelerator": "cpu", **dict.fromkeys(quiet, False), **settings})


class Linear(pl.LightningModule):
    """The smallest module that trains."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch: Tensor, batch_index: int) -> Tensor:
        loss: Tensor = (self.layer(batch) ** 2).mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)
