import cv2
import numpy as np
import pytest

from ssd_lightning.data.toy_scene import ToyObject, draw_toy_image
from ssd_lightning.data.toy_shapes import TOY_CLASSES

SIZE_PX = (192, 192)


@pytest.fixture(scope="module")
def images() -> list[tuple[np.ndarray, list[ToyObject]]]:
    return [draw_toy_image(seed=7, split="train", index=i, size_px=SIZE_PX) for i in range(300)]


@pytest.fixture(scope="module")
def objects(images: list[tuple[np.ndarray, list[ToyObject]]]) -> list[ToyObject]:
    return [item for _, items in images for item in items]


def longer_side(item: ToyObject) -> int:
    x1, y1, x2, y2 = item.box_xyxy_px
    return max(x2 - x1, y2 - y1)


def test_boxes_are_tight_around_the_visible_pixels(objects):
    for item in objects:
        rows, columns = np.nonzero(item.visible_mask)
        assert item.box_xyxy_px == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_no_pixel_belongs_to_two_objects(images):
    for _, items in images:
        if items:
            assert sum(item.visible_mask.astype(int) for item in items).max() == 1


def test_masks_lie_where_the_image_changes_colour(images):
    distances = []
    for image, items in images:
        lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        for item in items:
            if not item.difficult and longer_side(item) > 20 and item.visible_share > 0.9:
                mask = item.visible_mask.astype(np.uint8)
                inside = cv2.erode(mask, np.ones((3, 3))) > 0
                outside = cv2.dilate(mask, np.ones((7, 7))) > cv2.dilate(mask, np.ones((3, 3)))
                difference = np.median(lab[inside], 0) - np.median(lab[outside], 0)
                distances.append(np.linalg.norm(difference))
    assert len(distances) > 100
    assert np.quantile(distances, 0.03) > 15


def test_every_mask_has_the_shape_of_its_class(images):
    # Area over that of the ellipse with the same second moments: the same for all affine images of a shape.
    hole = 0.58**2
    expected = {
        "disk": 1.0,
        "square": 3 / np.pi,
        "triangle": 3 * np.sqrt(3) / (2 * np.pi),
        "ring": (1 - hole) / (1 + hole),
    }
    seen = set()
    for _, items in images:
        if len(items) == 1 and not items[0].truncated and longer_side(items[0]) > 40:
            covariance = np.cov(np.argwhere(items[0].visible_mask).T)
            fullness = items[0].visible_mask.sum() / (4 * np.pi * np.sqrt(np.linalg.det(covariance)))
            name = TOY_CLASSES[items[0].label - 1]
            seen.add(name)
            if name == "star":
                assert 0.6 < fullness < 0.79
            else:
                assert fullness == pytest.approx(expected[name], abs=0.03)
    assert seen == set(TOY_CLASSES)


def test_visible_share_is_one_for_a_lone_whole_object(images):
    lone = [items[0] for _, items in images if len(items) == 1 and not items[0].truncated]
    assert len(lone) > 20
    assert min(item.visible_share for item in lone) > 0.9


def test_difficult_follows_its_rule_and_nothing_is_hidden(objects):
    for item in objects:
        hard = item.visible_share < 0.5 or longer_side(item) < 0.08 * 192 or item.contrast < 20
        assert item.difficult == hard
        assert item.visible_share >= 0.2
        assert item.visible_mask.sum() >= 12


def test_truncated_objects_touch_the_border(objects):
    truncated = [item for item in objects if item.truncated]
    assert 0.03 < len(truncated) / len(objects) < 0.2
    lost = sum(not (item.visible_mask[[0, -1]].any() or item.visible_mask[:, [0, -1]].any()) for item in truncated)
    assert lost <= 0.2 * len(truncated)  # the part at the border may be covered, or thinner than a pixel


def test_scales_reach_from_small_to_large(objects):
    whole = [longer_side(item) / 192 for item in objects if item.visible_share > 0.95 and not item.truncated]
    assert 0.045 <= min(whole) < 0.07
    assert 0.6 < max(whole) <= 0.81


def test_classes_are_balanced_and_not_reported_by_size_or_colour(images):
    sides: dict[int, list[int]] = {label: [] for label in range(1, len(TOY_CLASSES) + 1)}
    colours: dict[int, list[np.ndarray]] = {label: [] for label in sides}
    for image, items in images:
        for item in items:
            sides[item.label].append(longer_side(item))
            colours[item.label].append(image[item.visible_mask].mean(0))
    total = sum(len(values) for values in sides.values())
    overall = np.concatenate([colours[label] for label in sides])
    for label in sides:
        assert len(sides[label]) / total == pytest.approx(1 / len(TOY_CLASSES), abs=0.05)
        assert np.median(sides[label]) == pytest.approx(46, rel=0.25)
        assert np.abs(np.mean(colours[label], 0) - overall.mean(0)).max() < 20


def test_shares_of_empty_difficult_and_overlapped(images, objects):
    counts = [len(items) for _, items in images]
    assert 0.02 < counts.count(0) / len(counts) < 0.10
    assert max(counts) == 6
    assert 0.02 < np.mean([item.difficult for item in objects]) < 0.10
    assert 0.15 < np.mean([item.visible_share < 0.95 for item in objects]) < 0.40


def test_boxes_stay_apart_enough_for_suppression(images):
    for _, items in images:
        for i, item in enumerate(items):
            for other in items[:i]:
                assert _iou(item.box_xyxy_px, other.box_xyxy_px) <= 0.45


def _iou(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    canvas = np.zeros((2, *SIZE_PX), dtype=bool)
    for plane, (x1, y1, x2, y2) in zip(canvas, (a, b), strict=True):
        plane[y1:y2, x1:x2] = True
    return (canvas[0] & canvas[1]).sum() / (canvas[0] | canvas[1]).sum()


def test_images_of_other_shapes():
    image, items = draw_toy_image(seed=0, split="val", index=1, size_px=(100, 240))
    assert image.shape == (100, 240, 3)
    assert all(item.visible_mask.shape == (100, 240) for item in items)
