"""Saves the detections of a run's evaluations per image."""

import logging
import math
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.run_files import EVALUATIONS
from ssd_lightning.training.callbacks.checkpointing import best_callback

log = logging.getLogger(__name__)


class Evaluations(pl.Callback):
    """Writes `evaluations/val.npz` and `evaluations/test.npz` in the trainer's `default_root_dir`.

    `val.npz` is from the validation that selected the best checkpoint. Without a `BestCheckpoint` or a finite score, it
    is from the last validation. Nothing is written if the trainer has no data module, because the images have no names
    then.
    """

    def __init__(self) -> None:
        self._record: EvaluationRecord | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Collect the metric's state before the module resets it."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._collect(trainer, pl_module, "val")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the record if this validation has the best score."""
        if is_best(trainer):
            self._write(trainer)
        self._record = None

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Collect the metric's state before the module resets it."""
        self._collect(trainer, pl_module, "test")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the record."""
        self._write(trainer)
        self._record = None

    def _collect(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        if trainer.datamodule is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._record = collect_record(trainer, pl_module, split)

    def _write(self, trainer: pl.Trainer) -> None:
        if self._record is None or not trainer.is_global_zero:
            return
        path = Path(trainer.default_root_dir) / EVALUATIONS / f"{self._record.split}.npz"
        try:
            self._record.save(path)
        except OSError as error:  # not worth ending a run
            log.warning("%s is not written: %s", path, error)


def collect_record(trainer: Any, module: Any, split: str) -> EvaluationRecord:
    """Gather the detections of an evaluation from the state of its metric. A collective call."""
    dataset, metric = trainer.datamodule.dataset(split), module.metrics[split]["voc"]
    return EvaluationRecord.of(metric, dataset, split=split, class_names=module.class_names)


def is_best(trainer: pl.Trainer) -> bool:
    """Whether the validation that has just ended has the best score. True if no best checkpoint is kept.

    Lightning decides this later and saves the checkpoint last. After a power cut between the two files, the run
    resumes before this validation and writes both again.
    """
    best = best_callback(trainer)
    if best is None or best.best_model_score is None:
        return True
    score = trainer.callback_metrics.get(str(best.monitor))
    return score is not None and bool(score >= best.best_model_score)  # false for NaN


def is_last_validation(trainer: pl.Trainer) -> bool:
    """Whether this is the last validation, as far as the settings tell."""
    every: int = trainer.check_val_every_n_epoch or 1
    interval: float = trainer.val_check_batch or math.inf
    steps = min(interval, every * trainer.num_training_batches) / trainer.accumulate_grad_batches  # until the next one
    ends_by_epochs = 0 <= (trainer.max_epochs or -1) <= trainer.current_epoch + every
    return trainer.should_stop or ends_by_epochs or 0 <= trainer.max_steps < trainer.global_step + steps


def logged_step(trainer: pl.Trainer) -> int:
    """Return the step of a validation's scores in the logs. Logs count from 0."""
    return max(0, trainer.global_step - 1)
