"""Faults judged from plain values."""

from typing import get_args

import numpy as np
import pytest

from helpers.annotation_tools import VOC_CLASSES
from ssd_lightning.analysis.health import (
    amount_issues,
    background_issues,
    class_number_issues,
    duplicate_issues,
    few_images_issues,
    pixel_origin_issues,
    rare_class_issues,
    reader_issues,
    similar_class_issues,
    tiny_issues,
    unscored_issues,
    unused_class_issues,
)
from ssd_lightning.analysis.issues import KINDS, Issue, grouped, in_order, spoils_the_run
from ssd_lightning.analysis.objects import Objects, split_summary
from ssd_lightning.data.annotation_checks import Problem, ProblemKind


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
    problems = [Problem(file="a.txt", kind="unknown_class", name=str(number), text="is unknown") for number in numbers]
    issues = class_number_issues("train", problems, counts, ("cat", "dog", "bird"))
    assert len(issues) == (found is not None)
    assert all(found in issue.sentence and issue.severity == "error" for issue in issues if found)


@pytest.mark.parametrize(
    ("images", "objects", "left_out", "trained", "kinds"),
    [
        (10, 100, 11, True, []),
        (10, 100, 12, True, ["left_out"]),
        (0, 0, 3, False, ["nothing_left"]),
        (4, 0, 0, True, ["nothing_left"]),
        (4, 0, 0, False, []),
    ],
)
def test_amounts(images: int, objects: int, left_out: int, trained: bool, kinds: list[str]) -> None:
    found = amount_issues("x", images=images, objects=objects, left_out=left_out, is_trained_on=trained)
    assert [issue.kind for issue in found] == kinds


def test_duplicates_within_and_across() -> None:
    digests = {
        "train": {"a": "1", "b": "2", "c": "1", "d": "1"},
        "val": {"e": "2", "f": "3"},
        "test": {"g": "2", "f": "3"},
    }
    assert {(issue.kind, issue.split, issue.sentence) for issue in duplicate_issues(digests)} == {
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
    issues = pixel_origin_issues("train", at_zero=at_zero, at_one=at_one, offset=offset)
    advice = [issue.sentence.rpartition(": ")[2] for issue in issues]
    assert advice == [f"data.xml_offset={1 - offset}, not {offset}"] * found


OBJECTS = Objects(
    image=np.array([0, 0, 2, 2]),
    boxes_xyxy=np.array([[0, 0, 0.5, 0.5], [0, 0, 0.02, 0.5], [0, 0, 0.5, 0.04], [0, 0, 0.021, 0.041]]),
    labels=np.array([1, 2, 1, 1]),
    difficult=np.array([False, True, False, False]),
)


def test_tiny_boxes_are_judged_in_the_input() -> None:
    found = tiny_issues("train", OBJECTS, ["a", "b", "c"], ["x", "y"], image_size=(100, 200), tiny_px=4.05)
    assert [issue.sentence for issue in found] == [
        "a: usable object 2 'y' is 4.0 x 50.0 px in the input of 200 x 100 px",
        "c: usable object 1 'x' is 100.0 x 4.0 px in the input of 200 x 100 px",
    ]


def test_counts() -> None:
    assert split_summary(OBJECTS, ["x", "y", "z"], images=4, left_out=1) == {
        "images": 4,
        "objects": 4,
        "difficult": 1,
        "images_without_objects": 2,
        "left_out": 1,
        "classes": {
            "x": {"objects": 3, "difficult": 0, "images": 2},
            "y": {"objects": 1, "difficult": 1, "images": 1},
            "z": {"objects": 0, "difficult": 0, "images": 0},
        },
    }
    (unused,) = unused_class_issues("train", [3, 1, 0], ["x", "y", "z"])
    assert "class 3 'z'" in unused.sentence


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (["rbc", "RBC"], ["'rbc' (1 object) and 'RBC' (2 objects)"]),
        (["traffic light", "dog", "Traffic_Lights"], ["'traffic light' (1 object) and 'Traffic_Lights' (3 objects)"]),
        (["t-shirt", "tshirt", "T Shirt"], ["'t-shirt' (1 object), 'tshirt' (2 objects) and 'T Shirt' (3 objects)"]),
        (["class 1", "class1"], ["'class 1' (1 object) and 'class1' (2 objects)"]),
        (["1-1", "11", "1 1", "1_1"], ["'1-1' (1 object), '1 1' (3 objects) and '1_1' (4 objects)"]),
        (["-10", "10"], []),
        (["a", "A", "as"], []),  # letters are classes too
        (["glass", "glasses", "10", "10s", "bus", "boss"], []),
        (VOC_CLASSES, []),
    ],
)
def test_names_that_are_nearly_the_same(names: list[str], alike: list[str]) -> None:
    found = similar_class_issues("train", range(1, len(names) + 1), names)
    assert [issue.sentence.partition(" differ")[0] for issue in found] == [f"train: {text}" for text in alike]


def test_classes_with_few_objects() -> None:
    counts = {
        name: {"objects": count, "difficult": 0, "images": min(count, 2)}
        for name, count in (("none", 0), ("one", 1), ("four", 4), ("five", 5))
    }
    assert [issue.sentence for issue in rare_class_issues("train", counts)] == [
        "train: class 2 'one' has 1 object in 1 image",
        "train: class 3 'four' has 4 objects in 2 images",
    ]


def test_kinds_and_order() -> None:
    assert set(get_args(ProblemKind)) <= KINDS.keys()
    problem = Problem(file="a.xml", item="object 1 'x'", kind="inverted", text="is inverted: xmin 5 ...")
    assert reader_issues("train", [problem], severity="error") == [Issue("error", "inverted", "train", str(problem))]
    tiny, torn = Issue("warning", "tiny", "train", "t"), Issue("error", "image", "train", "p")
    across, again = Issue("error", "across", "train, val", "a"), Issue("error", "image", "val", "p")
    assert in_order([tiny, torn, again, across]) == [across, torn, tiny]
    groups = grouped([tiny, torn, across])
    assert [(group["kind"], len(group["items"])) for group in groups] == [("across", 1), ("image", 1), ("tiny", 1)]
    assert spoils_the_run([tiny, torn])
    assert not spoils_the_run([tiny])


@pytest.mark.parametrize(
    ("images", "without", "min_negatives", "is_said"),
    [
        (20, 2, 0, True),
        (20, 1, 0, False),  # too few to matter
        (0, 0, 0, False),
        (20, 2, 3, False),
        (20, 2, None, False),  # a loss without mining: every prior teaches
    ],
)
def test_images_that_teach_nothing(images: int, without: int, min_negatives: int | None, is_said: bool) -> None:
    found = background_issues(images=images, without_objects=without, min_negatives=min_negatives)
    assert ["2 of 20 images (10%)" in issue.sentence for issue in found] == [True] * is_said


@pytest.mark.parametrize(("images", "objects", "is_said"), [(4, 0, True), (4, 1, False), (0, 0, False)])
def test_a_split_without_an_object_to_score(images: int, objects: int, is_said: bool) -> None:
    assert len(unscored_issues("val", images=images, objects=objects)) == is_said


@pytest.mark.parametrize(("images", "has_recipe", "found"), [(300, False, 1), (300, True, 0), (16_551, False, 0)])
def test_few_images_want_a_recipe(images: int, has_recipe: bool, found: int) -> None:
    assert len(few_images_issues(images=images, has_recipe=has_recipe)) == found
