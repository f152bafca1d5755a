"""Fitted priors: never worse than the given ones, the same boxes and grids, and planted clusters come back.

And `priors=auto`: the priors that a run chooses from its training boxes.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from ssd_lightning.analysis.coverage import best_priors
from ssd_lightning.analysis.fitting import (
    LARGEST_SPREAD,
    LEAST_SPREAD,
    LEAST_STEPS,
    MOST_STEPS,
    fit_levels,
    object_weights,
    reached,
    score,
)
from ssd_lightning.analysis.level_moves import LARGEST_RATIO, LEAST_RATIO, move_levels
from ssd_lightning.analysis.prior_choice import HALFWAY_BOXES, SEED, choose_priors
from ssd_lightning.ops.priors import SSD300_COCO, SSD300_VOC, SSDLITE320, PriorLevel, make_priors

SIZE = (300, 300)
NO_BOXES = np.empty((0, 4))


def boxes_of(shapes_px: np.ndarray, seed: int, image_size: tuple[int, int] = SIZE) -> np.ndarray:
    """Put (width, height) `[N, 2]` at random places within the image."""
    height, width = image_size
    shapes = shapes_px / (width, height)
    start = np.random.default_rng(seed).random(shapes.shape) * (1 - shapes)
    return np.concatenate([start, start + shapes], axis=1)


def scattered(middles: list[tuple[float, float]], count: int, seed: int, spread: float = 0.06) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([np.array(middle) * np.exp(rng.normal(0, spread, (count, 2))) for middle in middles])


def random_boxes(num_middles: int, count: int, seed: int, spread: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    middles = [tuple(np.exp(rng.uniform(np.log(8), np.log(250), 2))) for _ in range(num_middles)]
    return boxes_of(np.minimum(scattered(middles, count, seed, spread), 299), seed)


def sizes(levels: Sequence[PriorLevel]) -> np.ndarray:
    return np.array([size for level in levels for size in (level.min_size, level.max_size, *level.aspect_ratios)])


def assert_within_bounds(given: Sequence[PriorLevel], fitted: Sequence[PriorLevel]) -> None:
    """Grids and boxes are as they were; sizes and ratios are in their ranges."""
    for before, level in zip(given, fitted, strict=True):
        assert (level.grid_size, level.step, level.boxes_per_cell) == (
            before.grid_size, before.step, before.boxes_per_cell
        )  # fmt: skip
        assert all(LEAST_RATIO <= ratio <= LARGEST_RATIO for ratio in level.aspect_ratios)
        assert level.max_size is not None
        assert LEAST_SPREAD - 0.01 <= level.max_size / level.min_size <= LARGEST_SPREAD + 0.01
        step = min(before.steps(SIZE))
        assert min(before.min_size, LEAST_STEPS * step) - 0.01 <= level.min_size
        assert level.min_size <= max(before.min_size, MOST_STEPS * step) + 0.01


@pytest.mark.parametrize(("levels", "seed"), [(SSD300_VOC, 0), (SSD300_COCO, 3)])
def test_it_never_reaches_fewer_objects_than_before(levels: tuple[PriorLevel, ...], seed: int) -> None:
    boxes = random_boxes(1 + seed, 30, seed, spread=0.3)
    fit = fit_levels(boxes, levels, SIZE, seed=seed, starts=2)
    assert reached(fit.after.iou) >= reached(fit.before.iou)
    weights = object_weights(boxes, SIZE)
    assert score(fit.after.iou, weights) >= score(fit.before.iou, weights)
    np.testing.assert_array_equal(fit.before.iou, best_priors(boxes, levels, SIZE).iou)
    np.testing.assert_array_equal(fit.after.iou, best_priors(boxes, fit.levels, SIZE).iou)
    assert_within_bounds(levels, fit.levels)
    assert make_priors(fit.levels, SIZE).shape == (8732, 4)


def test_levels_without_large_squares_stay_so() -> None:
    levels = tuple(
        replace(level, max_size=None, grid_size=g) for level, g in zip(SSDLITE320, range(20, 8, -2), strict=True)
    )
    boxes = boxes_of(scattered([(50, 40), (60, 90)], 50, 0), 0, (320, 320))
    fit = fit_levels(boxes, levels, (320, 320), starts=2)
    assert all(level.max_size is None for level in fit.levels)
    assert reached(fit.after.iou) > reached(fit.before.iou)


def test_planted_clusters_come_back() -> None:
    # Squares of 24, 90 and 200 px and boxes of 1.6 : 1 of the same areas, far from VOC's priors; on grids so fine that
    # places do not matter.
    levels = tuple(
        PriorLevel(grid, None, small, 1.3 * small, (2,)) for grid, small in ((150, 35), (60, 120), (30, 260))
    )
    true_sizes, ratio = (24.0, 90.0, 200.0), 1.6
    middles = [(side, side) for side in true_sizes]
    middles += [(side * ratio**0.5, side / ratio**0.5) for side in true_sizes]
    boxes = boxes_of(np.minimum(scattered(middles, 200, seed=1, spread=0.02), 299), 1)

    fit = fit_levels(boxes, levels, SIZE)

    assert fit.after.iou.mean() > 0.9 > fit.before.iou.mean()
    assert reached(fit.after.iou) == len(boxes)
    shapes = np.array([shape for level in fit.levels for shape in level.sizes()])
    for middle in middles:
        assert np.abs(np.log(shapes / middle)).max(axis=1).min() < 0.08, (middle, fit.levels)


@pytest.mark.parametrize(
    ("both_sizes", "stretched", "min_size", "large_area"),
    [
        (False, (50.0, 20.0), 1000**0.5, 46**2),  # of the twelve with a small square's area, the median
        (True, (72.0, 30.0), 28, 72 * 30),
    ],
)
def test_a_move_takes_priors_to_the_middle_of_their_objects(
    both_sizes: bool, stretched: tuple[float, float], min_size: float, large_area: float
) -> None:
    level = PriorLevel(100, None, 30.0, 60.0, (2,), both_sizes=both_sizes)
    boxes = boxes_of(np.array([(28.0, 28.0)] * 3 + [stretched] * 5 + [stretched[::-1]] * 4 + [(46.0, 46.0)] * 2), 0)

    (moved,) = move_levels(boxes, [level], best_priors(boxes, [level], SIZE), SIZE)

    assert (moved.min_size, moved.both_sizes) == (pytest.approx(min_size), both_sizes)
    assert moved.aspect_ratios == (pytest.approx(stretched[0] / stretched[1]),)
    assert moved.min_size * moved.max_size == pytest.approx(large_area)  # type: ignore[operator]


def test_no_objects_change_nothing() -> None:
    fit = fit_levels(NO_BOXES, SSD300_VOC, SIZE)
    assert fit.levels == SSD300_VOC
    assert len(fit.after.iou) == 0
    choice = choose_priors(NO_BOXES, SSD300_VOC, SIZE)
    assert choice.levels == SSD300_VOC
    assert choice.warning() is None


def test_the_same_seed_gives_the_same_priors() -> None:
    boxes = boxes_of(scattered([(20, 30), (150, 60)], 20, 3, spread=0.3), 3)
    one, two = (fit_levels(boxes, SSD300_VOC, SIZE, seed=5, starts=2) for _ in range(2))
    assert one.levels == two.levels


def test_few_objects_of_a_size_weigh_more() -> None:
    boxes = boxes_of(np.array([(10.0, 10.0)] * 4 + [(100.0, 100.0)]), 0)
    weights = object_weights(boxes, SIZE)
    np.testing.assert_allclose(weights, [1 / 6] * 4 + [1 / 3])


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (40, 2), (200, 0)])
def test_fewer_boxes_move_the_priors_less_and_never_lose_one(count: int, seed: int) -> None:
    boxes = random_boxes(2, count, seed, spread=0.2)
    fit, choice = fit_levels(boxes, SSD300_VOC, SIZE, seed=SEED), choose_priors(boxes, SSD300_VOC, SIZE)
    assert (choice.boxes, choice.published_reached) == (2 * count, reached(fit.before.iou))
    assert choice.reached == reached(best_priors(boxes, choice.levels, SIZE).iou) >= choice.published_reached
    assert choice.is_fitted
    share = 2 * count / (2 * count + HALFWAY_BOXES)
    moved, whole = (np.log(sizes(levels) / sizes(SSD300_VOC)) for levels in (choice.levels, fit.levels))
    np.testing.assert_allclose(moved, share * whole, atol=0.01)
    assert_within_bounds(SSD300_VOC, choice.levels)
    assert f"{choice.reached} of {2 * count} training boxes" in choice.describe()[0]


def test_published_priors_stay_where_fitted_ones_reach_no_more() -> None:
    """Ten boxes that are priors themselves cannot be reached better."""
    centre = np.array([152.0, 152.0])  # of a cell of the second level
    boxes = np.tile(np.concatenate([centre - 30, centre + 30]) / 300, (10, 1))
    choice = choose_priors(boxes, SSD300_VOC, SIZE)
    assert choice.levels == SSD300_VOC
    assert not choice.is_fitted
    assert "keeps the default priors: 10 of 10 training boxes" in choice.describe()[0]
    assert choice.warning() is None


def test_a_larger_input_is_named_where_it_would_pay() -> None:
    small, large = (
        choose_priors(boxes_of(scattered([(side, side), (2 * side, 2 * side)], 50, 0), 0), SSD300_VOC, SIZE)
        for side in (14.0, 40.0)
    )
    assert small.larger_image_size == (600, 600)
    assert small.larger_reached is not None
    shares = f"{small.larger_reached}% of the training boxes instead of {small.reached}%"
    assert shares in small.describe()[1]
    assert json.loads(json.dumps(small.record()))["larger_image_size"] == [600, 600]
    assert large.larger_image_size is None
    assert len(large.describe()) == 1


def test_objects_that_no_input_reaches_are_told() -> None:
    warning = choose_priors(boxes_of(np.full((40, 2), 1.0), 0), SSD300_VOC, SIZE).warning() or ""
    assert "only 0 of 40 training boxes" in warning
    assert "1.0 px" in warning
