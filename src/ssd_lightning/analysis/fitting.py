"""Fit priors to a data set: k-means on the IoU of widths and heights, within the network's grids.

Redmon and Farhadi (YOLO9000, 2017, section 2) cluster the shapes of all boxes with the distance 1 - IoU, with aligned
centres. SSD's priors also have positions: a box smaller than the distance between cells may fall between them. So here
an object belongs to the prior with the highest IoU at its actual position. The shapes of a cell are also restricted:
a level's small square has the area of all its wide and tall boxes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ssd_lightning.analysis.coverage import PAPER_IOU_THRESHOLD, BestPriors, best_priors, level_ious, size_bands
from ssd_lightning.analysis.level_moves import move_levels, rounded, variations
from ssd_lightning.analysis.objects import mean_sides_px
from ssd_lightning.ops.priors import Clip, PriorLevel

MOST_ROUNDS = 40
CLIMBING_FACTORS = (1.2, 1.07, 1.02)
MOST_OBJECTS = 5_000
"""Maximum number of objects. With 20,000, `choose_priors` took 30 s; with 5,000 of them 4 s, and its priors reached
.2 % fewer."""
LEAST_STEPS, MOST_STEPS = 3.0, 5.0
"""Range of a level's small square, in cell distances; a level that was smaller may stay so. Priors as large as a cell
reach more small objects, but are learnt worse in short runs (experiments/README.md). Much larger objects do not fit
into the receptive field of the map. The published levels have .9 to 4.8."""
LEAST_SPREAD, LARGEST_SPREAD = 1.05, 2.6
"""Range of `max_size` over `min_size`, as in the published levels. Each map suits a certain size."""


class Fit(NamedTuple):
    """Fitted levels, and the best priors of all objects before and after the fit."""

    levels: tuple[PriorLevel, ...]
    before: BestPriors
    after: BestPriors


def fit_levels(
    boxes_xyxy: np.ndarray,
    levels: Sequence[PriorLevel],
    image_size: tuple[int, int],
    clip: Clip = False,
    *,
    seed: int = 0,
    starts: int = 6,
) -> Fit:
    """Choose sizes and ratios for a data set. Grids and the number of boxes per cell are kept.

    The given levels, with their grids, are the first start; `seed` draws further `starts`, each from shapes of objects.

    Returns:
        The levels with the highest `score` among those that reach at least as many objects as the given levels, which
        are also candidates.
    """
    levels = tuple(levels)
    before = best_priors(boxes_xyxy, levels, image_size, clip)
    fit = Fit(levels, before, before)
    if not len(boxes_xyxy):
        return fit
    weights = object_weights(boxes_xyxy, image_size)
    rng = np.random.default_rng(seed)
    sample = boxes_xyxy
    if len(boxes_xyxy) > MOST_OBJECTS:
        sample = boxes_xyxy[rng.choice(len(boxes_xyxy), MOST_OBJECTS, replace=False)]
    task = _Task(sample, image_size, clip, levels)
    ranked = sorted((task.settle(start) for start in _starts(task, rng, starts)), key=lambda one: one[0], reverse=True)
    settled = [levels for _, levels in ranked]
    for found in (task.climb(settled[0]), *settled):
        after = best_priors(boxes_xyxy, found, image_size, clip)
        loses_none = reached(after.iou) >= reached(before.iou)
        if loses_none and score(after.iou, weights) > score(fit.after.iou, weights):
            fit = Fit(found, before, after)
    return fit


def fit_to_twice_the_input(
    boxes_xyxy: np.ndarray, levels: Sequence[PriorLevel], image_size: tuple[int, int], clip: Clip, *, seed: int
) -> np.ndarray:
    """Return the best IoU `[N]` of each object with priors fitted to an input of twice the height and width.

    The network's maps then have twice as many rows and columns, so a cell is half as large relative to an object.
    """
    doubled = []
    for level in levels:
        rows, columns = level.grid
        max_size = None if level.max_size is None else 2 * level.max_size
        grid = (2 * rows, 2 * columns)
        doubled.append(replace(level, grid_size=grid, min_size=2 * level.min_size, max_size=max_size))
    height, width = image_size
    return fit_levels(boxes_xyxy, doubled, (2 * height, 2 * width), clip, seed=seed, starts=2).after.iou


def reached(iou: np.ndarray) -> int:
    """Count the objects that a prior reaches."""
    return int((iou >= PAPER_IOU_THRESHOLD).sum())


def object_weights(boxes_xyxy: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Weight objects by the square root of the rarity of their size, so that common sizes do not dominate: `[N]`."""
    bands = size_bands(boxes_xyxy, image_size)
    weights = 1 / np.sqrt(np.bincount(bands)[bands])
    return weights / weights.sum()


def score(iou: np.ndarray, weights: np.ndarray) -> float:
    """Score coverage: the fraction of objects that a prior reaches, plus the mean IoU."""
    return float(weights @ (iou >= PAPER_IOU_THRESHOLD) + weights @ iou)


class _Task:
    """The constants of a fit."""

    def __init__(
        self, boxes_xyxy: np.ndarray, image_size: tuple[int, int], clip: Clip, given: tuple[PriorLevel, ...]
    ) -> None:
        self.boxes_xyxy = boxes_xyxy
        self.image_size = image_size
        self.clip: Clip = clip
        self.given = given
        self._weights = object_weights(boxes_xyxy, image_size)
        self._reached_before = reached(self.best(given).iou)
        steps = [min(level.steps(image_size)) for level in given]
        self._least = [min(level.min_size, LEAST_STEPS * step) for level, step in zip(given, steps, strict=True)]
        self._most = [max(level.min_size, MOST_STEPS * step) for level, step in zip(given, steps, strict=True)]

    def best(self, levels: Sequence[PriorLevel]) -> BestPriors:
        """Find the best prior of every object."""
        return best_priors(self.boxes_xyxy, levels, self.image_size, self.clip)

    def rank(self, iou: np.ndarray) -> tuple[int, float]:
        """Prefer levels that reach no fewer objects, then the higher score."""
        return min(reached(iou), self._reached_before), score(iou, self._weights)

    def tidied(self, levels: Sequence[PriorLevel]) -> tuple[PriorLevel, ...]:
        """Let every level start where the previous one ends, as in the paper, in proportion to its cell distance.

        Otherwise the levels crowd around the most common size, and none is left for augmented objects.
        """
        tidy, least = [], 0.0
        for level, own_least, own_most in zip(levels, self._least, self._most, strict=True):
            small = max(least, own_least, min(level.min_size, own_most))
            top = level.max_size
            if top is not None:
                top = min(max(top, LEAST_SPREAD * small), LARGEST_SPREAD * small)
            tidy.append(rounded(replace(level, min_size=small, max_size=top)))
            least = small if top is None else math.sqrt(small * top)
        return tuple(tidy)

    def settle(self, levels: tuple[PriorLevel, ...]) -> tuple[tuple[int, float], tuple[PriorLevel, ...]]:
        """Alternate between assigning objects to their best priors and moving priors to the median of their objects.

        Returns the rank of the best levels, and these.
        """
        best = self.best(levels)
        found, highest, stalled = levels, self.rank(best.iou), 0
        for _ in range(MOST_ROUNDS):
            levels = self.tidied(move_levels(self.boxes_xyxy, levels, best, self.image_size))
            best = self.best(levels)
            # The median is over shapes, but the priors have other positions than their objects: a round may be worse.
            rank = self.rank(best.iou)
            stalled = 0 if rank > highest else stalled + 1
            if stalled == 0:
                found, highest = levels, rank
            elif stalled == 3:
                break
        return highest, found

    def climb(self, levels: tuple[PriorLevel, ...]) -> tuple[PriorLevel, ...]:
        """Change single sizes and ratios while coverage rises, in decreasing steps. This accounts for positions too."""
        found = list(self.tidied(levels))
        ious = np.stack([self._level_iou(level) for level in found])  # [L, N]
        highest = self.rank(ious.max(axis=0))
        for factor in CLIMBING_FACTORS:
            for _ in range(MOST_ROUNDS):
                before = highest
                for index in range(len(found)):
                    others = np.delete(ious, index, axis=0).max(axis=0, initial=0.0)
                    for tried in list(variations(found[index], factor)):
                        changed = (*found[:index], tried, *found[index + 1 :])
                        if self.tidied(changed) != changed:
                            continue
                        iou = self._level_iou(tried)
                        rank = self.rank(np.maximum(others, iou))
                        if rank > highest:
                            found[index], ious[index], highest = tried, iou, rank
                if highest == before:
                    break
        return tuple(found)

    def _level_iou(self, level: PriorLevel) -> np.ndarray:
        return level_ious(self.boxes_xyxy, level, self.image_size, self.clip).max(axis=1)


def _starts(task: _Task, rng: np.random.Generator, count: int) -> Iterator[tuple[PriorLevel, ...]]:
    """Yield the given levels, then sizes at even ranks of the objects, then sizes of random objects."""
    yield task.given
    sizes = mean_sides_px(task.boxes_xyxy, task.image_size)
    squares = 2 * len(task.given)
    for number in range(count):
        ranks = (np.arange(squares) + 0.5) / squares if number == 0 else np.sort(rng.random(squares))
        chosen = np.quantile(sizes, ranks).reshape(-1, 2)
        yield task.tidied(
            [
                replace(level, min_size=small, max_size=None if level.max_size is None else large**2 / small)
                for level, (small, large) in zip(task.given, chosen.tolist(), strict=True)
            ]
        )
