"""Images, objects and classes of a run, chosen from the annotations of splits."""

import logging
import re
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.annotation_tools import CASES, A, write_coco
from helpers.datasets import annotation, open_csv, opener
from ssd_lightning.config import compose_config
from ssd_lightning.data.annotations import AnnotationTable
from ssd_lightning.data.choosing import HeldOut
from ssd_lightning.data.class_rules import ClassRules
from ssd_lightning.data.formats import COCO, CSV, VOC, Records
from ssd_lightning.data.reading import DatasetOpener
from ssd_lightning.data_settings import data_settings, use_data_settings
from ssd_lightning.errors import ConfigurationError, DataError

NAMES = [f"image_{i:05}" for i in range(4000)]


def table(names: list[str], labels: list[list[int]] | None = None) -> AnnotationTable:
    labels = labels or [[]] * len(names)
    return AnnotationTable.of([annotation(name, labels=of) for name, of in zip(names, labels, strict=True)])


def held(names: list[str], fraction: float, labels: list[list[int]] | None = None) -> list[str]:
    chosen = HeldOut(val_fraction=fraction).in_subset("val", table(names, labels).columns, np.arange(10))
    return [name for name, is_held in zip(names, chosen, strict=True) if is_held]


def test_the_held_out_part_has_the_stated_size_and_stays() -> None:
    parts = {fraction: set(held(NAMES, fraction)) for fraction in (0.0, 0.1, 0.2, 1)}
    for fraction, part in parts.items():
        assert len(part) / len(NAMES) == pytest.approx(fraction, abs=0.02)
    assert parts[0.1] <= parts[0.2]
    # A name stays in its part in every release: else a checkpoint would be validated on what it was trained on.
    assert held(NAMES[:20], 0.2) == ["image_00001", "image_00005", "image_00009"]

    hashes = table(NAMES).columns.id_hashes
    folds, (tested, *_) = zip(
        *(HeldOut(fold=fold, num_folds=5, test_fraction=0.2).by_hash(hashes) for fold in range(5)), strict=True
    )
    assert (np.sum(folds, axis=0) + tested == 1).all()
    assert [fold.mean() for fold in folds] == pytest.approx([0.16] * 5, abs=0.015)
    assert tested.mean() == pytest.approx(0.2, abs=0.02)


@given(st.lists(st.lists(st.integers(1, 4), max_size=3), min_size=1, max_size=40), st.sampled_from([0.1, 0.3]))
@settings(max_examples=60, deadline=None)
def test_a_class_is_in_validation_where_training_keeps_all_classes(labels: list[list[int]], fraction: float) -> None:
    names = NAMES[: len(labels)]
    of = dict(zip(names, map(set, labels), strict=True))
    val, by_hash = held(names, fraction, labels), held(names, fraction)
    train = [name for name in names if name not in val]
    in_training = set().union(*(of[name] for name in train))
    assert set(by_hash) <= set(val)
    assert len(val) <= max(len(by_hash), 2 * fraction * len(names) + 1, len(names) // 2)
    for name in set(val) - set(by_hash):
        assert of[name] <= in_training
    for label in in_training - set().union(*(of[name] for name in val)):
        num_images = sum(label in classes for classes in of.values())
        if len(val) < 2 * fraction * len(names) or (num_images > 2 and len(val) < len(names) // 2):
            # Every image of the class is the only one in training with one of its classes.
            for name in (name for name in train if label in of[name]):
                assert any(sum(other in of[one] for one in train) == 1 for other in of[name])


def test_a_problem_belongs_to_the_part_of_its_image(tmp_path: Path) -> None:
    # The rare class moves an image into validation that its hash puts into training.
    rows = [f"{name}.png,{'rare' if index in (2, 3) else 'cat'},1,2,30,40,0" for index, name in enumerate(NAMES[:20])]
    splits = write_csv(tmp_path, rows)
    moved = [one.image_id for one in open_csv(splits=splits, part="val", val_fraction=0.2).annotations]
    by_hash = held(NAMES[:20], 0.2)
    (extra,) = set(moved) - set(by_hash)
    splits = write_csv(tmp_path, [*rows, f"{extra}.png,cat,9,9,9,9,0"])
    for part, expected in {"train": [], "val": [extra]}.items():
        dropped = open_csv(splits=splits, part=part, val_fraction=0.2, on_error="skip").dropped
        assert [problem.image_id for problem in dropped] == expected


def test_further_sets_do_not_change_which_images_of_a_set_are_held_out(tmp_path: Path) -> None:
    (first,) = write_csv(tmp_path / "first", [f"{name}.png,cat,1,2,30,40,0" for name in NAMES[:20]])
    (second,) = write_csv(tmp_path / "second", ["z.png,cat,1,2,30,40,0", f"{NAMES[1]}.png,cat,9,9,9,9,0"])

    def held_out(*splits: dict[str, Any]) -> list[str]:
        dataset = open_csv(splits=splits, part="val", val_fraction=0.2, on_error="skip")
        unusable = [problem.image_id for problem in dataset.dropped]
        return [one.image_path.stem for one in dataset.annotations if "first" in one.image_path.parts] + unusable

    assert held_out(first) == held(NAMES[:20], 0.2)
    assert held_out(first, second) == [*held(NAMES[:20], 0.2), f"second/{NAMES[1]}"]


def write_csv(root: Path, rows: list[str], name: str = "train.csv") -> list[dict[str, Any]]:
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(["image,label,xmin,ymin,xmax,ymax,difficult", *rows]) + "\n")
    for row in rows:
        Image.new("RGB", (200, 100)).save(root / "images" / row.partition(",")[0])
    return [{"root": str(root), "split": name.removesuffix(".csv")}]


ROWS = ["a.jpg,car,1,2,30,40,0", "a.jpg,bus,5,5,60,70,1", "b.jpg,cat,150,20,260,80,0", "b.jpg,car,9,9,9,20,0"]


def test_a_box_that_overhangs_is_an_error_skipped_or_clipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    splits = write_csv(tmp_path, ROWS)
    with pytest.raises(DataError, match=r"line 4 'cat' of b\.jpg reaches out of the image: xmax is 260 .*clip keeps"):
        open_csv(splits=splits)

    skipped = open_csv(splits=splits, on_error="skip")
    assert [problem.kind for problem in skipped.dropped] == ["outside", "no_area"]
    assert skipped.annotations.counts.tolist() == [2]

    with caplog.at_level(logging.WARNING):
        clipped = open_csv(splits=splits, on_error="clip")
    assert [problem.kind for problem in clipped.dropped] == ["no_area"]
    assert clipped.annotations[1].boxes_xyxy_px.tolist() == [[150, 20, 200, 80]]
    assert "1 boxes reach out of their images and are clipped" in caplog.text


def test_problems_come_in_the_order_of_the_images(tmp_path: Path) -> None:
    rows = ["a.jpg,car,1,2,30,x,0", "b.jpg,dog,1,2,30,40,0", "c.jpg,car,9,9,9,20,0"]
    dropped = open_csv(splits=write_csv(tmp_path, rows), class_names=["car"], on_error="skip").dropped
    assert [problem.image_id for problem in dropped] == ["a", "b", "c"]


def test_an_image_that_lost_all_its_objects_is_no_background(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [*ROWS[:2], "b.jpg,cat,9,9,9,20,0", "c.jpg,,,,,,", "d.jpg,dog,1,2,30,40,0", "e.jpg,cat,9,9,x,20,0"]
    splits = write_csv(tmp_path, [*rows, "e.jpg,car,1,2,30,40,1"])
    settings = {"splits": splits, "class_names": ["car", "bus", "cat"], "on_error": "skip"}
    for part in ("all", "val"):
        caplog.clear()
        dataset = open_csv(**settings, part=part, val_fraction=1.0)
        assert [one.image_id for one in dataset.annotations] == ["a", "c", "d", "e"]  # c has none, d another class
        assert "1 images are left out, since none of their objects can be used" in caplog.text
        assert f"{tmp_path}/images/b.jpg" in caplog.text
    dataset = open_csv(**settings, keep_difficult=False)
    assert [one.image_id for one in dataset.annotations] == ["a", "c", "d"]


@pytest.mark.parametrize(
    ("rules", "class_names", "labels"),
    [
        ({}, ("bus", "car", "cat"), [[2, 1], [3]]),
        ({"exclude": ["cat"]}, ("bus", "car"), [[2, 1], []]),
        ({"merge": {"vehicle": ["car", "bus"]}}, ("cat", "vehicle"), [[2, 2], [1]]),
        ({"merge": {"vehicle": "bus"}}, ("car", "cat", "vehicle"), [[1, 3], [2]]),
        ({"rename": {"bus": "zebra"}}, ("car", "cat", "zebra"), [[1, 3], [2]]),
        ({"rename": {"cat": "car"}}, ("bus", "car"), [[2, 1], [2]]),
    ],
)
def test_classes_are_excluded_merged_and_renamed(
    tmp_path: Path, rules: dict[str, Any], class_names: tuple[str, ...], labels: list[list[int]]
) -> None:
    splits = write_csv(tmp_path, ROWS[:3])
    dataset = DatasetOpener(format=CSV(), on_error="clip", classes=ClassRules(**rules))(splits=splits)
    assert dataset.class_names == class_names
    assert [one.labels.tolist() for one in dataset.annotations] == labels
    assert dataset.dropped == []


def test_a_class_that_is_called_as_a_number_has_rules(tmp_path: Path) -> None:
    write_csv(tmp_path, ["a.jpg,7,1,2,30,40,0", "a.jpg,10,5,5,60,70,0", "b.jpg,cat,9,9,50,60,0"])
    given = ["data=csv_folder", f"data.root={tmp_path}", "data.val_fraction=0"]
    for rule, expected in {
        "data.rename_classes={7: lorry}": ("10", "cat", "lorry"),
        "data.merge_classes={8: [7, cat], 9: 10}": ("8", "9"),
    }.items():
        config = compose_config("train", [*given, rule])
        data = instantiate(config.data.module, _convert_="all")
        assert data.dataset("train").class_names == expected
        used = compose_config("evaluate", given)
        use_data_settings(used, data_settings(config), checkpoint="best.ckpt")
        assert data_settings(used) == data_settings(config)


def test_bad_objects_of_an_excluded_class_are_no_problem(tmp_path: Path) -> None:
    rules = ClassRules(exclude=["cat"])
    dataset = DatasetOpener(format=CSV(), classes=rules)(splits=write_csv(tmp_path, ROWS[:3]))
    assert dataset.annotations.counts.tolist() == [2, 0]


def test_a_rule_for_a_class_that_training_does_not_have_or_that_has_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training, validation = write_csv(tmp_path / "train", ROWS[:2]), write_csv(tmp_path / "val", ROWS[:3])
    for rules in (ClassRules(exclude=["cat", "cars"]), ClassRules(merge={"car": ["cat", "cars"]})):
        caplog.clear()
        open_splits = DatasetOpener(format=CSV(), on_error="clip", classes=rules)
        class_names = open_splits(splits=training).class_names
        assert class_names == ("bus", "car")
        assert "'cars', which is of none of the 2 classes; the nearest is 'car'" in caplog.text
        dataset = open_splits(splits=validation, class_names=class_names)
        assert dataset.dropped == []
        assert dataset.annotations.counts.tolist() == [2, 0 if rules.exclude else 1]
    with pytest.raises(ConfigurationError, match="more than one rule for 'car'"):
        ClassRules(exclude=["car"], rename={"car": "bus"})


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"merge": ["car", "bus"]}, r"merge_classes is \['car', 'bus'\]; it must be a mapping such as"),
        ({"rename": 5}, r"rename_classes is 5; it must be a mapping such as"),
        ({"rename": {"car": None}}, "rename_classes has None for 'car'"),
        ({"rename": {"car": ["bus"]}}, r"rename_classes has \['bus'\] for 'car'"),
    ],
)
def test_rules_of_another_form_are_named(rules: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        ClassRules(**rules)


def test_a_rule_for_a_class_that_no_split_has_is_an_error(tmp_path: Path) -> None:
    for name, rows in {"train": ROWS[:2], "val": ROWS[:3]}.items():
        write_csv(tmp_path / name, rows)
    sets = [f"data.{stage}=[{{root: {stage}, split: train}}]" for stage in ("train", "val")]

    def class_names(*rules: str) -> tuple[str, ...]:
        config = compose_config("train", ["data=csv_folder", f"data.root={tmp_path}", *sets, *rules])
        return instantiate(config.data.module, _convert_="all").dataset("train").class_names

    assert class_names("data.exclude_classes=[cat]") == ("bus", "car")  # validation has it
    for stated in ([], ["data.class_names=[bus,car]"]):
        with pytest.raises(ConfigurationError, match="'caat', which is of none of the 3 classes; the nearest is 'cat'"):
            class_names("data.exclude_classes=[caat]", *stated)
    with pytest.raises(ConfigurationError, match=r"data\.class_names has 'car', which .* takes away; .*names=null"):
        class_names("data.rename_classes={car: van}", "data.class_names=[bus,car]")
    assert class_names("data.rename_classes={car: van}", "data.class_names=[van,bus]") == ("van", "bus")


def test_sets_of_several_formats_are_one_with_classes_joined_by_name(tmp_path: Path) -> None:
    splits = write_csv(tmp_path / "one", [*ROWS[:2], "a.jpg,car,9,9,9,20,0"])
    (tmp_path / "two/images/train").mkdir(parents=True)
    (tmp_path / "two/labels/train").mkdir(parents=True)
    (tmp_path / "two/data.yaml").write_text("names: [dog, car]\n")
    Image.new("RGB", (100, 100)).save(tmp_path / "two/images/train/a.jpg")
    (tmp_path / "two/labels/train/a.txt").write_text("1 .5 .5 .2 .2\n0 .5 .5 .4 .4\n")
    two = {"root": str(tmp_path / "two"), "split": "train", "format": "yolo"}
    dataset = opener(CSV, on_error="skip")(splits=[two, *splits])
    assert [(problem.image_id, problem.position) for problem in dataset.dropped] == [("one/a", 1)]
    dataset = opener(CSV, on_error="skip")(splits=[*splits, two])
    assert [(problem.image_id, problem.position) for problem in dataset.dropped] == [("one/a", 0)]
    assert dataset.class_names == ("dog", "car", "bus")
    with pytest.raises(ConfigurationError, match=r"format 'yolov5' of .*: it is one of auto, "):
        opener(CSV)(splits=[two | {"format": "yolov5"}])
    assert [(one.image_id, one.labels.tolist()) for one in dataset.annotations] == [
        ("one/a", [2, 3]),
        ("two/a", [2, 1]),
    ]


def test_an_object_of_joined_formats_is_described_as_its_own_format_does(tmp_path: Path) -> None:
    splits = [
        {"root": str(tmp_path / name), "split": "train", "format": name} for name in ("voc", "csv", "yolo", "coco")
    ]
    for split in splits:
        CASES[split["format"]].write(Path(split["root"]), "train", [A])
    dataset = opener(VOC, on_error="skip")(splits=splits, class_names=["cat"])
    items = ["object 1 'dog'", "line 2 'dog' of a.jpg", "line 1 'dog'", "annotation 0 'dog' of a.jpg"]
    assert [problem.item for problem in dataset.dropped] == items


@pytest.mark.parametrize(
    "setting",
    [
        {"part": "valid"},
        {"on_error": "ignore"},
        {"max_images": 0},
        {"val_fraction": 1.5},
        {"val_fraction": float("nan")},
        {"fold": 0},
        {"num_folds": 5, "fold": None},
        {"fold": 5, "num_folds": 5},
        {"fold": -1, "num_folds": 2},
    ],
)
def test_settings_that_do_not_exist(tmp_path: Path, setting: dict[str, Any]) -> None:
    splits = write_csv(tmp_path, ROWS[:1])
    name, value = next(iter(setting.items()))
    with pytest.raises(ConfigurationError, match=f"{name}(=| is ){value!r}"):
        open_csv(splits=splits, **setting)


def test_roots_that_are_none(tmp_path: Path) -> None:
    for root, advice in ((None, ""), (2024, "./2024")):
        with pytest.raises(ConfigurationError, match=rf"root={root}: .*set data\.root={advice}$"):
            open_csv(splits=[{"root": root, "split": "train"}])
    for split, said in ((2024, r"""in quotes: '"2024"'"""), (["a", "b"], r"data\.train=\[")):
        with pytest.raises(ConfigurationError, match=rf"split={re.escape(str(split))}: .*{said}"):
            open_csv(splits=[{"root": str(tmp_path), "split": split}])
    for name, said in (("set.zip", "an archive; unpack it"), ("set.csv", "a file, not a folder")):
        (tmp_path / name).touch()
        with pytest.raises(DataError, match=f"{name}: this is {said}"):
            open_csv(splits=[{"root": str(tmp_path / name), "split": "train"}])


def test_why_no_class_or_image_is_left_is_said(tmp_path: Path) -> None:
    for rows, said in (
        (["a.jpg,cat,1,x,30,40,0"], r"train\.csv: line 2 'cat' of a\.jpg has ymin 'x'.* no usable object"),
        (["gone.jpg,cat,1,1,30,40,0"], r"gone\.jpg: the image is missing .*; neither images"),
        (["a.jpg,,,,,,", "gone.jpg,,,,,,"], r"gone\.jpg: the image is missing.* in the 1 usable images has a class"),
    ):
        splits = write_csv(tmp_path, rows)
        (tmp_path / "images/gone.jpg").unlink(missing_ok=True)
        with pytest.raises(DataError, match=said):
            open_csv(splits=splits)
    with pytest.raises(DataError, match=r"is there, and no image$"):
        opener(Records, train=[])(splits=splits)
    splits = write_csv(tmp_path, ROWS[:2])
    with pytest.raises(DataError, match="exclude_classes excludes all classes: bus, car"):
        DatasetOpener(format=CSV(), classes=ClassRules(exclude=["car", "bus"]))(splits=splits)
    with pytest.raises(DataError, match=r"/train: no image is left in part 'val' .*data\.val_fraction="):
        open_csv(splits=splits, part="val", val_fraction=1e-9)


def test_two_entries_of_one_file_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_coco(tmp_path, "train", [A, replace(A, name="./a.jpg")])
    opener(COCO)(splits=[{"root": str(tmp_path), "split": "train"}])
    assert f"{tmp_path}/train/a.jpg: the split names it 2 times (as 'a', 'a.jpg')" in caplog.text


def test_disjoint_parts_are_read_once_and_what_a_reader_notes_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splits = write_csv(tmp_path, [f"{name}.png,x,1,2,3,4,0" for name in NAMES[:60]])
    Image.new("RGB", (100, 100)).save(tmp_path / "images/bare.png")
    opened, parts = opener(CSV), {}
    for part in ("train", "val", "test", "all"):
        dataset = opened(splits=splits, part=part, val_fraction=0.2, test_fraction=0.3)
        parts[part] = list(dataset.annotations.image_ids)
        (tmp_path / "train.csv").unlink(missing_ok=True)
    assert parts.pop("all") == sorted(chain.from_iterable(parts.values())) == NAMES[:60]
    assert all(parts.values())
    assert caplog.text.count("1 images have no row in") == 1


def test_the_first_images_alone_are_used(tmp_path: Path) -> None:
    splits = write_csv(tmp_path, [f"{name}.png,x,1,2,3,4,0" for name in NAMES[:3]])
    assert list(open_csv(splits=splits, max_images=2).annotations.image_ids) == NAMES[:2]
