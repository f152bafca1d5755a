"""The law of the bounds: neither of them takes the median object out of what can be learned."""

from functools import partial

import numpy as np
import pytest

from ssd_lightning.analysis.scale_bounds import LARGEST_SHARE, LEAST_PX, choose_scale_bounds

of_the_paper = partial(choose_scale_bounds, max_expand_ratio=4.0, min_crop_scale=0.3)


def squares(side: float, count: int = 5) -> np.ndarray:
    return np.tile([[0.0, 0.0, side, side]], (count, 1))


@pytest.mark.parametrize("side_px", [2.0, 48.0, 90.0, 200.0, 320.0])
def test_the_median_object_stays_within_bounds(side_px: float) -> None:
    bounds = of_the_paper(squares(side_px / 320), (320, 320))
    assert bounds.median_px == pytest.approx(side_px)
    assert 1.0 <= bounds.max_expand_ratio <= 4.0
    assert 0.3 <= bounds.min_crop_scale <= 1.0
    if bounds.max_expand_ratio > 1:
        assert side_px / bounds.max_expand_ratio >= LEAST_PX - 0.1
    if side_px <= LARGEST_SHARE * 320:
        assert side_px / bounds.min_crop_scale <= LARGEST_SHARE * 320 + 1


def test_few_large_objects_do_not_move_the_bounds_of_many_small_ones() -> None:
    boxes = np.concatenate([squares(20 / 320, 9), squares(0.9, 4)])
    assert of_the_paper(boxes, (320, 320)) == of_the_paper(squares(20 / 320), (320, 320))


def test_an_input_that_is_no_square_counts_both_sides_and_without_boxes_the_given_bounds_stay() -> None:
    assert of_the_paper(np.array([[0.0, 0.0, 0.5, 0.125]]), (160, 320)).median_px == pytest.approx((160 * 20) ** 0.5)
    assert of_the_paper(np.empty((0, 4)), (300, 300))[:2] == (4.0, 0.3)


def test_without_crops_nothing_is_said_of_them() -> None:
    bounds = choose_scale_bounds(squares(0.3), (320, 320), max_expand_ratio=4.0, min_crop_scale=None)
    assert bounds.min_crop_scale is None
    assert "crop" not in bounds.describe()
    assert "crop" in of_the_paper(squares(0.3), (320, 320)).describe()
