import numpy as np
import pytest

from ssd_lightning.visualization.colours import class_colour
from ssd_lightning.visualization.draw import draw_detections

GREY = np.full((200, 300, 3), 128, dtype=np.uint8)
NAMES = ["bird", "cat", "dog"]
WHITE_ON_BLUE = {"labels": [7], "class_names": [*"abcdef", "Wqg"], "scores": [0.85]}


def has_colour(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (image == colour).all(-1)


def ink(box: list[int], *, rows: slice = slice(None)) -> int:
    """Pixels of white text, which nothing else of a detection draws."""
    image = draw_detections(GREY, boxes_xyxy_px=[box], **WHITE_ON_BLUE)
    return int((image[rows].min(-1) > 200).sum())


def test_the_tag_lies_above_its_box():
    assert ink([100, 80, 200, 160], rows=slice(50, 80)) == ink([100, 80, 200, 160]) > 20


def test_scores_make_the_tag_longer():
    box = {"boxes_xyxy_px": [[10, 80, 290, 160]], "labels": [1], "class_names": NAMES}
    without, with_score = (
        has_colour(draw_detections(GREY, **box, scores=scores)[:78], class_colour(1)).any(0).sum()
        for scores in (None, [0.5])
    )
    assert with_score > without + 10


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 300, 200],
        [0, 0, 12, 12],
        [288, 188, 300, 200],
        [288, 0, 300, 12],
        [-40, -40, 30, 30],
        [280, 150, 900, 900],
        [-500, -500, 900, 900],
    ],
)
def test_tags_stay_inside_whole(box):
    assert ink(box) == ink([100, 80, 200, 160])


def test_a_small_box_is_not_hidden_by_tags():
    rng = np.random.default_rng(0)
    for _ in range(30):
        x, y = rng.integers(0, 285), rng.integers(0, 185)
        boxes = [[x, y, x + 10, y + 10], [0, 0, 300, 200]]
        image = draw_detections(GREY, boxes_xyxy_px=boxes, labels=[1, 2], class_names=NAMES, scores=[0.4, 0.9])
        assert (image[y + 3 : y + 7, x + 3 : x + 7] == 128).all()


@pytest.mark.parametrize("name", ["Vögel", "鳥", "птица", "🐦", "", "a\nb", "x" * 300])
def test_any_class_name_can_be_drawn(name):
    image = draw_detections(GREY, boxes_xyxy_px=[[50, 80, 150, 160]], labels=[1], class_names=[name], scores=[1])
    assert has_colour(image, class_colour(1)).any()


def test_accents_are_drawn():
    drawn = [
        draw_detections(GREY, boxes_xyxy_px=[[50, 80, 150, 160]], labels=[1], class_names=[name])
        for name in ("Vögel", "Vôgel")
    ]
    assert (drawn[0] != drawn[1]).any()
