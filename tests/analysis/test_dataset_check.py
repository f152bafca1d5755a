"""Data sets opened to be looked at, whatever is wrong with them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import planted
from helpers.datasets import annotation, opener
from helpers.pixels import noise
from ssd_lightning.analysis.dataset_check.opening import count_edges
from ssd_lightning.analysis.dataset_check.splits import ImageFacts, draw_sample, inspect_images, measured_by_image
from ssd_lightning.data.annotation_checks import Problem
from ssd_lightning.data.formats import VOC


def test_pixels_make_the_digest_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels = noise(30, 40)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "b.bmp")
    Image.fromarray(pixels).convert("RGBA").save(tmp_path / "c.png")
    other = pixels.copy()
    other[29, 39, 2] ^= 1
    Image.fromarray(other).save(tmp_path / "d.png")
    Image.fromarray(pixels.reshape(40, 30, 3)).save(tmp_path / "e.png")
    paths = sorted(tmp_path.iterdir())
    with caplog.at_level("INFO"):
        facts = inspect_images([annotation(path, size_px=(30, 40)) for path in [*paths, paths[0]]])

    digests = [facts[path].digest for path in paths]
    assert digests[0] == digests[1] == digests[2]
    assert len({*digests}) == 3
    assert facts[paths[4]].problem is not None
    assert "its annotation says 40 x 30" in str(facts[paths[4]].problem)
    assert [facts[path].problem for path in paths[:4]] == [None] * 4
    assert caplog.messages == ["decoding 5 images"]  # a file that is named twice is decoded once


def test_a_record_is_measured_by_its_image() -> None:
    boxes, labels = [[1, 2, 30, 30], [1, 2, 40.5, 31], [1, 2, 42, 9], [40.2, 2, 40.9, 9]], np.arange(1, 5)
    stated = annotation(size_px=(60, 80), boxes=boxes, labels=labels, difficult=labels > 1)

    def facts(size_px: tuple[int, int] | None) -> ImageFacts:
        return ImageFacts(stated.image_path, "digest", size_px, Problem(file="a", kind="image_size", text="differs"))

    measured = measured_by_image(stated, facts((30, 40)))
    assert measured.size_px == (30, 40)
    assert measured.boxes_xyxy_px.tolist() == [[1, 2, 30, 30], [1, 2, 40, 30]]
    assert measured.labels.tolist() == [1, 2]
    assert measured.difficult.tolist() == [False, True]
    np.testing.assert_allclose(measured_by_image(stated, facts((600, 800))).boxes_xyxy_px, boxes)
    for known in (None, facts((60, 80)), facts(None)):
        assert measured_by_image(stated, known) is stated
    assert len(measured_by_image(annotation(), facts((1, 1))).labels) == 0


def test_a_sample_is_drawn_from_all_splits_together() -> None:
    records = {name: [annotation(f"{name}{i}") for i in range(count)] for name, count in (("a", 30), ("b", 10))}
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
