"""The progress bar of a training."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks.progress.rich_progress import RichProgressBarTheme

from ssd_lightning.training._compat import DescribedProgressBar
from ssd_lightning.training.callbacks.budget import BudgetCallback
from ssd_lightning.training.callbacks.logged_steps import is_logged


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
