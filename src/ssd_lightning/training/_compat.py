"""Every private attribute of Lightning that this project uses, by a name that says what for.

A new version of Lightning may change them without notice. tests/training/test_compat.py says where each is tried.
"""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.callbacks import RichProgressBar, WeightAveraging
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from torch.optim.swa_utils import AveragedModel

from ssd_lightning.run_files import append_rows


def accumulates(trainer: pl.Trainer) -> bool:
    """Whether gradients are being accumulated. A checkpoint would lose them."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def is_followed(trainer: pl.Trainer) -> bool:
    """Whether a validation or the end of the epoch comes directly after this batch."""
    loop = trainer.fit_loop.epoch_loop
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    return loop._num_ready_batches_reached() or loop._should_check_val_fx(fetcher)


def stop_broadcasting_sigterm(trainer: pl.Trainer) -> None:
    """Keep Lightning from exchanging signals at every batch on the device, which waits for it."""
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def set_average(callback: WeightAveraging, average: AveragedModel) -> None:
    """Replace the moving average of the weights."""
    callback._average_model = average


class DescribedProgressBar(RichProgressBar):
    """A progress bar whose `describe_epoch` can be overridden."""

    def describe_epoch(self, epoch: int) -> str:
        """Return the text before the bar."""
        return super()._get_train_description(epoch)

    def _get_train_description(self, current_epoch: int) -> str:
        return self.describe_epoch(current_epoch)


class GrowingCSVLogger(CSVLogger):
    """Writes `metrics.csv`, and appends to an existing one. Lightning's logger would remove it."""

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer, created at the first use, on the rank that logs."""
        if self._experiment is None:
            self._experiment = _GrowingWriter(log_dir=self.log_dir)
        return self._experiment  # type: ignore[return-value]


class _GrowingWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        """Keep the file of an earlier start."""

    def save(self) -> None:
        """Add the rows. If it fails, for example on a full disk, the file and the rows stay as they were."""
        if self.metrics:
            # To write a long log again at every flush would take seconds of each 100 steps.
            append_rows(Path(self.metrics_file_path), self.metrics)
            self.metrics = []


def started_wandb_run(logger: WandbLogger) -> Any:
    """Return the run that a W&B logger has started. None if it has not."""
    return logger._experiment


def wandb_mode(logger: WandbLogger) -> str | None:
    """Return the mode that a W&B logger was given. None if the environment chooses it."""
    return "offline" if logger._offline else logger._wandb_init.get("mode")


def set_wandb_mode(logger: WandbLogger, mode: str) -> None:
    """Set the mode of a W&B run that has not started."""
    logger._wandb_init["mode"] = mode
