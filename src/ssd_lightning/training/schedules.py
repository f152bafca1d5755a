"""Learning rates over a run, counted in optimiser steps."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ssd_lightning.checks import require_number
from ssd_lightning.errors import ConfigurationError


def warmup_factor(step: int, *, warmup_steps: int, warmup_start: float) -> float:
    """Rise linearly from `warmup_start` to 1 over the first steps."""
    if step >= warmup_steps:
        return 1.0
    return warmup_start + (1 - warmup_start) * step / warmup_steps


def multistep_factor(
    step: int,
    *,
    total_steps: int,
    milestones: Sequence[float],
    gamma: float,
    warmup_steps: int,
    warmup_start: float,
) -> float:
    """Multiply by `gamma` at each milestone, a share of the run."""
    passed = sum(step >= round(milestone * total_steps) for milestone in milestones)
    return gamma**passed * warmup_factor(step, warmup_steps=warmup_steps, warmup_start=warmup_start)


def cosine_factor(step: int, *, total_steps: int, final_factor: float, warmup_steps: int, warmup_start: float) -> float:
    """Follow half a cosine from 1 to `final_factor` after the warm-up."""
    if step < warmup_steps:
        return warmup_factor(step, warmup_steps=warmup_steps, warmup_start=warmup_start)
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * progress))


def multistep(
    optimizer: Optimizer,
    *,
    total_steps: int,
    milestones: Sequence[float] = (2 / 3, 5 / 6),
    gamma: float = 0.1,
    warmup_steps: int = 0,
    warmup_start: float = 0.1,
) -> LambdaLR:
    """Make the paper's schedule: x .1 after 80k and 100k of 120k steps, as shares of whatever length the run has.

    Raises:
        ConfigurationError: a milestone outside (0, 1), or another setting that cannot be.
    """
    require_number("scheduler.gamma", gamma, 0)
    if any(not 0 < milestone < 1 for milestone in milestones):
        raise ConfigurationError(f"scheduler.milestones are shares of the run in (0, 1), got {list(milestones)}")
    factor = partial(
        multistep_factor,
        total_steps=total_steps,
        milestones=tuple(milestones),
        gamma=gamma,
        **_warmup(warmup_steps, warmup_start),
    )
    return LambdaLR(optimizer, factor)


def cosine(
    optimizer: Optimizer,
    *,
    total_steps: int,
    final_factor: float = 0.0,
    warmup_steps: int = 0,
    warmup_start: float = 0.1,
) -> LambdaLR:
    """Make a cosine schedule with linear warm-up.

    Raises:
        ConfigurationError: a setting that cannot be.
    """
    require_number("scheduler.final_factor", final_factor, 0)
    factor = partial(
        cosine_factor,
        total_steps=total_steps,
        final_factor=final_factor,
        **_warmup(warmup_steps, warmup_start),
    )
    return LambdaLR(optimizer, factor)


def _warmup(warmup_steps: int, warmup_start: float) -> dict[str, Any]:
    # Longer than the run is no mistake: a smoke test of a recipe just never leaves the warm-up.
    require_number("scheduler.warmup_steps", warmup_steps, 0, whole=True)
    require_number("scheduler.warmup_start", warmup_start, 0)
    return {"warmup_steps": warmup_steps, "warmup_start": warmup_start}
