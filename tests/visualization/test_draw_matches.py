import numpy as np
import pytest

from ssd_lightning.visualization.colours import class_colour
from ssd_lightning.visualization.draw_matches import (
    CLOSE_UP_PX,
    TEXT_PX,
    MatchedObject,
    describe_object,
    draw_match_sheet,
    draw_matches,
    draw_window,
    hard_to_see,
)

GREY = np.full((100, 100, 3), 128, dtype=np.uint8)


def matched(
    box: tuple[float, float, float, float], levels: list[int], *, best_iou: float = 0.7, is_forced: bool = False
) -> MatchedObject:
    priors = np.array([box] * len(levels)).reshape(-1, 4)
    return MatchedObject("cat", np.array(box), priors, np.array(levels, dtype=np.int64), best_iou, is_forced)


def test_an_object_is_described_by_its_levels() -> None:
    box = (0.2, 0.2, 0.8, 0.8)
    assert describe_object(1, matched(box, [2, 1, 2])) == "1  cat: 1 on level 1, 2 on level 2, best IoU 0.70"
    forced = matched(box, [3], best_iou=0.31, is_forced=True)
    assert describe_object(4, forced) == "4  cat: 1 forced, level 3, best IoU 0.31"
    assert describe_object(2, matched(box, [], best_iou=0.0)) == "2  cat: no prior, best IoU 0.00"


def test_what_no_prior_reaches_is_enlarged_first_then_the_smallest() -> None:
    objects = [
        matched((0, 0, 0.9, 0.9), [1]),
        matched((0, 0, 0.1, 0.1), [1]),
        matched((0, 0, 0.05, 0.05), [1]),
        matched((0, 0, 0.9, 0.9), [1], is_forced=True),
        matched((0, 0, 0.8, 0.8), []),
    ]
    assert hard_to_see(objects) == [4, 3, 2, 1]


@pytest.mark.parametrize("window", [(0.0, 0.0, 1.0, 1.0), (0.2, 0.1, 0.7, 0.6)])
def test_objects_and_priors_lie_where_they_are_in_every_window(window: tuple[float, float, float, float]) -> None:
    shown = np.array(window)
    thing = MatchedObject(
        "cat", np.array([0.3, 0.3, 0.6, 0.5]), np.array([[0.35, 0.2, 0.5, 0.55]]), np.ones(1), 0.5, False
    )
    image = draw_window(GREY, [thing], size=(400, 400), window_xyxy=shown)

    def pixels(box: np.ndarray) -> np.ndarray:
        return (box - [*shown[:2], *shown[:2]]) / (shown[2] - shown[0]) * 400

    x1, y1, x2, y2 = pixels(thing.box_xyxy).round().astype(int)
    colour = np.array(class_colour(1))
    middle_x, middle_y = (x1 + x2) // 2, y1 + (y2 - y1) // 3
    for x, y in [(x1, middle_y), (x2 - 1, middle_y), (middle_x, y1), (middle_x, y2 - 1)]:
        assert (image[y, x] == colour).all(), (x, y)
    # The prior's upper edge lies above the object, its left one beside it: some of it coloured, the rest dark.
    left, top, right, _ = pixels(thing.priors_xyxy[0]).round().astype(int)
    edge = image[top, left:right].astype(int)
    assert (np.abs(edge - 130).max(-1) > 40).mean() > 0.9


def test_the_size_of_a_row_and_no_object_at_all() -> None:
    assert draw_matches(GREY, []).shape == (480, 480 + 18 + TEXT_PX, 3)
    small = [matched((0.1, 0.1, 0.15, 0.15), [1])] * 30
    assert draw_matches(np.zeros((50, 200, 3), dtype=np.uint8), small).shape[0] >= 120 + CLOSE_UP_PX
    sheet = draw_match_sheet([(GREY, []), (GREY, [matched((0, 0, 1, 1), [1])])], title="t")
    assert sheet.shape[0] > 960


@pytest.mark.parametrize(
    ("box", "size"),
    [((0.5, 0.5, 0.5, 0.5), (64, 64)), ((0.0, 0.0, 1.0, 1.0), (1, 1)), ((0.999, 0.999, 1.0, 1.0), (3, 200))],
)
def test_any_box_in_image_io_can_be_drawn(box: tuple[float, float, float, float], size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), dtype=np.uint8)
    assert draw_matches(image, [matched(box, [], best_iou=0.0)]).dtype == np.uint8
