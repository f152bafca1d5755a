"""`priors=auto`: priors for the training boxes, chosen before a run starts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ssd_lightning.analysis.coverage import LEAST_SHARE, SPOILING_SHARE, best_priors
from ssd_lightning.analysis.fitting import fit_levels, fit_to_twice_the_input, reached
from ssd_lightning.analysis.level_moves import rounded
from ssd_lightning.analysis.objects import median_side_px
from ssd_lightning.ops.priors import Clip, PriorLevel

SEED = 0
"""Seed of the fit. It differs from the run's seed, so that runs with different seeds have the same priors."""
HALFWAY_BOXES = 30
"""With this many boxes, the result is halfway between published and fitted priors. Ten boxes would fit to noise."""
WORTH_SHARE = 0.05
"""Extra fraction of training boxes that an input of twice the size must reach, since it costs four times as much."""


class PriorChoice(NamedTuple):
    """The chosen levels, and how many training boxes have a prior of IoU .5 or more."""

    levels: tuple[PriorLevel, ...]
    is_fitted: bool
    """False if they are the published ones."""
    boxes: int
    reached: int
    published_reached: int
    larger_image_size: tuple[int, int] | None
    """(height, width) of an input that would be worthwhile."""
    larger_reached: int | None
    """With priors fitted to that input."""
    median_px: float
    """See `median_side_px`."""

    def record(self) -> dict[str, Any]:
        """Return everything but the levels in plain values."""
        return {name: value for name, value in self._asdict().items() if name != "levels"}

    def describe(self) -> list[str]:
        """Describe the choice in one line, and in another whether a larger input would be worthwhile."""
        among = f"{self.reached} of {self.boxes} training boxes reach IoU .5"
        if self.is_fitted:
            lines = [f"priors=auto: {among} with a fitted prior, {self.published_reached} with the default ones"]
        else:
            lines = [f"priors=auto keeps the default priors: {among} with one, and fitted ones do no better"]
        if self.larger_image_size is not None and self.larger_reached is not None:
            height, width = self.larger_image_size
            now, then = (f"{number / self.boxes:.0%}" for number in (self.reached, self.larger_reached))
            lines.append(
                f"a larger input would help: with image_size=[{height},{width}] fitted priors would reach {then} of "
                f"the training boxes instead of {now}"
            )
        return lines

    def warning(self) -> str | None:
        """Say that most objects are too small for the input; None if they are not."""
        if self.reached >= SPOILING_SHARE * self.boxes or self.larger_image_size is not None:
            return None
        return (
            f"only {self.reached} of {self.boxes} training boxes reach IoU .5 with a prior: the median box has "
            f"{self.median_px:.1f} px in the input. Such objects are hardly learnt. A larger image_size= helps if the "
            "images are larger than the input; `convert tiles=` cuts large images into tiles to train on"
        )


def choose_priors(
    boxes_xyxy: np.ndarray, levels: Sequence[PriorLevel], image_size: tuple[int, int], clip: Clip = False
) -> PriorChoice:
    """Fit levels, or keep the published ones if fitted ones reach fewer boxes or fit no better.

    The fewer the boxes, the more are fitted levels moved back towards the published ones. Interpolating on a
    logarithmic scale keeps what both have in common: the order of the levels, and sizes that suit their cells.

    Grids and the number of boxes per cell are kept. The result is deterministic.
    """
    count, published = len(boxes_xyxy), tuple(levels)
    fit = fit_levels(boxes_xyxy, published, image_size, clip, seed=SEED)
    before = number = reached(fit.before.iou)
    chosen = published
    if fit.levels != published:
        share = count / (count + HALFWAY_BOXES)
        between = tuple(_between(old, new, share) for old, new in zip(published, fit.levels, strict=True))
        after = reached(best_priors(boxes_xyxy, between, image_size, clip).iou)
        if after >= before:
            chosen, number = between, after
    larger = None
    if number < LEAST_SHARE * count:
        larger = reached(fit_to_twice_the_input(boxes_xyxy, published, image_size, clip, seed=SEED))
        larger = larger if larger >= number + WORTH_SHARE * count else None
    return PriorChoice(
        chosen,
        is_fitted=chosen != published,
        boxes=count,
        reached=number,
        published_reached=before,
        larger_image_size=None if larger is None else (2 * image_size[0], 2 * image_size[1]),
        larger_reached=larger,
        median_px=median_side_px(boxes_xyxy, image_size),
    )


def _between(old: PriorLevel, new: PriorLevel, share: float) -> PriorLevel:
    def mix(one: float, other: float) -> float:
        return one ** (1 - share) * other**share

    ratios = zip(sorted(old.aspect_ratios), sorted(new.aspect_ratios), strict=True)
    return rounded(
        replace(
            old,
            min_size=mix(old.min_size, new.min_size),
            max_size=None if old.max_size is None or new.max_size is None else mix(old.max_size, new.max_size),
            aspect_ratios=tuple(mix(one, other) for one, other in ratios),
        )
    )
