"""The checkpoint that a stopped run goes on from, and the best one."""

import logging
import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from ssd_lightning.checks import require_number
from ssd_lightning.training.checkpoint import LAST
from ssd_lightning.training.signals import Signals, Stopped, is_on_slurm, requeue

log = logging.getLogger(__name__)


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoint with the highest score; a run that goes on in another directory knows its score.

    Lightning's forgets the score with the directory, and would keep the first one after that, however low. It also
    keeps the first one of a run whose score never changes or is never finite, as without an object to find. Here equal
    scores keep the last one, and a score that is not finite keeps none, so that `last.ckpt` is what a run leaves.

    Args:
        dirpath: where `best.ckpt` lies.
        monitor: the score.
    """

    def __init__(self, *, dirpath: str, monitor: str = "val/map_11point") -> None:
        super().__init__(dirpath=dirpath, filename="best", monitor=monitor, mode="max", enable_version_counter=False)

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Say whether a validation with this score is kept; all ranks have to ask."""
        best = self.best_model_score
        is_kept = current is not None and bool(current.isfinite()) and (best is None or bool(current >= best))
        return trainer.strategy.reduce_boolean_decision(is_kept)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take score and file over, under the new directory."""
        folder = Path(str(self.dirpath))
        moved = {**state_dict, "dirpath": self.dirpath}
        moved["best_k_models"] = {
            str(folder / Path(path).name): score for path, score in moved["best_k_models"].items()
        }
        for key in ("best_model_path", "kth_best_model_path"):
            moved[key] = str(folder / Path(moved[key]).name) if moved[key] else ""
        super().load_state_dict(moved)


class LastCheckpoint(Checkpoint):
    """Saves where the run is: after every epoch, now and then within, and when a signal ends it.

    Every save lies at a point that Lightning can go on from exactly: the end of an optimiser step that is followed by
    another of its epoch, the beginning of a validation, which is then done again, or the end of an epoch.

    SIGTERM and SIGINT save and end the run with 143 and 130; a second one ends it at once. SIGUSR1 saves; under
    SLURM, which sends it before a job's time is over, the job is put into the queue again.

    Args:
        dirpath: where `last.ckpt` lies.
        every_n_steps: save so often within an epoch; None does not.
        every_n_minutes: save when so much time is over since the last save, whichever comes first; None does not.

    Raises:
        ConfigurationError: a number that is not positive.
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
        """The file, once there is one; the name is what Lightning asks checkpoint callbacks for."""
        return str(self.path) if self.path.is_file() else ""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals."""
        self._saved_at = time.monotonic()
        self._step_saved = trainer.global_step
        self._signals.watch(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Ask all ranks, while they compute, whether to save or to stop."""
        minutes = (time.monotonic() - self._saved_at) / 60
        self._signals.ask(due=self.every_n_minutes is not None and minutes >= self.every_n_minutes)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time; where a validation or the epoch's end comes next, leave it to them."""
        received, is_due = self._signals.answer()
        step = trainer.global_step
        is_due |= self.every_n_steps is not None and step // self.every_n_steps > self._step_saved // self.every_n_steps
        self._stop_by = received
        self._is_wanted |= bool(is_due or received)
        if self._is_wanted and not accumulates(trainer) and not is_followed(trainer):
            self._save(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save before a validation in training if it was time, and see whether it can be stopped in its middle."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if self._is_wanted:
            self._save(trainer)
        # A rank without an image passes no hook in which it could join the others.
        self._has_answered = not self._signals.all_say(0 < sum(trainer.num_val_batches) < float("inf"))

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop in a validation.

        Ranks may have different numbers of batches, so they agree once: a rank that is to stop waits for the others,
        which join it at their last batch, before they count the losses together.
        """
        if self._has_answered or trainer.state.fn != TrainerFn.FITTING:
            return
        is_last = batch_idx + 1 == trainer.num_val_batches[dataloader_idx]
        if self._signals.received or (is_last and trainer.world_size > 1):
            self._stop_if_agreed(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, whether there is a validation or not."""
        self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the signals back."""
        self._signals.release()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what `trainer.max_steps=0` leaves: weights of `init_from`, as a detector that all commands can use."""
        if trainer.global_step == 0 and not self.path.is_file():
            self._save(trainer)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End the test at a signal."""
        self._signals.end_at_once()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the signals back."""
        self._signals.release()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._signals.release()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let Lightning find a validation whose first batch was not finished, so that it does it from the start."""
        if self._in_validation:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            done = progress["total"]["completed"]
            progress["total"] |= {"ready": done + 1, "started": done + 1, "processed": done}
            progress["current"] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress["is_last_batch"] = False

    def _stop_if_agreed(self, trainer: pl.Trainer) -> None:
        self._has_answered = True
        self._stop_by = self._signals.agree()
        if self._stop_by:
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for logger in trainer.loggers:
            logger.save()  # what a log holds back would be lost to the run that goes on
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
        if number == getattr(signal, "SIGUSR1", None):
            if not is_on_slurm():
                log.warning("%s: saved at step %d", name, trainer.global_step)
                return
            if trainer.is_global_zero and requeue():
                raise Stopped(0)
        elif trainer.is_global_zero:
            log.warning("stopped by %s at step %d; resume=%s goes on from there", name, trainer.global_step, run)
        raise Stopped(self._signals.exit_code(number))


def accumulates(trainer: pl.Trainer) -> bool:
    """Say whether gradients wait for further batches: a checkpoint would lose them."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def is_followed(trainer: pl.Trainer) -> bool:
    """Say whether a validation or the end of the epoch comes after this batch, before another one."""
    loop = trainer.fit_loop.epoch_loop
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    return loop._num_ready_batches_reached() or loop._should_check_val_fx(fetcher)
