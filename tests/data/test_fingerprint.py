"""A fingerprint tells every change of a split, names what changed, and is the same everywhere else."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

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


Change = Callable[[list[ImageAnnotation]], Sequence[ImageAnnotation]]
CHANGES: dict[str, tuple[Change, set[str]]] = {
    "one less": (lambda r: r[:-1], {"images", "objects", "names", "boxes", "bytes", "files"}),
    "none": (lambda r: [], {"images", "objects", "names", "boxes", "bytes", "files"}),
    "other order": (lambda r: r[::-1], {"names", "boxes", "files"}),
    "another name": (lambda r: [replace(r[0], image_id="x"), *r[1:]], {"names"}),
    "a moved box": (
        lambda r: [*r[:-1], replace(r[-1], boxes_xyxy_px=r[-1].boxes_xyxy_px + np.float32(1e-3))],
        {"boxes"},
    ),
    "a label": (lambda r: [*r[:-1], replace(r[-1], labels=r[-1].labels + 1)], {"boxes"}),
    "a flag": (lambda r: [*r[:-1], replace(r[-1], difficult=~r[-1].difficult)], {"boxes"}),
    "a size": (lambda r: [replace(r[0], size_px=(30, 20)), *r[1:]], {"boxes"}),
    "a missing file": (lambda r: [replace(r[0], image_path=Path("nothing.jpg")), *r[1:]], {"bytes", "files"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_reported_by_name(tmp_path: Path, name: str) -> None:
    change, expected = CHANGES[name]
    before, now = fingerprint_of(records(tmp_path)), fingerprint_of(change(records(tmp_path)))
    told = differences(before, now)
    assert {key for key, text in WHAT_DIFFERS.items() if any(one.startswith(text) for one in told)} == expected
    assert len(told) == len(expected)


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
