"""The priors that a run chooses from its training boxes."""

import numpy as np
import pytest
from test_fitting import SIZE, boxes_of, scattered

from ssd_lightning.analysis.coverage import best_priors
from ssd_lightning.analysis.fitting import LARGEST_SPREAD, LEAST_SPREAD, LEAST_STEPS, MOST_STEPS, fit_levels, reached
from ssd_lightning.analysis.prior_choice import HALFWAY_BOXES, choose_priors
from ssd_lightning.ops.priors import SSD300_VOC, PriorLevel

PLATES = [(44.0, 13.0), (25.0, 8.0)]


def sizes(levels: tuple[PriorLevel, ...]) -> np.ndarray:
    return np.array([(level.min_size, level.max_size, *level.aspect_ratios[:1]) for level in levels], float)


def test_many_boxes_have_the_doctors_priors() -> None:
    boxes = boxes_of(scattered(PLATES, 1500, 0), 0)
    choice, fit = choose_priors(boxes, SSD300_VOC, SIZE), fit_levels(boxes, SSD300_VOC, SIZE)
    np.testing.assert_allclose(sizes(choice.levels), sizes(fit.levels), rtol=0.02)
    assert (choice.boxes, choice.published_reached) == (3000, reached(fit.before.iou))
    assert choice.reached == reached(best_priors(boxes, choice.levels, SIZE).iou) > choice.published_reached
    assert choice.describe()[0] == (
        f"priors=auto: {choice.reached} of 3000 training boxes reach IoU .5 with a fitted prior, "
        f"{choice.published_reached} with the default ones"
    )


@pytest.mark.parametrize(("count", "seed"), [(1, 0), (40, 2), (400, 0)])
def test_fewer_boxes_move_the_priors_less_and_never_lose_one(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    middles = [tuple(np.exp(rng.uniform(np.log(8), np.log(250), 2))) for _ in range(2)]
    boxes = boxes_of(np.minimum(scattered(middles, count, seed, spread=0.2), 299), seed)
    choice, fit = choose_priors(boxes, SSD300_VOC, SIZE), fit_levels(boxes, SSD300_VOC, SIZE)
    assert choice.reached == reached(best_priors(boxes, choice.levels, SIZE).iou) >= choice.published_reached
    if not choice.is_fitted:
        assert choice.levels == SSD300_VOC
        return
    share = 2 * count / (2 * count + HALFWAY_BOXES)
    moved, whole = (np.log(sizes(levels) / sizes(SSD300_VOC)) for levels in (choice.levels, fit.levels))
    np.testing.assert_allclose(moved, share * whole, atol=0.01)
    for given, level in zip(SSD300_VOC, choice.levels, strict=True):
        assert (level.grid_size, level.step, level.boxes_per_cell) == (
            given.grid_size,
            given.step,
            given.boxes_per_cell,
        )
        assert level.max_size is not None
        assert LEAST_SPREAD - 0.01 <= level.max_size / level.min_size <= LARGEST_SPREAD + 0.01
        step = min(given.steps(SIZE))
        assert min(given.min_size, LEAST_STEPS * step) - 0.01 <= level.min_size
        assert level.min_size <= max(given.min_size, MOST_STEPS * step) + 0.01


def test_published_priors_stay_where_fitted_ones_reach_no_more() -> None:
    """Ten boxes that are priors themselves cannot be reached better."""
    centre = np.array([152.0, 152.0])  # of a cell of the second level
    boxes = np.tile(np.concatenate([centre - 30, centre + 30]) / 300, (10, 1))
    choice = choose_priors(boxes, SSD300_VOC, SIZE)
    assert not choice.is_fitted
    assert choice.levels == SSD300_VOC
    assert choice.describe() == [
        "priors=auto keeps the default priors: 10 of 10 training boxes reach IoU .5 with one, and fitted ones do no "
        "better"
    ]


def test_no_box_keeps_the_published_priors() -> None:
    assert choose_priors(np.empty((0, 4)), SSD300_VOC, SIZE).levels == SSD300_VOC


def test_a_larger_input_is_named_where_it_would_pay() -> None:
    small = choose_priors(boxes_of(scattered([(14.0, 14.0), (60.0, 60.0)], 200, 0), 0), SSD300_VOC, SIZE)
    assert small.larger_image_size == (600, 600)
    assert small.larger_reached is not None
    assert small.describe()[1] == (
        "a larger input would help: with image_size=[600,600] fitted priors would reach "
        f"{small.larger_reached / 400:.0%} of the training boxes instead of {small.reached / 400:.0%}"
    )
    assert small.record()["larger_image_size"] == [600, 600]
    large = choose_priors(boxes_of(scattered([(40.0, 40.0), (90.0, 90.0)], 200, 0), 0), SSD300_VOC, SIZE)
    assert large.larger_image_size is None
    assert len(large.describe()) == 1


@pytest.mark.parametrize(("side_px", "is_too_small"), [(1.0, True), (60.0, False)])
def test_objects_that_no_input_reaches_are_told(side_px: float, is_too_small: bool) -> None:
    warning = choose_priors(boxes_of(np.full((40, 2), side_px), 0), SSD300_VOC, SIZE).warning()
    assert (warning is not None) == is_too_small
    if warning is not None:
        assert "only 0 of 40 training boxes" in warning
        assert f"{side_px:.1f} px" in warning


def test_no_boxes_are_no_reason_to_warn() -> None:
    assert choose_priors(np.empty((0, 4)), SSD300_VOC, SIZE).warning() is None
