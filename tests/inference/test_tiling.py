"""Detection in tiles: what a perfect detector finds, it also finds in tiles, once."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.results import ImageDetections
from ssd_lightning.inference.tiling import covered_fragments, touches_inner_edge
from ssd_lightning.models.postprocess import PostProcess

CELL = 48


class PerfectFinder(Detector):
    """Finds the visible part of every object. A pixel of an object is (label, number of the object, 0)."""

    def __init__(self, **postprocess: object) -> None:
        self.class_names = ("boat", "car")
        self.postprocess = PostProcess(**postprocess)  # type: ignore[arg-type]
        self.tiling = None
        self.batches: list[int] = []

    def _detect_batch(self, images: Sequence[np.ndarray]) -> list[ImageDetections]:
        self.batches.append(len(images))
        return [self._find(image) for image in images]

    def _find(self, image: np.ndarray) -> ImageDetections:
        numbers = [number for number in np.unique(image[..., 1]) if number]
        places = [np.nonzero(image[..., 1] == number) for number in numbers]
        boxes = [(x.min(), y.min(), x.max() + 1, y.max() + 1) for y, x in places]
        return ImageDetections(
            image,
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array([1 - number / 256 for number in numbers], np.float32),
            np.array([image[y[0], x[0], 0] for y, x in places], np.int64),
            self.class_names,
        )


def painted(size_px: tuple[int, int], boxes: Sequence[tuple[int, int, int, int]], labels: Sequence[int]) -> np.ndarray:
    image = np.zeros((*size_px, 3), np.uint8)
    for number, ((x1, y1, x2, y2), label) in enumerate(zip(boxes, labels, strict=True), start=1):
        image[y1:y2, x1:x2] = (label, number, 0)
    return image


def assert_same(found: ImageDetections, expected: ImageDetections) -> None:
    for name in ("image", "boxes_xyxy_px", "scores", "labels"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@st.composite
def images(draw: st.DrawFn, largest: int) -> np.ndarray:
    """Up to one object in each cell of a grid."""
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    boxes, labels = [], []
    for cell in range(rows * columns):
        width, height = draw(st.integers(0, largest)), draw(st.integers(0, largest))
        if width and height:
            x = cell % columns * CELL + draw(st.integers(0, CELL - width))
            y = cell // columns * CELL + draw(st.integers(0, CELL - height))
            boxes.append((x, y, x + width, y + height))
            labels.append(draw(st.integers(1, 2)))
    return painted((rows * CELL, columns * CELL), boxes, labels)


@settings(max_examples=30, deadline=None)
@given(image=images(largest=24))
def test_small_objects_are_found_once_and_whole(image: np.ndarray) -> None:
    finder = PerfectFinder()
    assert_same(finder.with_tiles(96, overlap=0.25, whole_image=False)(image), finder(image))


@settings(max_examples=30, deadline=None)
@given(image=images(largest=CELL), overlap=st.sampled_from([0.0, 0.3]))
def test_the_whole_image_has_the_objects_that_all_tiles_cut(image: np.ndarray, overlap: float) -> None:
    finder = PerfectFinder()
    assert_same(finder.with_tiles(40, overlap=overlap)(image), finder(image))


def test_without_the_whole_image_the_largest_part_stays() -> None:
    image = painted((96, 160), [(50, 10, 140, 40)], [2])  # tiles from 0 and from 64
    found = PerfectFinder().with_tiles(96, overlap=0.25, whole_image=False)(image)
    assert found.boxes_xyxy_px.tolist() == [[64, 10, 140, 40]]
    assert found.names == ["car"]


@pytest.mark.parametrize(
    ("cover", "dropped"),
    [
        ({}, True),
        ({"score": 0.4}, False),  # too unsure
        ({"label": 2}, False),
        ({"view": 0}, False),
        ({"box": (92, 0, 200, 20)}, False),  # covers 2 of 5
        ({"box": (80, 0, 100, 10)}, False),  # lies within the fragment
    ],
)
def test_which_box_drops_a_fragment(cover: dict, dropped: bool) -> None:
    boxes = np.array([(80, 0, 100, 20), cover.get("box", (78, 0, 120, 20))], np.float32)
    args = {
        "scores": np.array([0.9, cover.get("score", 0.5)]),
        "group": np.array([1, cover.get("label", 1)]),
        "view": np.array([0, cover.get("view", 1)]),
        "touches": np.array([True, False]),
    }
    assert covered_fragments(boxes, **args).tolist() == [dropped, False]
    args["touches"] = np.array([False, False])
    assert not covered_fragments(boxes, **args).any()


def test_edges_of_the_image_are_no_inner_edges() -> None:
    windows = np.array([(0, 0, 100, 100), (100, 0, 200, 100)], np.float32)
    left, right = np.array([(0, 0, 30, 100)] * 2, np.float32), np.array([(101, 20, 199, 60), (170, 0, 200, 100)])
    assert touches_inner_edge(left, windows[[0, 0]], (100, 200)).tolist() == [False, False]
    assert touches_inner_edge(right, windows[[1, 1]], (100, 200)).tolist() == [True, False]


def test_tiles_of_all_images_share_batches_and_sources_stay(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, size_px in zip(paths, [(64, 160), (160, 64), (20, 30)], strict=True):
        Image.fromarray(painted(size_px, [(3, 4, 9, 12)], [1])).save(path)
    finder = PerfectFinder()
    found = finder.with_tiles(64, overlap=0)(paths, batch_size=4)
    assert finder.batches == [4, 4, 1]  # three tiles and the whole image, twice, and a small image
    assert [one.source for one in found] == [str(path) for path in paths]
    for one, alone in zip(found, finder(paths), strict=True):
        assert_same(one, alone)
    assert finder.with_tiles(64)([]) == []


def test_a_limit_holds_for_the_whole_image_and_no_object_is_a_case() -> None:
    image = painted((64, 200), [(x, 10, x + 8, 20) for x in range(0, 200, 20)], [1] * 10)
    finder = PerfectFinder(max_detections=3)
    np.testing.assert_allclose(finder.with_tiles(64)(image).scores, [255 / 256, 254 / 256, 253 / 256])
    empty = finder.with_tiles(64)(np.zeros((90, 200, 3), np.uint8))
    assert (empty.boxes_xyxy_px.shape, len(empty)) == ((0, 4), 0)
