"""Data sets opened to be looked at, whatever is wrong with them."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import planted
from helpers.datasets import open_csv, opener
from ssd_lightning.data.annotation_checks import Problem
from ssd_lightning.data.annotations import ImageAnnotation
from ssd_lightning.data.formats import CSV, VOC
from ssd_lightning.data.inspection import (
    ImageFacts,
    count_edges,
    draw_sample,
    inspect_images,
    measured_by_image,
    open_leniently,
)
from ssd_lightning.errors import DataError


def record(path: Path, size_px: tuple[int, int] = (30, 40)) -> ImageAnnotation:
    return ImageAnnotation(
        path.stem, path, size_px, np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, bool)
    )


def test_all_faults_of_the_annotation_are_collected(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images, _ = planted.planted("csv")
    planted.write("csv", tmp_path, images)
    splits = [{"root": str(tmp_path), "split": "train"}]
    with pytest.raises(DataError):
        open_csv(splits=splits, class_names=planted.CLASSES)

    with caplog.at_level(logging.WARNING):
        opened = open_leniently(opener(CSV), splits=splits, class_names=planted.CLASSES)

    assert "skipped" not in caplog.text  # it is in the report
    strict = open_csv(on_error="skip", class_names=planted.CLASSES, splits=splits)
    lost = {"torn", "prose", "resized", "shrunk", "swollen"}  # which only decoding shows
    assert {record.image_id for record in opened.annotations} == {
        record.image_id for record in strict.annotations
    } | lost
    *others, of_shrunk = sorted(map(str, opened.dropped), key=lambda sentence: "shrunk" in sentence)
    told = map(str, strict.dropped)
    assert set(others) == {sentence for sentence in told if not any(name in sentence for name in lost)}
    # Its boxes lie outside the size that is stated, but in the image; that is decoded for it.
    assert f"{tmp_path}/train/shrunk.jpg: the image is 160 x 120 px" in of_shrunk


def test_a_split_of_which_nothing_is_left_can_be_opened_and_a_broken_list_cannot(tmp_path: Path) -> None:
    planted.write("csv", tmp_path, [planted.ImageSpec("gone", file="missing")])
    opened = open_leniently(opener(CSV), splits=[{"root": str(tmp_path), "split": "train"}])
    assert len(opened) == 0
    assert len(opened.dropped) == 1
    assert opened.class_names == ("bird", "cat", "dog")
    (tmp_path / "train.csv").write_text("nothing,of,this\n")
    with pytest.raises(DataError, match="no column for the image"):
        open_leniently(opener(CSV), splits=[{"root": str(tmp_path), "split": "train"}])


def test_pixels_make_the_digest_and_nothing_else(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "b.bmp")
    Image.fromarray(pixels).convert("RGBA").save(tmp_path / "c.png")
    other = pixels.copy()
    other[29, 39, 2] ^= 1
    Image.fromarray(other).save(tmp_path / "d.png")
    Image.fromarray(pixels.reshape(40, 30, 3)).save(tmp_path / "e.png")
    paths = sorted(tmp_path.iterdir())
    done = []

    facts = inspect_images([record(path) for path in [*paths, paths[0]]], advance=lambda: done.append(1))

    digests = [facts[path].digest for path in paths]
    assert digests[0] == digests[1] == digests[2]
    assert len({*digests}) == 3
    assert facts[paths[4]].problem is not None
    assert "its annotation says 40 x 30" in str(facts[paths[4]].problem)
    assert [facts[path].problem for path in paths[:4]] == [None] * 4
    assert len(done) == 5  # a file that is named twice is decoded once


def test_broken_images_have_a_problem_and_no_digest(tmp_path: Path) -> None:
    planted.write(
        "voc",
        tmp_path,
        [planted.ImageSpec("torn", file="truncated"), planted.ImageSpec("prose", file="text")],
    )
    facts = inspect_images([record(tmp_path / f"JPEGImages/{name}.jpg", (120, 160)) for name in ("torn", "prose")])
    for path, fact in facts.items():
        assert fact.digest is None
        assert str(path) in str(fact.problem)
    assert inspect_images([]) == {}


def test_a_record_is_measured_by_its_image() -> None:
    boxes = np.array([[1, 2, 30, 30], [1, 2, 40.5, 31], [1, 2, 42, 9], [40.2, 2, 40.9, 9], [50, 2, 60, 9]], np.float32)
    labels = np.arange(1, 6)
    stated = ImageAnnotation("a", Path("a.jpg"), (60, 80), boxes, labels, labels > 1)

    def facts(size_px: tuple[int, int] | None) -> ImageFacts:
        return ImageFacts(
            stated.image_path, "digest", size_px, Problem(file="a.jpg", kind="image_size", text="differs")
        )

    measured = measured_by_image(stated, facts((30, 40)))
    assert measured.size_px == (30, 40)
    assert measured.boxes_xyxy_px.tolist() == [[1, 2, 30, 30], [1, 2, 40, 30]]
    assert measured.labels.tolist() == [1, 2]
    assert measured.difficult.tolist() == [False, True]
    grown = measured_by_image(stated, facts((600, 800)))
    assert grown.boxes_xyxy_px.tolist() == boxes.tolist()
    for known in (None, facts((60, 80)), facts(None)):
        assert measured_by_image(stated, known) is stated
    assert len(measured_by_image(record(Path("b.jpg")), facts((1, 1))).labels) == 0


def test_a_sample_is_drawn_from_all_splits_together() -> None:
    records = {name: [record(Path(f"{name}{i}.jpg")) for i in range(count)] for name, count in (("a", 30), ("b", 10))}
    assert draw_sample(records, None, seed=0) == records
    assert draw_sample(records, 99, seed=0) == records
    sample = draw_sample(records, 12, seed=0)
    assert sum(map(len, sample.values())) == 12
    assert all(len(sample[name]) > 0 for name in records)
    names = [r.image_id for r in sample["a"]]
    assert names == sorted(names, key=lambda name: int(name[1:]))
    assert draw_sample(records, 12, seed=0) == sample != draw_sample(records, 12, seed=1)
    assert draw_sample({}, 5, seed=0) == {}


@pytest.mark.parametrize("offset", [0, 1])
def test_edges_in_the_first_pixel(tmp_path: Path, offset: int) -> None:
    planted.write_voc_from(offset, tmp_path)
    counted = count_edges(opener(VOC, xml_offset=1), [{"root": str(tmp_path), "split": "train"}])
    assert counted == ((6, 0) if offset == 0 else (0, 6))
