"""Faults judged from plain values."""

import numpy as np
import pytest

from ssd_lightning.analysis.findings import KINDS, Finding, grouped, in_order, spoils_the_run
from ssd_lightning.analysis.health import (
    PHRASES,
    amount_findings,
    class_number_findings,
    duplicate_findings,
    kind_of,
    pixel_origin_findings,
    tiny_findings,
    unused_class_findings,
)
from ssd_lightning.analysis.objects import Objects, split_summary


def unknown(number: object) -> str:
    return f"labels/a.txt: line 3 '{number}' is of none of the 3 classes: cat, dog, bird"


@pytest.mark.parametrize(
    ("numbers", "counts", "found"),
    [
        ([3, 3], [0, 4, 5], "one too high"),  # counts from 1 in a list that counts from 0
        ([4], [0, 4, 5], "one too high"),  # the same in a list that counts from 1
        ([0], [3, 4, 0], "one too low"),
        ([3], [1, 4, 5], None),  # the first class occurs: one object is wrong, not all
        ([0], [3, 4, 1], None),
        ([7], [0, 4, 5], None),  # far beyond the end
        ([3, 9], [0, 4, 5], None),
        (["dgo"], [0, 4, 5], None),
        ([], [0, 4, 5], None),
    ],
)
def test_class_numbers(numbers: list[object], counts: list[int], found: str | None) -> None:
    findings = class_number_findings("train", [unknown(number) for number in numbers], counts, ("cat", "dog", "bird"))
    assert len(findings) == (found is not None)
    assert all(found in finding.sentence and finding.severity == "error" for finding in findings if found)


@pytest.mark.parametrize(
    ("pictures", "objects", "left_out", "trained", "kinds"),
    [
        (10, 100, 11, True, []),
        (10, 100, 12, True, ["left_out"]),
        (0, 0, 3, False, ["nothing_left"]),
        (4, 0, 0, True, ["nothing_left"]),
        (4, 0, 0, False, []),
    ],
)
def test_amounts(pictures: int, objects: int, left_out: int, trained: bool, kinds: list[str]) -> None:
    found = amount_findings("x", pictures=pictures, objects=objects, left_out=left_out, is_trained_on=trained)
    assert [finding.kind for finding in found] == kinds


def test_duplicates_within_and_across() -> None:
    digests = {
        "train": {"a": "1", "b": "2", "c": "1", "d": "1"},
        "val": {"e": "2", "f": "3"},
        "test": {"g": "2", "f": "3"},
    }
    found = {(finding.kind, finding.split, finding.sentence) for finding in duplicate_findings(digests)}
    assert found == {
        ("within", "train", "c: the same pixels as a"),
        ("within", "train", "d: the same pixels as a"),
        ("across", "train, val", "e of val: the same pixels as b, which is in train"),
        ("across", "train, test", "g of test: the same pixels as b, which is in train"),
        ("across", "val, test", "g of test: the same pixels as e, which is in val"),
        ("across", "val, test", "f of test: the same file is in val"),
    }


@pytest.mark.parametrize(
    ("at_zero", "at_one", "offset", "found"),
    [(9, 2, 1, True), (4, 0, 1, False), (9, 20, 1, False), (0, 5, 0, True), (0, 4, 0, False), (1, 50, 0, False)],
)
def test_where_pixels_count_from(at_zero: int, at_one: int, offset: int, found: bool) -> None:
    assert len(pixel_origin_findings("train", at_zero=at_zero, at_one=at_one, offset=offset)) == found


OBJECTS = Objects(
    picture=np.array([0, 0, 2, 2]),
    boxes_xyxy=np.array([[0, 0, 0.5, 0.5], [0, 0, 0.02, 0.5], [0, 0, 0.5, 0.04], [0, 0, 0.021, 0.041]]),
    labels=np.array([1, 2, 1, 1]),
    difficult=np.array([False, True, False, False]),
)


def test_tiny_boxes_are_judged_in_the_input() -> None:
    found = tiny_findings("train", OBJECTS, ["a", "b", "c"], ["x", "y"], image_size=(100, 200), tiny_px=4.05)
    assert [finding.sentence for finding in found] == [
        "a: sound object 2 'y' is 4.0 x 50.0 px in the input of 200 x 100 px",
        "c: sound object 1 'x' is 100.0 x 4.0 px in the input of 200 x 100 px",
    ]


def test_counts() -> None:
    assert split_summary(OBJECTS, ["x", "y", "z"], pictures=4, left_out=1) == {
        "pictures": 4,
        "objects": 4,
        "difficult": 1,
        "pictures_without_objects": 2,
        "left_out": 1,
        "classes": {
            "x": {"objects": 3, "difficult": 0, "pictures": 2},
            "y": {"objects": 1, "difficult": 1, "pictures": 1},
            "z": {"objects": 0, "difficult": 0, "pictures": 0},
        },
    }
    assert [finding.sentence for finding in unused_class_findings("train", [3, 1, 0], ["x", "y", "z"])] == [
        "train: class 3 'z' has no object"
    ]


def test_kinds_and_order() -> None:
    assert {kind for _, kind in PHRASES} <= KINDS.keys()
    assert kind_of("a.xml: object 1 'x' is inverted: xmin 5 is greater than xmax 3", "annotation") == "inverted"
    assert kind_of("something else", "annotation") == "annotation"
    tiny, torn = Finding("warning", "tiny", "train", "t"), Finding("error", "picture", "train", "p")
    across, again = Finding("error", "across", "train, val", "a"), Finding("error", "picture", "val", "p")
    assert in_order([tiny, torn, again, across]) == [across, torn, tiny]
    groups = grouped([tiny, torn, across])
    assert [(group["severity"], group["kind"], len(group["items"])) for group in groups] == [
        ("error", "across", 1),
        ("error", "picture", 1),
        ("warning", "tiny", 1),
    ]
    assert spoils_the_run([tiny, torn])
    assert not spoils_the_run([tiny])
    assert grouped([]) == []
