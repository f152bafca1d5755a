"""What watches a run."""

import time
from typing import Any

import pytorch_lightning as pl
import torch

from ssd_lightning.errors import UserError


class Throughput(pl.Callback):
    """Logs training images per second, over all devices, since the last log."""

    def __init__(self) -> None:
        self._images = 0
        self._since = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start to count; validation between epochs is not training."""
        self._images, self._since = 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a batch."""
        self._images += len(batch[0]) * trainer.world_size
        seconds = time.perf_counter() - self._since
        if _is_logged(trainer, batch_idx):
            pl_module.log("images/s", self._images / seconds, prog_bar=True)
            self._images, self._since = 0, time.perf_counter()


class TrainingDiverged(UserError):
    """The loss is no number any more."""


class FiniteLoss(pl.Callback):
    """Stops a run whose loss is NaN or infinite, which Lightning would carry on to its end."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the loss wherever it is logged: looking waits for the device.

        Raises:
            TrainingDiverged: it is not finite; the message names the pictures of the batch.
        """
        if not _is_logged(trainer, batch_idx):
            return
        loss = outputs["loss"]
        if not torch.isfinite(loss).all():
            names = ", ".join(target["image_id"] for target in batch[1][:8])
            raise TrainingDiverged(
                f"the loss is {float(loss)} at step {trainer.global_step} (epoch {trainer.current_epoch}; pictures "
                f"{names}, ...): lower optimizer.lr, raise scheduler.warmup_steps or set trainer.gradient_clip_val"
            )


def _is_logged(trainer: pl.Trainer, batch_index: int) -> bool:
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    is_last = batch_index + 1 == trainer.num_training_batches
    return is_last or (every > 0 and (batch_index + 1) % every == 0)
