"""A fingerprint tells every change of a split, names what changed, and is the same everywhere else."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        boxes = np.arange(4 * index, dtype=np.float32).reshape(-1, 4)
        labels, difficult = np.ones(index, dtype=np.int64), np.zeros(index, dtype=bool)
        made.append(ImageAnnotation(str(index), path, (20, 30), boxes, labels, difficult))
    return made


def changed(record: ImageAnnotation, **values: object) -> ImageAnnotation:
    return dataclasses.replace(record, **values)  # type: ignore[arg-type]


Change = Callable[[list[ImageAnnotation]], Sequence[ImageAnnotation]]
CHANGES: dict[str, tuple[Change, set[str]]] = {
    "one less": (lambda r: r[:-1], {"images", "objects", "names", "boxes", "bytes", "files"}),
    "none": (lambda r: [], {"images", "objects", "names", "boxes", "bytes", "files"}),
    "other order": (lambda r: r[::-1], {"names", "boxes", "files"}),
    "another name": (lambda r: [changed(r[0], image_id="x"), *r[1:]], {"names"}),
    "a moved box": (
        lambda r: [*r[:-1], changed(r[-1], boxes_xyxy_px=r[-1].boxes_xyxy_px + np.float32(1e-3))],
        {"boxes"},
    ),
    "a label": (lambda r: [*r[:-1], changed(r[-1], labels=r[-1].labels + 1)], {"boxes"}),
    "a flag": (lambda r: [*r[:-1], changed(r[-1], difficult=~r[-1].difficult)], {"boxes"}),
    "a size": (lambda r: [changed(r[0], size_px=(30, 20)), *r[1:]], {"boxes"}),
    "a missing file": (lambda r: [changed(r[0], image_path=Path("nothing.jpg")), *r[1:]], {"bytes", "files"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_reported_by_name(tmp_path: Path, name: str) -> None:
    change, expected = CHANGES[name]
    before, now = fingerprint_of(records(tmp_path)), fingerprint_of(change(records(tmp_path)))
    told = differences(before, now)
    assert {
        key for key, overrides in WHAT_DIFFERS.items() if any(text.startswith(overrides) for text in told)
    } == expected
    assert len(told) == len(expected)


def test_nothing_class_names_and_contents(tmp_path: Path) -> None:
    before = fingerprint_of(records(tmp_path))
    assert differences(before, fingerprint_of(records(tmp_path))) == []
    assert [before[key] for key in ("images", "objects", "bytes")] == [4, 6, 406]
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
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
    made = [
        fingerprint_of([ImageAnnotation(name, Path("nothing"), (1, 1), *none) for name in names])["names"]
        for names in (first, second)
    ]
    assert (made[0] == made[1]) == (first == second)


@pytest.mark.slow
def test_another_process_finds_the_same(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from test_fingerprint import fingerprint_of, records\n"
        "print(fingerprint_of(records(Path(sys.argv[2])), contents=True))\n"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == str(fingerprint_of(records(tmp_path), contents=True))
