"""`optimizer.scale_with_batch`: scales the learning rate with the batch size."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pytorch_lightning.utilities import rank_zero_only
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ssd_lightning.checks import require_number

log = logging.getLogger(__name__)

MakeScheduler = Callable[..., LRScheduler]

WARMUP_SHARE = 5 / 90
"""Share of the run used for the warm-up if none was set: 5 of 90 epochs in the paper."""


def scale_learning_rate(
    optimizer: Optimizer, make_scheduler: MakeScheduler, *, reference: int, batch_size: int
) -> MakeScheduler:
    """Multiply the learning rates of an optimiser by batch / reference, with a warm-up from the unscaled rate.

    The rule is from Goyal et al. 2017 (arXiv 1706.02677, sections 2.1 and 2.2), for SGD. With AdamW it is a common
    convention. A batch smaller than the reference gets a smaller learning rate and no warm-up.

    Args:
        optimizer: an optimiser that has no schedule yet.
        make_scheduler: factory of the schedule.
        reference: batch size that the optimiser's learning rate was chosen for.
        batch_size: images of an optimiser step, see `data.batch_size`.

    Returns:
        The factory. A warm-up is added if it has none and the rate was increased.
    """
    factor = batch_size / reference
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * factor
    rate = optimizer.param_groups[0]["lr"]
    settings: Mapping[str, Any] = getattr(make_scheduler, "keywords", {})
    chosen = settings.get("warmup_steps") or settings.get("warmup_share") is not None
    say = rank_zero_only(log.info)
    say("optimizer.scale_with_batch=%d: %d images a step, learning rate x %g = %g", reference, batch_size, factor, rate)
    if factor <= 1 or chosen:
        return make_scheduler

    def with_warmup(optimizer: Optimizer, **run: Any) -> LRScheduler:
        if "total_steps" not in run:  # the run's length is a time
            say("its warm-up takes %.1f %% of the run; scheduler.warmup_share= chooses another", 100 * WARMUP_SHARE)
            return make_scheduler(optimizer, **run, warmup_share=WARMUP_SHARE, warmup_start=1 / factor)
        steps = max(1, round(WARMUP_SHARE * run["total_steps"]))
        say("its warm-up takes %d steps; scheduler.warmup_steps= chooses another", steps)
        return make_scheduler(optimizer, **run, warmup_steps=steps, warmup_start=1 / factor)

    return with_warmup


OWN_SETTINGS = ("scale_with_batch", "bias_lr_factor", "decay_biases", "backbone_lr_factor")


def split_optimizer(settings: Mapping[str, Any], batch_size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the settings under `optimizer` into the arguments of torch's class and those of `SSDModule`.

    `batch_size` are the images of an optimiser step, see `data.batch_size`.

    Raises:
        ConfigurationError: `scale_with_batch` is not a whole number of at least 1.
    """
    others = {key: value for key, value in settings.items() if key not in OWN_SETTINGS}
    own = {key: value for key, value in settings.items() if key in OWN_SETTINGS}
    reference = own.pop("scale_with_batch", None)
    if reference is None:
        return others, {**own, "batch_scaling": None}
    require_number("optimizer.scale_with_batch", reference, 1, whole=True)
    return others, {**own, "batch_scaling": partial(scale_learning_rate, reference=reference, batch_size=batch_size)}
