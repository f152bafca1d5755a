"""A fingerprint tells every change of a split, names what changed, and is the same everywhere else."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.datasets import annotation
from ssd_lightning.data.annotations import AnnotationTable, ImageAnnotation
from ssd_lightning.data.fingerprint import WHAT_DIFFERS, checksum, differences, fingerprint

CLASSES = ("cat", "dog")


def fingerprint_of(records: Sequence[ImageAnnotation], **settings: bool) -> dict[str, object]:
    return fingerprint(AnnotationTable.of(records), CLASSES, **settings)


def records(folder: Path, count: int = 4) -> list[ImageAnnotation]:
    made = []
    for index in range(count):
        path = folder / f"{index}.jpg"
        if not path.exists():
            path.write_bytes(bytes([index]) * (100 + index))
        made.append(annotation(path, size_px=(20, 30), boxes=np.arange(4 * index).reshape(-1, 4)))
    return made


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (slice(0, 3), "images objects names boxes bytes files"),
        (slice(0), "images objects names boxes bytes files"),
        (slice(None, None, -1), "names boxes files"),
        ({"image_id": "x"}, "names"),
        ({"boxes_xyxy_px": np.arange(12, dtype=np.float32).reshape(3, 4) + np.float32(1e-3)}, "boxes"),
        ({"labels": np.array([1, 1, 2])}, "boxes"),
        ({"difficult": np.ones(3, bool)}, "boxes"),
        ({"size_px": (30, 20)}, "boxes"),
        ({"image_path": Path("nothing.jpg")}, "bytes files"),
    ],
    ids=str,
)
def test_a_change_is_reported_by_name(tmp_path: Path, change: slice | dict[str, Any], expected: str) -> None:
    before = records(tmp_path)
    now = before[change] if isinstance(change, slice) else [*before[:-1], replace(before[-1], **change)]
    told = differences(fingerprint_of(before), fingerprint_of(now))
    found = [key for key, text in WHAT_DIFFERS.items() if any(one.startswith(text) for one in told)]
    assert sorted(found) == sorted(expected.split())
    assert len(told) == len(found)


def test_nothing_class_names_and_contents(tmp_path: Path) -> None:
    before = fingerprint_of(records(tmp_path))
    assert differences(before, fingerprint_of(records(tmp_path))) == []
    assert differences({}, before) == differences(before, {}) == []
    other = fingerprint(AnnotationTable.of(records(tmp_path)), CLASSES[::-1])  # names count in their order
    assert differences(other, before) == ["the class names"]
    with_contents = fingerprint_of(records(tmp_path), contents=True)
    (tmp_path / "2.jpg").write_bytes(bytes(102))
    now = fingerprint_of(records(tmp_path), contents=True)
    assert differences(before, now) == []
    assert differences(with_contents, now) == ["the contents of the image files"]
    assert checksum(tmp_path / "nothing") == ""


@settings(deadline=None, max_examples=20)
@given(first=st.lists(st.text("abé", max_size=3), max_size=4), second=st.lists(st.text("abé", max_size=3), max_size=4))
def test_names_are_not_joined(first: list[str], second: list[str]) -> None:
    """Twin: the lists themselves."""
    made = [fingerprint_of([annotation(image_id=name) for name in names])["names"] for names in (first, second)]
    assert (made[0] == made[1]) == (first == second)


def test_a_fingerprint_stays_the_same_in_every_process_and_release(tmp_path: Path) -> None:
    """Otherwise a run that continues would report other data."""
    assert fingerprint_of(records(tmp_path), contents=True) == {
        "images": 4,
        "objects": 6,
        "classes": "4d02965a085dd181",
        "names": "cc8b8a6c198a4122",
        "boxes": "03c28396a800a91d",
        "bytes": 406,
        "files": "4b3dca8a4ad0f3cf",
        "contents": "c1df2e536a3beeb3",
    }
