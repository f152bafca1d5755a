import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from ssd_lightning.data.toy_scene import ToyObject, draw_toy_image
from ssd_lightning.data.toy_shapes import TOY_CLASSES

SIZE_PX = (192, 192)


@pytest.fixture(scope="module")
def images() -> list[tuple[np.ndarray, list[ToyObject]]]:
    return [draw_toy_image(seed=7, split="train", index=i, size_px=SIZE_PX) for i in range(100)]


@pytest.fixture(scope="module")
def objects(images: list[tuple[np.ndarray, list[ToyObject]]]) -> list[ToyObject]:
    return [item for _, items in images for item in items]


def longer_side(item: ToyObject) -> int:
    x1, y1, x2, y2 = item.box_xyxy_px
    return max(x2 - x1, y2 - y1)


def test_boxes_are_tight_around_visible_pixels_of_their_own_and_apart_enough_for_nms(images):
    for _, items in images:
        for item in items:
            rows, columns = np.nonzero(item.visible_mask)
            assert item.box_xyxy_px == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert sum((item.visible_mask.astype(int) for item in items), np.zeros(1)).max() <= 1
        boxes = torch.tensor([item.box_xyxy_px for item in items]).reshape(-1, 4)
        assert (box_iou(boxes, boxes).fill_diagonal_(0) <= 0.45).all()


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
    assert len(distances) > 50
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


def test_nothing_is_hidden_and_what_is_hard_to_see_is_difficult(objects):
    for item in objects:
        assert item.visible_share >= 0.2
        assert item.visible_mask.sum() >= 12
        assert item.difficult or (item.visible_share >= 0.5 and longer_side(item) >= 15 and item.contrast >= 20)


def test_shares_of_empty_difficult_and_overlapped(images, objects):
    counts = [len(items) for _, items in images]
    assert 0.01 < counts.count(0) / len(counts) < 0.12
    assert max(counts) == 6
    assert 0.02 < np.mean([item.difficult for item in objects]) < 0.10
    assert 0.15 < np.mean([item.visible_share < 0.95 for item in objects]) < 0.40
