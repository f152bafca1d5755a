"""Fitted priors: never worse than the given ones, the same boxes and grids, and planted clusters come back."""

from dataclasses import replace

import numpy as np
import pytest

from ssd_lightning.analysis.coverage import best_priors
from ssd_lightning.analysis.fitting import LARGEST_SPREAD, LEAST_SPREAD, fit_levels, object_weights, reached, score
from ssd_lightning.analysis.level_moves import LARGEST_RATIO, LEAST_RATIO, move_levels
from ssd_lightning.ops.priors import SSD300_COCO, SSD300_VOC, SSDLITE320, PriorLevel, make_priors

SIZE = (300, 300)


def boxes_of(shapes_px: np.ndarray, seed: int, image_size: tuple[int, int] = SIZE) -> np.ndarray:
    """Put (width, height) `[N, 2]` at random places within the image."""
    height, width = image_size
    shapes = shapes_px / (width, height)
    start = np.random.default_rng(seed).random(shapes.shape) * (1 - shapes)
    return np.concatenate([start, start + shapes], axis=1)


def scattered(middles: list[tuple[float, float]], count: int, seed: int, spread: float = 0.06) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([np.array(middle) * np.exp(rng.normal(0, spread, (count, 2))) for middle in middles])


@pytest.mark.parametrize(("levels", "seed"), [(SSD300_VOC, 0), (SSD300_COCO, 3)])
def test_it_never_reaches_fewer_objects_than_before(levels: tuple[PriorLevel, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    middles = [tuple(np.exp(rng.uniform(np.log(8), np.log(250), 2))) for _ in range(1 + seed)]
    boxes = boxes_of(np.minimum(scattered(middles, 60, seed, spread=0.3), 299), seed)

    fit = fit_levels(boxes, levels, SIZE, seed=seed, starts=3)

    assert reached(fit.after.iou) >= reached(fit.before.iou)
    weights = object_weights(boxes, SIZE)
    assert score(fit.after.iou, weights) >= score(fit.before.iou, weights)
    np.testing.assert_array_equal(fit.before.iou, best_priors(boxes, levels, SIZE).iou)
    np.testing.assert_array_equal(fit.after.iou, best_priors(boxes, fit.levels, SIZE).iou)
    for given, fitted in zip(levels, fit.levels, strict=True):
        assert (fitted.grid_size, fitted.step, fitted.boxes_per_cell) == (
            given.grid_size,
            given.step,
            given.boxes_per_cell,
        )
        assert all(LEAST_RATIO <= ratio <= LARGEST_RATIO for ratio in fitted.aspect_ratios)
        assert fitted.max_size is not None
        assert LEAST_SPREAD - 0.01 <= fitted.max_size / fitted.min_size <= LARGEST_SPREAD + 0.01
    assert make_priors(fit.levels, SIZE).shape == (8732, 4)


def test_levels_without_large_squares_stay_so() -> None:
    levels = tuple(
        replace(level, max_size=None, grid_size=g) for level, g in zip(SSDLITE320, range(20, 8, -2), strict=True)
    )
    boxes = boxes_of(scattered([(50, 40), (60, 90)], 100, 0), 0, (320, 320))
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


def test_a_move_takes_priors_to_the_middle_of_their_objects() -> None:
    level = PriorLevel(100, None, 30.0, 60.0, (2,))
    shapes = np.array([(28.0, 28.0)] * 3 + [(50.0, 20.0)] * 5 + [(20.0, 50.0)] * 4 + [(46.0, 46.0)] * 2)
    boxes = boxes_of(shapes, 0)

    (moved,) = move_levels(boxes, [level], best_priors(boxes, [level], SIZE), SIZE)

    assert moved.min_size == pytest.approx(1000**0.5)  # of the twelve with a small square's area, the median
    assert moved.aspect_ratios == (pytest.approx(2.5),)
    assert (moved.min_size * moved.max_size) ** 0.5 == pytest.approx(46)  # type: ignore[operator]


def test_a_move_knows_the_stretched_boxes_of_both_sizes() -> None:
    level = PriorLevel(100, None, 30.0, 60.0, (2,), both_sizes=True)
    shapes = np.array([(28.0, 28.0)] * 3 + [(72.0, 30.0)] * 5 + [(30.0, 72.0)] * 4 + [(46.0, 46.0)] * 2)
    boxes = boxes_of(shapes, 0)

    (moved,) = move_levels(boxes, [level], best_priors(boxes, [level], SIZE), SIZE)

    assert moved.min_size == pytest.approx(28)
    assert moved.aspect_ratios == (pytest.approx(2.4),)
    assert moved.min_size * moved.max_size == pytest.approx(72 * 30)  # type: ignore[operator]
    assert moved.both_sizes


def test_no_objects_change_nothing() -> None:
    fit = fit_levels(np.empty((0, 4)), SSD300_VOC, SIZE)
    assert fit.levels == SSD300_VOC
    assert len(fit.after.iou) == 0


def test_the_same_seed_gives_the_same_priors() -> None:
    boxes = boxes_of(scattered([(20, 30), (150, 60)], 80, 3, spread=0.3), 3)
    one, two = (fit_levels(boxes, SSD300_VOC, SIZE, seed=5, starts=2) for _ in range(2))
    assert one.levels == two.levels


def test_few_objects_of_a_size_weigh_more() -> None:
    boxes = boxes_of(np.array([(10.0, 10.0)] * 4 + [(100.0, 100.0)]), 0)
    weights = object_weights(boxes, SIZE)
    np.testing.assert_allclose(weights, [1 / 6] * 4 + [1 / 3])
