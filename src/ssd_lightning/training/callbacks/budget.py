"""`budget=10min`: a run with a time limit, which includes the last validation."""

import logging
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_only
from torch import distributed

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.training._compat import accumulates

log = logging.getLogger(__name__)

UNITS_S = {"s": 1, "min": 60, "h": 3600}
MOST_STEPS_BETWEEN_READINGS = 10
SECONDS_BETWEEN_READINGS = 1.0
"""Interval at which ranks read the clock of rank 0. If a step takes longer, they read it at every step."""
VALIDATION_SHARE = 0.1
"""Share of the elapsed time that validations may take, not counting the last one."""
VALIDATION_COST = 0.5
"""Cost of a validation image relative to a training image, until a validation has been measured."""
LARGEST_RESERVE = 0.5
"""Largest share of the time after the first step that is reserved for the last validation."""
SMOOTHING = 0.1
"""Smallest weight of a new measurement in the average seconds per step."""
TELL_STEPS, TELL_SHARE = 20, 0.03
"""Steps, and share of the run, after which the number of steps is estimated and logged, whichever comes first."""
NEVER = sys.maxsize

Share = Callable[[list[float]], list[float]]
"""Returns the numbers of rank 0 on every rank. A collective call."""


def parse_budget(value: object) -> float:
    """Parse a length of time, such as `90s`, and return seconds.

    Raises:
        ConfigurationError: the value is not a positive number with one of the units s, min and h.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)(s|min|h)", value.strip()) if isinstance(value, str) else None
    seconds = float(match[1]) * UNITS_S[match[2]] if match else 0.0
    if seconds <= 0:
        raise ConfigurationError(f"budget is {value!r}; it must be a length of time such as 90s, 10min or 1.5h")
    return seconds


class Reading(NamedTuple):
    """Measurements of rank 0, the same on every rank."""

    step: int = 0
    elapsed: float = 0.0
    """Seconds since the command started, including earlier starts of the run."""
    seconds_a_step: float = 0.0
    """0 until it is known."""
    longest_validation: float = 0.0
    """Seconds. 0 until a validation was measured."""
    validating: float = 0.0
    """Seconds of all validations together."""


class TrainingBudget:
    """Tracks the progress of a run with a time limit, and decides when it ends.

    Only `begin` and `read` use the clock; all ranks get the time of rank 0. Between two readings, the time is
    extrapolated from the step number and the seconds per step. All ranks therefore have the same progress and end at
    the same step.

    Args:
        seconds: time limit, from the start of the command to the end of the last validation.
        clock: returns the seconds since the start of the command.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float]) -> None:
        self.seconds = seconds
        self.max_steps = -1
        self.is_spent = False
        self.steps = 0
        self.epochs = 0.0
        self.images = 0
        self._clock = clock
        self._reading = Reading()
        self._used_before = 0.0
        self._trained_before = 0.0
        self._least_progress = 0.0
        self._begun: float | None = None
        self._first_measured: int | None = None
        self._unmeasured_reserve = 0.0
        self._validation_began = 0.0
        self._validated_since = 0.0

    @property
    def reading(self) -> Reading:
        """The last measurements."""
        return self._reading

    @property
    def end(self) -> float:
        """Seconds after which the last validation has to start."""
        reading = self._reading
        reserve = reading.longest_validation or self._unmeasured_reserve * reading.seconds_a_step
        begun = self._begun or 0.0
        return max(self.seconds - reserve, begun + LARGEST_RESERVE * (self.seconds - begun))

    @property
    def record(self) -> dict[str, Any]:
        """Time limit, time used until the last reading, steps, epochs and images, as plain values."""
        fitted = {"steps": self.steps, "epochs": round(self.epochs, 2), "images": self.images}
        return {"seconds": self.seconds, "used_seconds": round(self._reading.elapsed, 1), **fitted}

    def elapsed(self, step: int) -> float:
        """Return the seconds used after `step` optimiser steps."""
        return self._reading.elapsed + max(0, step - self._reading.step) * self._reading.seconds_a_step

    def progress(self, step: int) -> float:
        """Return the share of the training time used after `step` optimiser steps. It never decreases."""
        if self._begun is None:
            return self._least_progress
        elapsed = self.elapsed(step)
        trained = self._trained_before + elapsed - self._begun
        share = trained / max(trained + self.end - elapsed, 1e-9) if elapsed < self.end else 1.0
        if self.max_steps > 0:
            share = max(share, step / self.max_steps)
        self._least_progress = min(1.0, max(self._least_progress, share))
        return self._least_progress

    def is_over(self, step: int) -> bool:
        """Whether the last validation has to start: half of another step would exceed the time."""
        return self.elapsed(step) + self._reading.seconds_a_step / 2 >= self.end

    def may_validate(self, step: int) -> bool:
        """Whether an intermediate validation is cheap enough and leaves time for more training."""
        expected = self.seconds - self.end
        elapsed = self.elapsed(step)
        is_cheap = self._reading.validating + expected <= VALIDATION_SHARE * elapsed
        return is_cheap and elapsed + expected < self.end

    def expected_steps(self, steps_an_epoch: float) -> int:
        """Estimate the total number of steps of the run, including completed ones.

        Args:
            steps_an_epoch: optimiser steps per epoch. Validations may come at the ends of epochs.
        """
        step, elapsed, seconds_a_step, *_ = self._reading
        left = max(0.0, self.end - elapsed)
        validations = left / seconds_a_step / steps_an_epoch
        left -= min(VALIDATION_SHARE * left, validations * (self.seconds - self.end))
        steps = step + round(left / seconds_a_step)
        return steps if self.max_steps < 0 else min(steps, self.max_steps)

    def begin(self, step: int, *, validation_steps: float, share: Share = list) -> None:
        """Record the start of training, at the first step or after a resume.

        Args:
            step: completed optimiser steps.
            validation_steps: number of validation images, divided by the images of a training step.
            share: see `Share`.
        """
        self._unmeasured_reserve = VALIDATION_COST * validation_steps
        (elapsed,) = share([self._used_before + self._clock()])
        self._reading = self._reading._replace(step=step, elapsed=elapsed)
        self._begun, self._first_measured = elapsed, None

    def is_due(self, step: int) -> bool:
        """Whether all ranks have to call `read` after this step."""
        between = SECONDS_BETWEEN_READINGS / self._reading.seconds_a_step if self._reading.seconds_a_step else 1
        return step - self._reading.step >= max(1, min(MOST_STEPS_BETWEEN_READINGS, int(between)))

    def read(self, step: int, share: Share = list) -> None:
        """Read the clock after `step` optimiser steps."""
        before, now = self._reading, self._used_before + self._clock()
        steps, seconds_a_step = step - before.step, before.seconds_a_step
        if steps and self._first_measured is None:
            self._first_measured = step  # not measured: workers start and libraries choose their kernels
        elif steps and self._first_measured is not None:
            measured = max(now - before.elapsed - self._validated_since, 1e-6) / steps
            weight = max(steps / (step - self._first_measured), SMOOTHING)
            seconds_a_step += weight * (measured - seconds_a_step)
        self._validated_since = 0.0
        values = share([now, seconds_a_step, before.longest_validation, before.validating])
        self._reading = Reading(step, *values)

    def validation_begins(self) -> None:
        """Record the start of a validation."""
        self._validation_began = self._clock()

    def validation_ends(self, step: int, share: Share = list) -> None:
        """Record the duration of the validation, and read the clock."""
        took = self._clock() - self._validation_began
        reading = self._reading
        self._validated_since += took
        self._reading = reading._replace(
            longest_validation=max(took, reading.longest_validation), validating=reading.validating + took
        )
        self.read(step, share)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a resumed run, as plain values."""
        used = self._used_before + self._clock()
        return {
            "seconds": self.seconds,
            "used_seconds": used,
            "trained_seconds": self._trained_before + (0.0 if self._begun is None else used - self._begun),
            "progress": self._least_progress,
            "steps": self.steps,
            "epochs": self.epochs,
            "images": self.images,
            "is_spent": self.is_spent,
            "reading": list(self._reading),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state. A longer budget than before adds to the remaining time."""
        self._used_before, self._trained_before = state["used_seconds"], state["trained_seconds"]
        self._least_progress = state["progress"] if self.seconds == state["seconds"] else 0.0
        self.is_spent = state["is_spent"] and self.seconds <= state["seconds"]
        self.steps, self.epochs, self.images = state["steps"], state["epochs"], state["images"]
        self._reading = Reading(*state["reading"])


class BudgetCallback(pl.Callback):
    """Ends a run when its budget is used up, and schedules validations.

    Validations run at the ends of epochs, or at `trainer.val_check_interval`, as long as they take less than
    `VALIDATION_SHARE` of the elapsed time. The last validation runs at the end, if necessary within an epoch.

    Args:
        budget: budget of the run. The learning-rate schedule uses the same object.
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
        is_validated = data is not None and data.has("val") and trainer.limit_val_batches
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
            self.budget.read(step, self._share)
        if self.expected_epochs is None:
            self._tell(trainer)
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
        self.budget.validation_ends(trainer.global_step, self._share)
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

    def _tell(self, trainer: pl.Trainer) -> None:
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
