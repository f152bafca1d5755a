"""Progress bar, logging interval, and what a job of a sweep reports during the run."""

import json
import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks.progress.rich_progress import RichProgressBarTheme

from ssd_lightning.training._compat import DescribedProgressBar
from ssd_lightning.training.callbacks.budget import BudgetCallback


class ProgressBar(DescribedProgressBar):
    """Shows the metrics of the last logged batch. Reading them at every step would wait for the device."""

    def __init__(self) -> None:
        super().__init__(theme=RichProgressBarTheme(metrics_format=".3g"))  # learning rates are small
        self._shown: dict[str, Any] | None = None

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Return the metrics beside the bar."""
        if not trainer.training or self._shown is None or is_logged(trainer, trainer.fit_loop.batch_idx):
            self._shown = {**(self._shown or {}), **super().get_metrics(trainer, pl_module)}
            self._shown.pop("v_num", None)  # part of a logger's version, meaningless here
        return self._shown

    def describe_epoch(self, epoch: int) -> str:
        """Return the text before the bar. With a budget, the number of epochs is an estimate."""
        if self.trainer.max_epochs != -1:
            return super().describe_epoch(epoch)
        expected = (call.expected_epochs for call in self.trainer.callbacks if isinstance(call, BudgetCallback))  # type: ignore[attr-defined]
        epochs = next(expected, None)
        return f"Epoch {epoch}" + ("" if epochs is None else f" of about {epochs:.1f}")


class LogShortRuns(pl.Callback):
    """Logs every step of a run that is shorter than `log_every_n_steps`. Otherwise no step would be logged."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Shorten the logging interval of a short run."""
        if trainer.estimated_stepping_batches < trainer.log_every_n_steps:  # type: ignore[attr-defined]
            trainer.log_every_n_steps = 1  # type: ignore[attr-defined]


class ObjectiveReport(pl.Callback):
    """Appends one score to `objective.jsonl` in the run directory after every validation.

    Args:
        objective: name of the score.
    """

    def __init__(self, objective: str) -> None:
        self.objective = objective

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Append a line with the epoch and the score, if the score is finite."""
        score = trainer.callback_metrics.get(self.objective)
        if trainer.sanity_checking or not trainer.is_global_zero or score is None:
            return
        value = float(score)
        if math.isfinite(value):
            line = json.dumps({"epoch": trainer.current_epoch, "value": value})
            with (Path(trainer.default_root_dir) / "objective.jsonl").open("a") as file:
                file.write(line + "\n")


def is_logged(trainer: pl.Trainer, batch_index: int, *, before_step: bool = False) -> bool:
    """Whether a batch's values are logged or shown. Only such a batch may wait for the device.

    Lightning logs at every `log_every_n_steps`-th optimiser step, counted over all epochs. The values of an epoch's
    last batch stay visible in the progress bar.

    Args:
        trainer: trainer of the run.
        batch_index: index of the batch in its epoch.
        before_step: whether the call comes before the optimiser step of this batch.
    """
    is_last = batch_index + 1 == trainer.num_training_batches
    has_step = is_last or (batch_index + 1) % trainer.accumulate_grad_batches == 0
    step = trainer.global_step + (1 if before_step else 0)
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return is_last or (has_step and every > 0 and step % every == 0)
