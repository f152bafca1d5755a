"""Learning-rate schedules as functions of a run's progress, measured in optimiser steps or in time."""

import math
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ssd_lightning.checks import require_number
from ssd_lightning.errors import ConfigurationError

Progress = Callable[[int], float]
"""Maps a number of optimiser steps to the completed share of the run, in [0, 1]."""
LONGEST_WARMUP = 0.1
"""Longest warm-up, as a share of the run, if it is given in steps and the run's number of steps is unknown."""


def multistep(
    optimizer: Optimizer,
    *,
    total_steps: int | None = None,
    progress: Progress | None = None,
    milestones: Sequence[float] = (2 / 3, 5 / 6),
    gamma: float = 0.1,
    warmup_steps: int = 0,
    warmup_share: float | None = None,
    warmup_start: float = 0.1,
) -> LambdaLR:
    """Create the paper's schedule: x .1 after 80k and 100k of 120k steps, expressed as shares of the run.

    Args:
        optimizer: the optimiser.
        total_steps: number of steps of the run.
        progress: replaces `total_steps` if the run's length is not measured in steps.
        milestones: shares of the run.
        gamma: factor at each milestone.
        warmup_steps: length of the warm-up. With `progress` it ends at `LONGEST_WARMUP` at the latest.
        warmup_share: length of the warm-up as a share of the run. It replaces `warmup_steps`.
        warmup_start: factor at the start of the warm-up.

    Raises:
        ConfigurationError: a milestone is outside (0, 1), or another setting is invalid.
    """
    require_number("scheduler.gamma", gamma, 0)
    if any(not 0 < milestone < 1 for milestone in milestones):
        raise ConfigurationError(f"scheduler.milestones are shares of the run in (0, 1), got {list(milestones)}")
    if total_steps is not None:  # round to whole steps
        milestones = [round(milestone * total_steps) / max(1, total_steps) for milestone in milestones]

    def factor(share: float, warmup: float) -> float:
        return gamma ** sum(share >= milestone for milestone in milestones)

    return _schedule(optimizer, factor, total_steps, progress, warmup_steps, warmup_share, warmup_start)


def cosine(
    optimizer: Optimizer,
    *,
    total_steps: int | None = None,
    progress: Progress | None = None,
    final_factor: float = 0.0,
    warmup_steps: int = 0,
    warmup_share: float | None = None,
    warmup_start: float = 0.1,
) -> LambdaLR:
    """Create a schedule of half a cosine, from 1 after a linear warm-up to `final_factor`.

    `multistep` explains the other arguments.

    Raises:
        ConfigurationError: a setting is invalid.
    """
    require_number("scheduler.final_factor", final_factor, 0)

    def factor(share: float, warmup: float) -> float:
        after = min(1.0, (share - warmup) / (1 - warmup)) if share > warmup else 0.0
        return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * after))

    return _schedule(optimizer, factor, total_steps, progress, warmup_steps, warmup_share, warmup_start)


def _schedule(
    optimizer: Optimizer,
    factor: Callable[[float, float], float],
    total_steps: int | None,
    progress: Progress | None,
    warmup_steps: int,
    warmup_share: float | None,
    warmup_start: float,
) -> LambdaLR:
    """Multiply `factor`, of the progress and of the warm-up's share of the run, by a linear warm-up."""
    require_number("scheduler.warmup_steps", warmup_steps, 0, whole=True)
    require_number("scheduler.warmup_start", warmup_start, 0)
    if warmup_share is not None:
        require_number("scheduler.warmup_share", warmup_share, 0, 1)
    elif total_steps is not None:  # may be longer than the run, for example in a smoke test of a recipe
        warmup_share = warmup_steps / max(1, total_steps)
    if progress is None and total_steps is None:
        raise TypeError("a schedule needs total_steps or progress")

    def rate(step: int) -> float:
        share = min(1.0, step / max(1, total_steps or 0)) if progress is None else progress(step)
        if warmup_share is not None:
            risen = share / warmup_share if warmup_share else 1.0
        else:
            risen = max(step / warmup_steps, share / LONGEST_WARMUP) if warmup_steps else 1.0
        warmup = 1.0 if risen >= 1 else warmup_start + (1 - warmup_start) * risen
        return factor(share, warmup_share or 0.0) * warmup

    return LambdaLR(optimizer, rate)
