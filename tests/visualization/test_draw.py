import numpy as np
import pytest

from ssd_lightning.visualization.colours import class_colour
from ssd_lightning.visualization.draw import (
    draw_comparison,
    draw_detections,
    draw_ground_truth,
    image_grid,
)

GREY = np.full((200, 300, 3), 128, dtype=np.uint8)
NAMES = ["bird", "cat", "dog"]


def has_colour(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (image == colour).all(-1)


def test_the_outline_has_the_colour_of_the_class_at_the_edges_of_the_box():
    image = draw_detections(GREY, boxes_xyxy_px=[[50, 80, 150, 160]], labels=[2], class_names=NAMES)
    colour = class_colour(2)
    for x, y in [(50, 120), (149, 120), (100, 80), (100, 159)]:
        assert tuple(image[y, x]) == colour
    for x, y in [(49, 120), (150, 120), (100, 160)]:
        assert tuple(image[y, x]) == (0, 0, 0)  # the dark rim that sets it off from any ground
    assert (image[82:158, 52:148] == 128).all()
    assert (GREY == 128).all()


def test_scores_decide_what_lies_on_top():
    boxes, labels = [[50, 50, 150, 150], [50, 50, 150, 150]], [1, 2]
    for scores, winner in (([0.9, 0.3], 1), ([0.3, 0.9], 2)):
        image = draw_detections(GREY, boxes_xyxy_px=boxes, labels=labels, class_names=NAMES, scores=scores)
        assert tuple(image[100, 50]) == class_colour(winner)


def test_no_boxes_leave_the_image_as_it_is():
    empty = np.zeros((0, 4), dtype=np.float32)
    image = draw_detections(GREY, boxes_xyxy_px=empty, labels=[], class_names=NAMES, scores=[])
    assert (image == GREY).all()
    assert image is not GREY
    assert (draw_ground_truth(GREY, boxes_xyxy_px=[]) == GREY).all()


@pytest.mark.parametrize(
    "box",
    [
        [400, 10, 500, 50],
        [-90, 10, -5, 50],
        [20, 20, 20, 60],
        [60, 20, 20, 60],
        [np.nan, 0, 9, 9],
        [0, 0, np.inf, 9],
    ],
)
def test_boxes_without_an_area_inside_are_left_out(box):
    image = draw_detections(GREY, boxes_xyxy_px=[box], labels=[1], class_names=NAMES, scores=[1.0])
    assert (image == GREY).all()
    assert (draw_ground_truth(GREY, boxes_xyxy_px=[box]) == GREY).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (7, 9, 1), (40, 30), (16, 16, 3), (900, 40)])
def test_images_of_any_size_and_grey_ones(shape):
    ground = np.full(shape, 200, dtype=np.uint8)
    boxes = [[0, 0, shape[1], shape[0]], [0, 0, 0.4, 0.4]]
    image = draw_detections(ground, boxes_xyxy_px=boxes, labels=[1, 2], class_names=NAMES, scores=[0.9, 0.8])
    assert image.shape == (*shape[:2], 3)
    assert image.dtype == np.uint8
    assert (image != 200).any()


def test_input_that_cannot_be_drawn():
    box = [[0, 0, 9, 9]]
    with pytest.raises(ValueError, match="label 4"):
        draw_detections(GREY, boxes_xyxy_px=box, labels=[4], class_names=NAMES)
    with pytest.raises(ValueError, match="label 0"):
        draw_detections(GREY, boxes_xyxy_px=box, labels=[0], class_names=NAMES)
    with pytest.raises(ValueError, match="2 labels for 1 boxes"):
        draw_detections(GREY, boxes_xyxy_px=box, labels=[1, 2], class_names=NAMES)
    with pytest.raises(ValueError, match="3 scores"):
        draw_detections(GREY, boxes_xyxy_px=box, labels=[1], class_names=NAMES, scores=[1, 1, 1])
    with pytest.raises(ValueError, match="float64"):
        draw_detections(GREY / 255, boxes_xyxy_px=box, labels=[1], class_names=NAMES)
    with pytest.raises(ValueError, match="columns"):
        image_grid([GREY], columns=0)


def test_ground_truth_is_dashed_and_difficult_is_finer():
    def share_and_changes(difficult: bool) -> tuple[float, int]:
        image = draw_ground_truth(GREY, boxes_xyxy_px=[[50, 50, 250, 150]], difficult=[difficult])
        top = has_colour(image, (255, 255, 255))[50, 50:250]
        assert (image[52:148, 52:248] == 128).all()
        return top.mean(), int(np.abs(np.diff(top.astype(int))).sum())

    (share, changes), (fine_share, fine_changes) = share_and_changes(False), share_and_changes(True)
    assert 0.4 < share < 0.6
    assert 0.4 < fine_share < 0.6
    assert fine_changes > 2 * changes > 20


def test_comparison_scales_image_and_boxes():
    small = np.full((96, 192, 3), 128, dtype=np.uint8)
    image = draw_comparison(
        small,
        true_boxes_xyxy_px=[[20, 40, 60, 80]],
        boxes_xyxy_px=[[100, 40, 140, 80]],
        labels=[1],
        scores=[0.9],
        class_names=NAMES,
        longer_side_px=480,
    )
    assert image.shape == (240, 480, 3)
    assert tuple(image[150, 250]) == class_colour(1)
    white = np.argwhere(has_colour(image[:, :200], (255, 255, 255)))
    assert (*white.min(0), *white.max(0)) == (100, 50, 199, 149)
    kept = draw_comparison(
        small, true_boxes_xyxy_px=[], boxes_xyxy_px=[], labels=[], class_names=NAMES, longer_side_px=None
    )
    assert (kept == small).all()


def test_grid_places_images_row_by_row():
    images = [np.full((20, 30, 3), value, dtype=np.uint8) for value in (100, 150, 200)]
    sheet = image_grid(images, columns=2, gap_px=4)
    assert sheet.shape == (4 + 2 * 24, 4 + 2 * 34, 3)
    assert (sheet[4:24, 4:34] == 100).all()
    assert (sheet[4:24, 38:68] == 150).all()
    assert (sheet[28:48, 4:34] == 200).all()
    assert (sheet[28:48, 38:68] < 50).all()


def test_grid_of_other_sizes_with_a_title_and_of_nothing():
    sheet = image_grid([np.full((20, 30), 200, np.uint8), np.full((40, 10, 3), 90, np.uint8)], columns=9, title="Tëst")
    assert (sheet == 90).all(-1).sum() == 400
    assert has_colour(sheet, (200, 200, 200)).sum() >= 600
    assert sheet.shape[0] > 40 + 2 * 8 + 10
    assert image_grid([], columns=3).ndim == 3
