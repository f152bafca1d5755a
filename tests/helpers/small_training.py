"""Pieces of trainings that end in milliseconds."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor


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
