"""Faults judged from plain values."""

from functools import partial
from typing import get_args

import numpy as np
import pytest

from ssd_lightning.analysis.health import (
    amount_issues,
    background_issues,
    class_number_issues,
    duplicate_issues,
    few_images_issues,
    few_objects_issues,
    pixel_origin_issues,
    reader_issues,
    similar_class_issues,
    tiny_issues,
    unscored_issues,
)
from ssd_lightning.analysis.issues import KINDS, Issue, grouped
from ssd_lightning.analysis.objects import split_summary
from ssd_lightning.data.annotation_checks import Problem, ProblemKind
from ssd_lightning.data.annotations import Objects


def test_duplicates_within_and_across() -> None:
    train = {"a": "1", "b": "2", "c": "1", "d": "1"}
    digests = {"train": train, "val": {"e": "2", "f": "3"}, "test": {"g": "2", "f": "3"}}
    assert {(issue.kind, issue.split, issue.sentence) for issue in duplicate_issues(digests)} == {
        ("within", "train", "c: the same pixels as a"),
        ("within", "train", "d: the same pixels as a"),
        ("across", "train, val", "e of val: the same pixels as b, which is in train"),
        ("across", "train, test", "g of test: the same pixels as b, which is in train"),
        ("across", "val, test", "g of test: the same pixels as e, which is in val"),
        ("across", "val, test", "f of test: the same file is in val"),
    }


def test_tiny_boxes_are_judged_in_the_input() -> None:
    boxes = np.array([[0, 0, 0.5, 0.5], [0, 0, 0.02, 0.5], [0, 0, 0.5, 0.04], [0, 0, 0.021, 0.041]])
    found = tiny_issues("train", boxes, "object {}".format, image_size=(100, 200), tiny_px=4.05)
    assert [issue.sentence for issue in found] == [
        "object 1 is 4.0 x 50.0 px in the input of 200 x 100 px",
        "object 2 is 100.0 x 4.0 px in the input of 200 x 100 px",
    ]


def counts(objects: int, images: int, difficult: int = 0) -> dict[str, int]:
    return {"objects": objects, "difficult": difficult, "images": images}


def test_objects_are_counted_and_classes_with_few_are_named() -> None:
    difficult = np.array([False, True, False, False])
    objects = Objects(np.array([0, 0, 2, 2]), np.zeros((4, 4)), np.array([1, 2, 1, 1]), difficult, np.arange(4))
    summary = split_summary(objects, ["x", "y", "z"], images=4, left_out=1)
    assert summary["classes"] == {"x": counts(3, 2), "y": counts(1, 1, difficult=1), "z": counts(0, 0)}
    rest = {"images": 4, "objects": 4, "difficult": 1, "images_without_objects": 2, "left_out": 1}
    assert summary == {**rest, "classes": summary["classes"]}
    classes = {"none": counts(0, 0), "one": counts(1, 1), "four": counts(4, 2), "five": counts(5, 2)}
    assert [(issue.kind, issue.sentence) for issue in few_objects_issues(classes)] == [
        ("unused_class", "train: class 1 'none' has no object"),
        ("rare_class", "train: class 2 'one' has 1 object in 1 image"),
        ("rare_class", "train: class 3 'four' has 4 objects in 2 images"),
    ]


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
    ],
)
def test_names_that_are_nearly_the_same(names: list[str], alike: list[str]) -> None:
    found = similar_class_issues(range(1, len(names) + 1), names)
    assert [issue.sentence.partition(" differ")[0] for issue in found] == [f"train: {text}" for text in alike]


def test_kinds_and_order() -> None:
    assert set(get_args(ProblemKind)) <= KINDS.keys()
    problem = Problem(file="a.xml", item="object 1 'x'", kind="inverted", text="is inverted: xmin 5 ...")
    assert reader_issues("train", [problem], severity="error") == [Issue("error", "inverted", "train", str(problem))]
    tiny, torn = Issue("warning", "tiny", "train", "t"), Issue("error", "image", "train", "p")
    across, again = Issue("error", "across", "train, val", "a"), Issue("error", "image", "val", "p")
    groups = grouped([tiny, torn, again, across])
    assert [(group["kind"], [item["sentence"] for item in group["items"]]) for group in groups] == [
        ("across", ["a"]), ("image", ["p"]), ("tiny", ["t"])
    ]  # fmt: skip
    with pytest.raises(ValueError, match="new"):  # no title: it is not lost
        grouped([Issue("error", "new", "train", "n")])


def numbers(written: str, counts: list[int]) -> list[Issue]:
    problems = [Problem(file="a.txt", kind="unknown_class", name=number, text="is unknown") for number in written]
    return class_number_issues("train", problems, counts, ("cat", "dog", "bird"))


amounts = partial(amount_issues, "x")
teaching = partial(background_issues, images=20)


@pytest.mark.parametrize(
    ("issues", "said"),
    [
        (amounts(images=10, objects=100, left_out=11, is_trained_on=True), None),
        (amounts(images=10, objects=100, left_out=12, is_trained_on=True), "11% beside 100 usable objects"),
        (amounts(images=0, objects=0, left_out=3, is_trained_on=False), "there is no image; 3 objects or images"),
        (amounts(images=4, objects=0, left_out=0, is_trained_on=True), "there is no object in its 4 images"),
        (amounts(images=4, objects=0, left_out=0, is_trained_on=False), None),
        (unscored_issues(images=4, objects=0), "no object to score in its 4 images"),
        (unscored_issues(images=4, objects=1), None),
        (unscored_issues(images=0, objects=0), None),
        (teaching(without_objects=2, min_negatives=0), "2 of 20 images (10%)"),
        (teaching(without_objects=1, min_negatives=0), None),  # too few to matter
        (teaching(images=0, without_objects=0, min_negatives=0), None),
        (teaching(without_objects=2, min_negatives=3), None),
        (teaching(without_objects=2, min_negatives=None), None),  # a loss without mining: every prior teaches
        (few_images_issues(images=300, recipe=None), "300 training images; the default settings"),
        (few_images_issues(images=300, recipe="ssd300_vgg16_voc0712_rfb"), "of ssd300_vgg16_voc0712_rfb are made for"),
        (few_images_issues(images=300, recipe="ssdlite320_mobilenet_v3_coco"), "300 training images"),
        (few_images_issues(images=300, recipe="finetune"), None),
        (few_images_issues(images=16_551, recipe=None), None),
        (pixel_origin_issues(at_zero=9, at_one=2, offset=1), "data.xml_offset=0, not 1"),
        (pixel_origin_issues(at_zero=4, at_one=0, offset=1), None),
        (pixel_origin_issues(at_zero=9, at_one=20, offset=1), None),
        (pixel_origin_issues(at_zero=0, at_one=5, offset=0), "data.xml_offset=1, not 0"),
        (pixel_origin_issues(at_zero=0, at_one=4, offset=0), None),
        (pixel_origin_issues(at_zero=1, at_one=50, offset=0), None),
        (numbers("33", [0, 4, 5]), "one too high"),  # counts from 1 in a list that counts from 0
        (numbers("4", [0, 4, 5]), "one too high"),  # the same in a list that counts from 1
        (numbers("0", [3, 4, 0]), "one too low"),
        (numbers("3", [1, 4, 5]), None),  # the first class occurs: one object is wrong, not all
        (numbers("0", [3, 4, 1]), None),
        (numbers("7", [0, 4, 5]), None),  # far beyond the end
        (numbers("39", [0, 4, 5]), None),
        (numbers("d", [0, 4, 5]), None),
    ],
)
def test_what_is_said_of_numbers(issues: list[Issue], said: str | None) -> None:
    assert len(issues) == (said is not None)
    assert all(issue.kind in KINDS and said in issue.sentence for issue in issues if said)
