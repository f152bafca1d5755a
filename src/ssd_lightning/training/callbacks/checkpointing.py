"""Callbacks that save the last and the best checkpoint."""

import logging
import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from ssd_lightning.checks import require_number, require_score
from ssd_lightning.errors import ConfigurationError, listed
from ssd_lightning.training._compat import accumulates, is_followed
from ssd_lightning.training.fault_tolerance.checkpoint_io import LAST
from ssd_lightning.training.fault_tolerance.signals import Signals, Stopped, is_on_slurm, requeue

log = logging.getLogger(__name__)


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint with the highest score, also when a run is resumed in another directory.

    Lightning's `ModelCheckpoint` forgets the score when the directory changes, and then keeps the next checkpoint
    however low its score is. It also keeps the first checkpoint if the score never changes or is never finite. Here,
    of equal scores the last one is kept, and a score that is not finite keeps no checkpoint: such a run leaves only
    `last.ckpt`.

    Args:
        dirpath: directory of `best.ckpt`.
        monitor: name of the score.

    Raises:
        ConfigurationError: `monitor` is a loss or an error.
    """

    def __init__(self, *, dirpath: str, monitor: str = "val/map_11point") -> None:
        require_score("callbacks.best.monitor", monitor)
        super().__init__(dirpath=dirpath, filename="best", monitor=monitor, mode="max", enable_version_counter=False)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the checkpoint, if its score is the highest.

        Raises:
            ConfigurationError: the validation has no score called `monitor`.
        """
        if not trainer.sanity_checking and self.monitor not in trainer.callback_metrics:
            names = listed(sorted(name for name in trainer.callback_metrics if name.startswith("val/")))
            raise ConfigurationError(
                f"callbacks.best.monitor is '{self.monitor}', but the validation has no such score; it has {names}"
            )
        super().on_validation_end(trainer, pl_module)

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Whether to keep a checkpoint with this score. A collective call."""
        best = self.best_model_score
        is_kept = current is not None and bool(current.isfinite()) and (best is None or bool(current >= best))
        return trainer.strategy.reduce_boolean_decision(is_kept)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the score, with the file's path moved to the new directory.

        Without that file, the score is not restored: it would keep every later checkpoint from being the best.
        """
        moved = {**state_dict, "dirpath": self.dirpath}
        if state_dict["best_model_path"]:
            path, score = Path(str(self.dirpath)) / f"{self.filename}.ckpt", state_dict["best_model_score"]
            if not path.is_file():
                text = "%s is missing, so the best score before this resume, %.4f, does not count"
                rank_zero_only(log.warning)(text, path, float(score))
                return
            moved |= dict.fromkeys(("best_model_path", "kth_best_model_path"), str(path))
            moved["best_k_models"] = {str(path): score}
        super().load_state_dict(moved)


def best_callback(trainer: pl.Trainer) -> BestCheckpoint | None:
    """Find the callback that keeps the best checkpoint."""
    return next((callback for callback in trainer.checkpoint_callbacks if isinstance(callback, BestCheckpoint)), None)


class LastCheckpoint(Checkpoint):
    """Saves the state of the run after every epoch, at intervals within an epoch, and when a signal ends the run.

    The run is saved only at points from which Lightning can resume exactly: the end of an optimiser step that is
    followed by another one in its epoch, the start of a validation (which is then repeated), or the end of an epoch.

    SIGTERM and SIGINT save and end the run with exit code 143 or 130. A second signal ends it at once. SIGUSR1 saves.
    SLURM sends SIGUSR1 before a job's time limit; under SLURM the job is then requeued.

    Args:
        dirpath: directory of `last.ckpt`.
        every_n_steps: save after this many steps within an epoch. None disables it.
        every_n_minutes: save when this many minutes have passed since the last save. None disables it. If both are
            set, the first one that is reached saves.

    Raises:
        ConfigurationError: a number is not positive.
    """

    def __init__(self, *, dirpath: str, every_n_steps: int | None = None, every_n_minutes: float | None = 10.0) -> None:
        if every_n_steps is not None:
            require_number("callbacks.last.every_n_steps", every_n_steps, 1, whole=True)
        if every_n_minutes is not None:
            require_number("callbacks.last.every_n_minutes", every_n_minutes, 0)
        self.path = Path(dirpath) / LAST
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self._signals = Signals()
        self._stop_by = 0
        self._is_wanted = False
        self._has_answered = True
        self._in_validation = False
        self._step_saved = -1
        self._saved_at = 0.0

    @property
    def best_model_path(self) -> str:
        """Path of the file, once it exists. Lightning reads this attribute of checkpoint callbacks."""
        return str(self.path) if self.path.is_file() else ""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the signal handlers."""
        self._saved_at = time.monotonic()
        self._step_saved = trainer.global_step
        self._signals.watch(trainer)

    def on_train_batch_start(self, *arguments: Any) -> None:
        """Start asking all ranks whether to save or stop, while they compute."""
        minutes = (time.monotonic() - self._saved_at) / 60
        self._signals.ask(due=self.every_n_minutes is not None and minutes >= self.every_n_minutes)

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Save if it is due. If a validation or the end of the epoch follows, those hooks save instead."""
        received, is_due = self._signals.answer()
        step = trainer.global_step
        is_due |= self.every_n_steps is not None and step // self.every_n_steps > self._step_saved // self.every_n_steps
        self._stop_by = received
        self._is_wanted |= bool(is_due or received)
        if self._is_wanted and not accumulates(trainer) and not is_followed(trainer):
            self._save(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save before a validation if it was due, and check whether this validation can be interrupted."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if self._is_wanted:
            self._save(trainer)
        # A rank without images runs no hook in which it could join the others.
        self._has_answered = not self._signals.all_say(0 < sum(trainer.num_val_batches) < float("inf"))

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Stop during a validation if a signal was received.

        Ranks may have different numbers of batches, so they agree only once. A rank that received a signal waits for
        the others. They join it at their last batch, before the losses are reduced.
        """
        if self._has_answered or trainer.state.fn != TrainerFn.FITTING:
            return
        is_last = batch_idx + 1 == trainer.num_val_batches[dataloader_idx]
        if self._signals.received or (is_last and trainer.world_size > 1):
            self._has_answered = True
            self._signals.ask(due=False)
            self._stop_by, _ = self._signals.answer()
            if self._stop_by:
                self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the end of every epoch."""
        self._save(trainer)

    def on_train_end(self, *arguments: Any) -> None:
        """Restore the former signal handlers."""
        self._signals.release()

    on_test_end = on_exception = on_train_end  # type: ignore[assignment]

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save with `trainer.max_steps=0` too: the weights of `init_from` become a detector for all commands."""
        if trainer.global_step == 0 and not self.path.is_file():
            self._save(trainer)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make signals end the test."""
        self._signals.end_at_once()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Mark the validation's first batch as unfinished, so that Lightning repeats the whole validation."""
        if self._in_validation:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            done = progress["total"]["completed"]
            progress["total"] |= {"ready": done + 1, "started": done + 1, "processed": done}
            progress["current"] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress["is_last_batch"] = False

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for logger in trainer.loggers:
            logger.save()  # rows still in memory would be missing after a resume
        self._in_validation = trainer.validating
        try:
            trainer.save_checkpoint(self.path, weights_only=False)
        finally:
            self._in_validation = False
        self._step_saved, self._saved_at = trainer.global_step, time.monotonic()
        self._is_wanted = False
        if self._stop_by:
            self._obey(trainer)

    def _obey(self, trainer: pl.Trainer) -> None:
        number, self._stop_by, self._signals.received = self._stop_by, 0, 0
        name, run = signal.Signals(number).name, self.path.parent.parent
        if number == signal.SIGUSR1:
            if not is_on_slurm():
                log.warning("%s: saved at step %d", name, trainer.global_step)
                return
            if trainer.is_global_zero and requeue():
                raise Stopped(0)
        elif trainer.is_global_zero:
            log.warning("stopped by %s at step %d; resume=%s continues from there", name, trainer.global_step, run)
        # Lightning's launcher kills all ranks within seconds if one that it started exits with another code than 0.
        raise Stopped(0 if self._signals.is_child else 128 + number)
