"""Boxes are checked and clipped in one step; the oracle goes box by box."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd_lightning.data.annotation_checks import BOX_PROBLEMS, RANGE_TOLERANCE_PX, BoxNotation

EDGES = st.sampled_from([-9.0, -1.5, -1.0, 0.0, 0.5, 1.0, 2.0, 7.0, 29.0, 30.0, 31.0, 31.5, 40.0, 41.0, 41.5, 90.0])
SIZE_PX = (30, 40)


def expected_kind(box: list[float], first_pixel: int) -> str | None:
    for low, high, side in ((box[0], box[2], SIZE_PX[1]), (box[1], box[3], SIZE_PX[0])):
        if low > high:
            return "inverted"
        if low < first_pixel - RANGE_TOLERANCE_PX or high > side + RANGE_TOLERANCE_PX:
            return "outside"
        start, end = (min(max(edge - first_pixel, 0), side) for edge in (low, high))
        if start >= end:
            return "no_area"
    return None


@given(st.lists(EDGES, min_size=4, max_size=4), st.sampled_from([0, 1]))
def test_each_box_has_the_problem_of_its_first_bad_axis(box: list[float], first_pixel: int) -> None:
    numbers, sizes = np.array([box]), np.array([SIZE_PX])
    notation = BoxNotation(first_pixel=first_pixel)
    found = notation.check(numbers, sizes)
    kind = BOX_PROBLEMS[found.kinds[0]]
    if kind == "fractions":
        assert all(0 <= edge <= 1.5 for edge in box)
        assert any(edge != int(edge) for edge in box)
        return
    assert kind == expected_kind(box, first_pixel)
    if kind is not None:
        text = notation.describe(kind, numbers[0], SIZE_PX)
        assert any(f"{edge:g}" in text for edge in box)
    x1, y1, x2, y2 = found.xyxy_px[0].tolist()
    if kind is None or found.overhangs[0]:
        assert 0 <= x1 < x2 <= SIZE_PX[1]
        assert 0 <= y1 < y2 <= SIZE_PX[0]
    assert found.overhangs[0] <= (kind == "outside")


def test_the_forms_of_a_box_are_equal() -> None:
    sizes = np.array([(100, 200)])
    pixels = {"xyxy": [20, 10, 60, 90], "xywh": [20, 10, 40, 80], "cxcywh": [40, 50, 40, 80]}
    for box_format, box in pixels.items():
        numbers = np.array([box], np.float64)
        for unit, scaled in (("pixels", numbers), ("fractions", numbers / [200, 100, 200, 100])):
            notation = BoxNotation(box_format=box_format, unit=unit)  # type: ignore[arg-type]
            found = notation.check(scaled, sizes)
            assert found.xyxy_px.tolist() == [[20, 10, 60, 90]]
            assert found.kinds.tolist() == [0]


@pytest.mark.parametrize("unit", ["pixels", "fractions"])
def test_no_boxes(unit: str) -> None:
    found = BoxNotation(unit=unit).check(np.empty((0, 4)), np.empty((0, 2)))  # type: ignore[arg-type]
    assert found.xyxy_px.shape == (0, 4)
    assert len(found.kinds) == len(found.overhangs) == 0


def test_pixels_among_fractions_and_fractions_among_pixels() -> None:
    sizes = np.array([SIZE_PX])
    pixels = BoxNotation(unit="fractions").check(np.array([[5.0, 5, 9, 9]]), sizes)
    fractions = BoxNotation().check(np.array([[0.1, 0.1, 0.5, 1.2]]), sizes)
    whole = BoxNotation().check(np.array([[0.0, 0, 1, 1]]), sizes)
    assert [BOX_PROBLEMS[found.kinds[0]] for found in (pixels, fractions, whole)] == ["pixels", "fractions", None]
    assert math.isclose(whole.xyxy_px[0, 2], 1)
