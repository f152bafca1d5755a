"""What watches a run."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import RichProgressBar

from ssd_lightning.errors import UserError


class ProgressBar(RichProgressBar):
    """Shows the metrics of the last batch that was logged: reading them at every step would wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[str, Any] = {}

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Give what stands beside the bar."""
        if not trainer.training or not self._shown or is_looked_at(trainer, trainer.fit_loop.batch_idx):
            self._shown |= super().get_metrics(trainer, pl_module)
        return self._shown


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
        if not is_looked_at(trainer, batch_idx):
            return
        loss = outputs["loss"]
        if not torch.isfinite(loss).all():
            names = ", ".join(target["image_id"] for target in batch[1][:8])
            raise TrainingDiverged(
                f"the loss is {float(loss)} at step {trainer.global_step} (epoch {trainer.current_epoch}; pictures "
                f"{names}, ...): lower optimizer.lr, raise scheduler.warmup_steps or set trainer.gradient_clip_val"
            )


def is_looked_at(trainer: pl.Trainer, batch_index: int, *, before_step: bool = False) -> bool:
    """Say whether a batch's numbers are written or shown, so that waiting for the device is allowed at its end.

    Lightning writes at every so manieth optimiser step of the run, over the borders of epochs; the last batch of an
    epoch is what stays in the progress bar.

    Args:
        trainer: of the run.
        batch_index: of the batch in its epoch.
        before_step: the batch is not over; the optimiser's step, if it has one, is still to come.
    """
    is_last = batch_index + 1 == trainer.num_training_batches
    has_step = is_last or (batch_index + 1) % trainer.accumulate_grad_batches == 0
    step = trainer.global_step + (1 if before_step else 0)
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return is_last or (has_step and every > 0 and step % every == 0)
