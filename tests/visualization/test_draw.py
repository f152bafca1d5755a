import numpy as np
import pytest

from ssd_lightning.visualization.colours import class_colour
from ssd_lightning.visualization.draw import draw_comparison, draw_detections, draw_ground_truth

GREY = np.full((200, 300, 3), 128, dtype=np.uint8)
NAMES = ["bird", "cat", "dog"]


def has_colour(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (image == colour).all(-1)


def ink(box: list[int], *, rows: slice = slice(None)) -> int:
    """Pixels of white text, which nothing else of a detection draws."""
    names = [*"abcdef", "Wqg"]
    image = draw_detections(GREY, boxes_xyxy_px=[box], labels=[7], class_names=names, scores=[0.85])
    return int((image[rows].min(-1) > 200).sum())


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


@pytest.mark.parametrize(
    "boxes",
    [[], [[400, 10, 500, 50]], [[-90, 10, -5, 50]], [[20, 20, 20, 60]], [[60, 20, 20, 60]], [[np.nan, 0, 9, 9]]],
)
def test_boxes_without_an_area_inside_are_left_out(boxes):
    count = len(boxes)
    image = draw_detections(GREY, boxes_xyxy_px=boxes, labels=[1] * count, class_names=NAMES, scores=[1.0] * count)
    assert (image == GREY).all()
    assert image is not GREY
    assert (draw_ground_truth(GREY, boxes_xyxy_px=boxes, difficult=[False] * count) == GREY).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (7, 9, 1), (40, 30), (16, 16, 3), (900, 40)])
def test_images_of_any_size_and_grey_ones(shape):
    ground = np.full(shape, 200, dtype=np.uint8)
    boxes = [[0, 0, shape[1], shape[0]], [0, 0, 0.4, 0.4]]
    image = draw_detections(ground, boxes_xyxy_px=boxes, labels=[1, 2], class_names=NAMES, scores=[0.9, 0.8])
    assert image.shape == (*shape[:2], 3)
    assert image.dtype == np.uint8
    assert (image != 200).any()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": [4]}, "label 4"),
        ({"labels": [0]}, "label 0"),
        ({"labels": [1, 2]}, "2 labels for 1 boxes"),
        ({"scores": [1, 1, 1]}, "3 scores"),
        ({"image": GREY / 255}, "float64"),
    ],
)
def test_input_that_cannot_be_drawn(changes, said):
    with pytest.raises(ValueError, match=said):
        draw_detections(
            **{"image": GREY, "boxes_xyxy_px": [[0, 0, 9, 9]], "labels": [1], "class_names": NAMES} | changes
        )


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
    image = draw_comparison(
        np.full((96, 192, 3), 128, dtype=np.uint8),
        true_boxes_xyxy=np.array([[20, 40, 60, 80]]) / [192, 96, 192, 96],
        difficult=[False],
        boxes_xyxy=np.array([[100, 40, 140, 80]]) / [192, 96, 192, 96],
        labels=[1],
        scores=[0.9],
        class_names=NAMES,
    )
    assert image.shape == (240, 480, 3)
    assert tuple(image[150, 250]) == class_colour(1)
    white = np.argwhere(has_colour(image[:, :200], (255, 255, 255)))
    assert (*white.min(0), *white.max(0)) == (100, 50, 199, 149)


def test_the_tag_lies_above_its_box():
    assert ink([100, 80, 200, 160], rows=slice(50, 80)) == ink([100, 80, 200, 160]) > 20


@pytest.mark.parametrize(
    "box", [[0, 0, 300, 200], [0, 0, 12, 12], [288, 188, 300, 200], [-40, -40, 30, 30], [-500, -500, 900, 900]]
)
def test_tags_stay_inside_whole(box):
    assert ink(box) == ink([100, 80, 200, 160])


def test_scores_make_the_tag_longer():
    box = {"boxes_xyxy_px": [[10, 80, 290, 160]], "labels": [1], "class_names": NAMES}
    without, with_score = (
        has_colour(draw_detections(GREY, **box, scores=scores)[:78], class_colour(1)).any(0).sum()
        for scores in (None, [0.5])
    )
    assert with_score > without + 10


def test_a_small_box_is_not_hidden_by_tags():
    rng = np.random.default_rng(0)
    for _ in range(30):
        x, y = rng.integers(0, 285), rng.integers(0, 185)
        boxes = [[x, y, x + 10, y + 10], [0, 0, 300, 200]]
        image = draw_detections(GREY, boxes_xyxy_px=boxes, labels=[1, 2], class_names=NAMES, scores=[0.4, 0.9])
        assert (image[y + 3 : y + 7, x + 3 : x + 7] == 128).all()


@pytest.mark.parametrize("name", ["鳥", "🐦", "", "a\nb", "x" * 300])
def test_any_class_name_can_be_drawn(name):
    image = draw_detections(GREY, boxes_xyxy_px=[[50, 80, 150, 160]], labels=[1], class_names=[name], scores=[1])
    assert has_colour(image, class_colour(1)).any()
