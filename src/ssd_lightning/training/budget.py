"""A length of time for a run, and how much of it has passed. Nothing here knows Lightning."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ssd_lightning.errors import ConfigurationError

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
        self.reading = Reading()
        """The last measurements."""
        self._used_before = 0.0
        self._trained_before = 0.0
        self._least_progress = 0.0
        self._begun: float | None = None
        self._first_measured: int | None = None
        self._unmeasured_reserve = 0.0
        self._validation_began = 0.0
        self._validated_since = 0.0
        self._share: Share = list

    @property
    def end(self) -> float:
        """Seconds after which the last validation has to start."""
        reading = self.reading
        reserve = reading.longest_validation or self._unmeasured_reserve * reading.seconds_a_step
        begun = self._begun or 0.0
        return max(self.seconds - reserve, begun + LARGEST_RESERVE * (self.seconds - begun))

    @property
    def record(self) -> dict[str, Any]:
        """Time limit, time used until the last reading, steps, epochs and images, as plain values."""
        fitted = {"steps": self.steps, "epochs": round(self.epochs, 2), "images": self.images}
        return {"seconds": self.seconds, "used_seconds": round(self.reading.elapsed, 1), **fitted}

    def elapsed(self, step: int) -> float:
        """Return the seconds used after `step` optimiser steps."""
        return self.reading.elapsed + max(0, step - self.reading.step) * self.reading.seconds_a_step

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
        return self.elapsed(step) + self.reading.seconds_a_step / 2 >= self.end

    def may_validate(self, step: int) -> bool:
        """Whether an intermediate validation is cheap enough and leaves time for more training."""
        expected = self.seconds - self.end
        elapsed = self.elapsed(step)
        is_cheap = self.reading.validating + expected <= VALIDATION_SHARE * elapsed
        return is_cheap and elapsed + expected < self.end

    def expected_steps(self, steps_an_epoch: float) -> int:
        """Estimate the total number of steps of the run, including completed ones."""
        step, elapsed, seconds_a_step, *_ = self.reading
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
            share: see `Share`. Needed if there are several ranks.
        """
        self._share = share
        self._unmeasured_reserve = VALIDATION_COST * validation_steps
        (elapsed,) = share([self._used_before + self._clock()])
        self.reading = self.reading._replace(step=step, elapsed=elapsed)
        self._begun, self._first_measured = elapsed, None

    def is_due(self, step: int) -> bool:
        """Whether all ranks have to call `read` after this step."""
        between = SECONDS_BETWEEN_READINGS / self.reading.seconds_a_step if self.reading.seconds_a_step else 1
        return step - self.reading.step >= max(1, min(MOST_STEPS_BETWEEN_READINGS, int(between)))

    def read(self, step: int) -> None:
        """Read the clock after `step` optimiser steps."""
        before, now = self.reading, self._used_before + self._clock()
        steps, seconds_a_step = step - before.step, before.seconds_a_step
        if steps and self._first_measured is None:
            self._first_measured = step  # not measured: workers start and libraries choose their kernels
        elif steps and self._first_measured is not None:
            measured = max(now - before.elapsed - self._validated_since, 1e-6) / steps
            weight = max(steps / (step - self._first_measured), SMOOTHING)
            seconds_a_step += weight * (measured - seconds_a_step)
        self._validated_since = 0.0
        values = self._share([now, seconds_a_step, before.longest_validation, before.validating])
        self.reading = Reading(step, *values)

    def validation_begins(self) -> None:
        """Record the start of a validation."""
        self._validation_began = self._clock()

    def validation_ends(self, step: int) -> None:
        """Record the duration of the validation, and read the clock."""
        took = self._clock() - self._validation_began
        self._validated_since += took
        longest, validating = max(took, self.reading.longest_validation), self.reading.validating + took
        self.reading = self.reading._replace(longest_validation=longest, validating=validating)
        self.read(step)

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
            "reading": list(self.reading),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state. A longer budget than before adds to the remaining time."""
        self._used_before, self._trained_before = state["used_seconds"], state["trained_seconds"]
        self._least_progress = state["progress"]
        if self.seconds != state["seconds"]:  # the schedule asks before `begin`
            left = max(0.0, self.seconds - self._used_before)
            self._least_progress = self._trained_before / max(self._trained_before + left, 1e-9)
        self.is_spent = state["is_spent"] and self.seconds <= state["seconds"]
        self.steps, self.epochs, self.images = state["steps"], state["epochs"], state["images"]
        self.reading = Reading(*state["reading"])
