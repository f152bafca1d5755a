"""Boxes on images: detections, annotated samples, and training samples with their matched priors."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from ssd_lightning.visualization.colours import class_colour, text_colour
from ssd_lightning.visualization.draw import draw_comparison, draw_detections, draw_ground_truth
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
from ssd_lightning.visualization.draw_samples import MOST_TAGS, Sample, class_keys, draw_augmentation, draw_sample

GREY = np.full((200, 300, 3), 128, dtype=np.uint8)
NAMES = ["bird", "cat", "dog"]


def has_colour(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (image == colour).all(-1)


def drawn(
    boxes: list, labels: list[int], scores: Sequence[float] | None = None, names: Sequence[str] = NAMES
) -> np.ndarray:
    return draw_detections(GREY, boxes_xyxy_px=boxes, labels=labels, class_names=names, scores=scores)


def ink(box: list[int], *, rows: slice = slice(None), scores: Sequence[float] | None = (0.85,)) -> int:
    """Pixels of white text, which nothing else of a detection draws."""
    return int((drawn([box], [7], scores, [*"abcdef", "Wqg"])[rows].min(-1) > 200).sum())


def test_the_outline_has_the_colour_of_the_class_at_the_edges_of_the_box():
    image = drawn([[50, 80, 150, 160]], [2])
    for x, y in [(50, 120), (149, 120), (100, 80), (100, 159)]:
        assert tuple(image[y, x]) == class_colour(2)
    for x, y in [(49, 120), (150, 120), (100, 160)]:
        assert tuple(image[y, x]) == (0, 0, 0)  # the dark rim that sets it off from any ground
    assert (image[82:158, 52:148] == 128).all()
    assert (GREY == 128).all()


def test_scores_decide_what_lies_on_top():
    for scores, winner in (([0.9, 0.3], 1), ([0.3, 0.9], 2)):
        assert tuple(drawn([[50, 50, 150, 150]] * 2, [1, 2], scores)[100, 50]) == class_colour(winner)


def test_boxes_without_an_area_inside_are_left_out():
    odd = [[400, 10, 500, 50], [-90, 10, -5, 50], [20, 20, 20, 60], [60, 20, 20, 60], [np.nan, 0, 9, 9]]
    for boxes in ([], odd):
        image = drawn(boxes, [1] * len(boxes), [1.0] * len(boxes))
        assert (image == GREY).all()
        assert image is not GREY
        assert (draw_ground_truth(GREY, boxes_xyxy_px=boxes, difficult=[False] * len(boxes)) == GREY).all()


@pytest.mark.parametrize("shape", [(1, 1), (7, 9, 1), (900, 40, 3)])
def test_images_of_any_size_and_grey_ones(shape):
    ground = np.full(shape, 200, dtype=np.uint8)
    boxes = [[0, 0, shape[1], shape[0]], [0, 0, 0.4, 0.4]]
    image = draw_detections(ground, boxes_xyxy_px=boxes, labels=[1, 2], class_names=NAMES, scores=[0.9, 0.8])
    assert (image.shape, image.dtype) == ((*shape[:2], 3), np.uint8)
    assert (image != 200).any()


def test_input_that_cannot_be_drawn():
    given = {"image": GREY, "boxes_xyxy_px": [[0, 0, 9, 9]], "labels": [1], "class_names": NAMES}
    for changes, said in (
        ({"labels": [4]}, "label 4"),
        ({"labels": [0]}, "label 0"),
        ({"labels": [1, 2]}, "2 labels for 1 boxes"),
        ({"scores": [1, 1, 1]}, "3 scores"),
        ({"image": GREY / 255}, "float64"),
    ):
        with pytest.raises(ValueError, match=said):
            draw_detections(**given | changes)


def test_ground_truth_is_dashed_and_difficult_is_finer():
    changes = []
    for difficult in (False, True):
        image = draw_ground_truth(GREY, boxes_xyxy_px=[[50, 50, 250, 150]], difficult=[difficult])
        top = has_colour(image, (255, 255, 255))[50, 50:250]
        assert (image[52:148, 52:248] == 128).all()
        assert 0.4 < top.mean() < 0.6
        changes.append(np.diff(top).sum())
    assert changes[1] > 2 * changes[0] > 20


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


def test_tags_lie_above_their_boxes_and_stay_inside_whole():
    box = [100, 80, 200, 160]
    whole = ink(box)
    assert ink(box, rows=slice(50, 80)) == whole > ink(box, scores=None) > 10
    odd = [[0, 0, 300, 200], [0, 0, 12, 12], [288, 188, 300, 200], [-40, -40, 30, 30], [-500, -500, 900, 900]]
    assert [ink(box) for box in odd] == [whole] * 5


def test_a_small_box_is_not_hidden_by_tags():
    rng = np.random.default_rng(0)
    for _ in range(30):
        x, y = rng.integers(0, 285), rng.integers(0, 185)
        image = drawn([[x, y, x + 10, y + 10], [0, 0, 300, 200]], [1, 2], [0.4, 0.9])
        assert (image[y + 3 : y + 7, x + 3 : x + 7] == 128).all()


def relative_luminance(colour: tuple[int, int, int]) -> float:
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_are_distinct_and_stable():
    colours = [class_colour(label) for label in range(1, 81)]
    assert len(set(colours)) == 80
    first = np.array(colours[:20], dtype=float)
    closest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(first, 2))
    assert closest > 25


def test_text_is_readable_on_every_colour():
    for label in range(1, 81):
        ground, ink = class_colour(label), text_colour(class_colour(label))
        darker, lighter = sorted([relative_luminance(ground), relative_luminance(ink)])
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5  # level AA


def sample(boxes: list[list[float]], labels: list[int], difficult: list[bool] | None = None) -> Sample:
    given, marked = np.array(boxes, np.float32).reshape(-1, 4), np.array(difficult or [False] * len(labels), bool)
    return Sample(GREY, given, np.array(labels, np.int64), marked)


def test_boxes_lie_where_they_are_annotated_whatever_the_scale_and_difficult_ones_are_dashed() -> None:
    count = MOST_TAGS + 1  # so many that none has a tag
    inks = []
    for difficult in (False, True):
        many = sample([[0.25, 0.25, 0.75, 0.5]] * count, [1] * count, [difficult] * count)
        image = draw_sample(many, ["cat"], within_px=(240, 480))
        assert image.shape == (240, 360, 3)
        rows, columns = np.nonzero(has_colour(image, class_colour(1)))
        assert (columns.min(), rows.min(), columns.max(), rows.max()) == (90, 60, 269, 119)
        inks.append(len(rows))
    assert 0.4 < inks[1] / inks[0] < 0.6


def test_few_objects_have_their_class_written_at_them_and_many_have_not() -> None:
    for count in (1, MOST_TAGS + 1):
        many = sample([[0.3, 0.4, 0.7, 0.8]] * count, [1] * count)
        cat, dog = (draw_sample(many, [name], within_px=(240, 320)) for name in ("cat", "dog"))
        assert (cat != dog).any() == (count == 1)


@pytest.mark.parametrize("name", ["", "x" * 2000, "Ünï 猫🐦\n\x1b[0m", "\udce4"])
def test_any_class_name_and_no_object_at_all(name: str) -> None:
    assert has_colour(drawn([[50, 80, 150, 160]], [1], [1], [name]), class_colour(1)).any()
    rows = [[sample([[0.3, 0.4, 0.7, 0.8]], [1]), sample([], [])]] * 3
    sheet = draw_augmentation(rows, [name], image_size=(120, 160), title="t")
    assert sheet.shape[1] == 2 * (224 + 18) + 18
    assert has_colour(sheet, class_colour(1)).any()


def test_the_legend_names_what_occurs() -> None:
    given = [sample([[0, 0, 1, 1]], [3]), sample([[0, 0, 1, 1]], [1])]
    assert [key.text for key in class_keys(given, ["a", "b", "c"])] == ["a", "c"]
    keys = class_keys([*given, sample([[0, 0, 1, 1]], [1], [True])], ["a", "b", "c"])
    assert keys[-1].text == "difficult"
    assert keys[-1].is_dashed
    names = [f"name {i}" for i in range(80)]
    many = class_keys([sample([[0, 0, 1, 1]] * 80, list(range(1, 81)))], names)
    assert many[-1].text == "and 56 more classes"


def matched(
    box: tuple[float, float, float, float], levels: list[int], *, best_iou: float = 0.7, is_forced: bool = False
) -> MatchedObject:
    priors = np.array([box] * len(levels)).reshape(-1, 4)
    return MatchedObject("cat", np.array(box), priors, np.array(levels, dtype=np.int64), best_iou, is_forced)


def test_an_object_is_described_by_its_levels() -> None:
    for levels, best_iou, is_forced, said in (
        ([2, 1, 2], 0.7, False, "1  cat: 1 on level 1, 2 on level 2, best IoU 0.70"),
        ([3], 0.31, True, "1  cat: 1 forced, level 3, best IoU 0.31"),
        ([], 0.0, False, "1  cat: no prior, best IoU 0.00"),
    ):
        assert describe_object(1, matched((0, 0, 1, 1), levels, best_iou=best_iou, is_forced=is_forced)) == said


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


def test_the_size_of_a_row_no_object_at_all_and_any_box_in_any_image() -> None:
    assert draw_matches(GREY, []).shape == (320, 480 + 18 + TEXT_PX, 3)
    small = [matched((0.1, 0.1, 0.15, 0.15), [1])] * 30
    assert draw_matches(np.zeros((50, 200, 3), dtype=np.uint8), small).shape[0] >= 120 + CLOSE_UP_PX
    sheet = draw_match_sheet([(GREY, []), (GREY, [matched((0, 0, 1, 1), [1])])], title="t")
    assert sheet.shape[0] > 640
    for box, size in (
        ((0.5, 0.5, 0.5, 0.5), (64, 64)),
        ((0.0, 0.0, 1.0, 1.0), (1, 1)),
        ((0.999, 0.999, 1.0, 1.0), (3, 200)),
    ):
        image = np.zeros((*size, 3), dtype=np.uint8)
        assert draw_matches(image, [matched(box, [], best_iou=0.0)]).dtype == np.uint8
