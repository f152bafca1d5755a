"""Changes of single prior levels: to the median of their objects, and small steps up or down."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ssd_lightning.analysis.coverage import BestPriors
from ssd_lightning.analysis.objects import sides_px
from ssd_lightning.ops.priors import PriorLevel

LEAST_RATIO, LARGEST_RATIO = 1.1, 6.0
"""Range of an aspect ratio: closer to 1 it is another square, above it a line."""


def variations(level: PriorLevel, factor: float) -> Iterator[PriorLevel]:
    """Yield levels with one size or ratio changed by a factor, up and down."""
    for change in (factor, 1 / factor):
        yield rounded(replace(level, min_size=level.min_size * change))
        if level.max_size is not None:
            yield rounded(replace(level, max_size=level.max_size * change))
        for position, ratio in enumerate(level.aspect_ratios):
            ratios = list(level.aspect_ratios)
            ratios[position] = ratio * change
            yield rounded(with_ratios(level, ratios))


def move_levels(
    boxes_xyxy: np.ndarray, levels: Sequence[PriorLevel], best: BestPriors, image_size: tuple[int, int]
) -> tuple[PriorLevel, ...]:
    """Move every prior to the median, on a logarithmic scale, of the objects that it fits best.

    A box shape without objects is not changed.
    """
    log_w, log_h = np.log(sides_px(boxes_xyxy, image_size)).T
    size, stretch = (log_w + log_h) / 2, log_w - log_h
    moved = []
    for index, level in enumerate(levels):
        kind = np.where(best.level == index, best.kind, -1)
        squares = 1 if level.max_size is None else 2
        shapes = 2 * len(level.aspect_ratios)
        is_large = ((kind == 1) & (squares == 2)) | (kind >= squares + shapes)
        small = _middle(size[(kind >= 0) & ~is_large], level.min_size)
        ratios = []
        for position, ratio in enumerate(level.aspect_ratios):
            wide, tall = squares + 2 * position, squares + 2 * position + 1
            is_wide, is_tall = (np.isin(kind, (place, place + shapes)) for place in (wide, tall))
            ratios.append(_middle(np.concatenate([stretch[is_wide], -stretch[is_tall]]), ratio))
        max_size = level.max_size
        if max_size is not None:
            max_size = _middle(size[is_large], np.sqrt(level.min_size * max_size)) ** 2 / small
        moved.append(with_ratios(replace(level, min_size=small, max_size=max_size), ratios))
    return tuple(moved)


def with_ratios(level: PriorLevel, ratios: Sequence[float]) -> PriorLevel:
    """Replace the aspect ratios of a level, limited to their range."""
    return replace(level, aspect_ratios=tuple(sorted(np.clip(ratios, LEAST_RATIO, LARGEST_RATIO).tolist())))


def rounded(level: PriorLevel) -> PriorLevel:
    """Round the values as written to files: sizes and ratios to two decimals."""
    return replace(
        level,
        min_size=round(level.min_size, 2),
        max_size=None if level.max_size is None else round(level.max_size, 2),
        aspect_ratios=tuple(round(ratio, 2) for ratio in level.aspect_ratios),
    )


def _middle(logarithms: np.ndarray, otherwise: float) -> float:
    return float(np.exp(np.median(logarithms))) if len(logarithms) else float(otherwise)
