"""`budget=10min`: a run with a time limit, which includes the last validation."""

import logging
import sys
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_only
from torch import distributed

from ssd_lightning.training._compat import accumulates
from ssd_lightning.training.budget import TrainingBudget

log = logging.getLogger(__name__)

TELL_STEPS, TELL_SHARE = 20, 0.03
"""Steps, and share of the run, after which the number of steps is estimated and logged, whichever comes first."""
NEVER = sys.maxsize


class BudgetCallback(pl.Callback):
    """Ends a run when its budget is used up, and schedules validations.

    Validations run at the ends of epochs, or at `trainer.val_check_interval`, as long as they take less than
    `VALIDATION_SHARE` of the elapsed time. The last validation runs at the end, if necessary within an epoch. The
    learning-rate schedule uses the same budget object.
    """

    def __init__(self, budget: TrainingBudget) -> None:
        self.budget = budget
        self.expected_epochs: float | None = None
        self._every: int | None = 1
        self._group: Any = None
        self._is_ending = False

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the budget."""
        return self.budget.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of the budget."""
        self.budget.load_state_dict(state_dict)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the budget. If it is already used up, stop the run."""
        if trainer.world_size > 1:
            self._group = distributed.new_group(backend="gloo")  # on the CPU: does not wait for the device
        # Ignores a recipe's check_val_every_n_epoch: the budget limits the time of validations.
        self._every = None if trainer.check_val_every_n_epoch is None else 1
        self._is_ending = False
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        is_validated = data is not None and data.stages.has("val") and trainer.limit_val_batches
        validation_steps = len(data.dataset("val")) / data.step_size if is_validated else 0.0
        self.budget.max_steps = trainer.max_steps
        self.budget.begin(trainer.global_step, validation_steps=validation_steps, share=self._share)
        trainer.should_stop |= self.budget.is_spent
        if self.budget.is_over(trainer.global_step) and not self.budget.is_spent:
            rank_zero_only(log.warning)(
                "%.0f s of the budget of %g s passed before the first step; there is time for only one step",
                *(self.budget.reading.elapsed, self.budget.seconds),
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the clock if due, and decide whether a validation or the end of the run comes next."""
        self.budget.images += len(batch[0]) * trainer.world_size
        if accumulates(trainer):
            return
        step = self.budget.steps = trainer.global_step
        self.budget.epochs = step / steps_an_epoch(trainer)
        if self.budget.is_due(step):
            self.budget.read(step)
        if self.expected_epochs is None:
            self._log_estimate(trainer)
        self._is_ending = self.budget.is_over(step) or 0 <= trainer.max_steps <= step
        trainer.should_stop |= self._is_ending
        may_validate = self.budget.may_validate(step)
        trainer.check_val_every_n_epoch = 1 if self._is_ending else self._every if may_validate else NEVER

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the start of the validation."""
        self.budget.validation_begins()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the end of the validation. If it used up the time, it was the last one."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self.budget.validation_ends(trainer.global_step)
        self._is_ending |= self.budget.is_over(trainer.global_step)
        self.budget.is_spent = self._is_ending
        trainer.should_stop |= self._is_ending

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Mark the budget as spent before the checkpoint is written, also in a run without validation."""
        self.budget.is_spent = self._is_ending

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what was used."""
        rank_zero_only(log.info)(
            "budget of %g s: training ended after %.0f s, %d steps, %.1f epochs, %d images",
            *self.budget.record.values(),
        )

    def _log_estimate(self, trainer: pl.Trainer) -> None:
        budget, step = self.budget, trainer.global_step
        seconds_a_step = budget.reading.seconds_a_step
        is_measured = step >= TELL_STEPS or budget.progress(step) >= TELL_SHARE
        if not seconds_a_step or not is_measured:
            return
        steps = budget.expected_steps(steps_an_epoch(trainer))
        self.expected_epochs = steps / steps_an_epoch(trainer)
        rank_zero_only(log.info)(
            "about %d steps (%.1f epochs) fit into the budget of %g s (%.2g s per step)",
            *(steps, self.expected_epochs, budget.seconds, seconds_a_step),
        )
        if steps < trainer.log_every_n_steps:  # type: ignore[attr-defined]
            trainer.log_every_n_steps = 1  # type: ignore[attr-defined]

    def _share(self, values: list[float]) -> list[float]:
        if self._group is None:
            return values
        shared = torch.tensor(values, dtype=torch.float64)
        distributed.broadcast(shared, 0, group=self._group)
        return list(shared.tolist())


def steps_an_epoch(trainer: pl.Trainer) -> float:
    """Return the optimiser steps per epoch."""
    return max(1.0, trainer.num_training_batches / trainer.accumulate_grad_batches)
