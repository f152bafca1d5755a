"""One small data set in every annotation format and form: all readers say the same about it."""

import csv
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import partial, reduce
from itertools import cycle
from operator import getitem
from pathlib import Path
from typing import Any, Literal
from unicodedata import normalize

import numpy as np
import pytest
import yaml
from PIL import Image

from helpers import annotation_tools
from helpers.annotation_tools import (
    CASES,
    EMPTY,
    IMAGES,
    A,
    Case,
    Spec,
    Thing,
    expected,
    objects_of,
    paint,
    with_cases,
    with_each_case,
    write_rows,
)
from helpers.pixels import save_turned
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.formats import LabelMe
from ssd_lightning.data.formats.detect import detect_format
from ssd_lightning.data.writers import FORMATS
from ssd_lightning.data.writing import write_dataset
from ssd_lightning.errors import DataError

CLASSES = ("cat", "dog")


open_case = partial(annotation_tools.open_case, class_names=CLASSES)


def image_of(root: Path, stem: str) -> Path:
    (path,) = (path for path in root.rglob(f"{stem}.*") if path.suffix in (".jpg", ".png"))
    return path


@with_each_case
def test_the_same_images_boxes_and_labels(tmp_path: Path, case: Case) -> None:
    case.write(tmp_path, "train", IMAGES)
    found = case.format.read(tmp_path, case.split)
    assert not found.problems
    assert not found.notes
    assert found.sources
    assert list(case.format.files(tmp_path, case.split))

    dataset = open_case(case, tmp_path)
    assert objects_of(dataset) == expected(*IMAGES)
    records = {record.image_path.name: record for record in dataset.annotations}
    assert [records[one.name].size_px for one in IMAGES] == [one.size_px for one in IMAGES]
    ids = [records[one.name].image_id.removeprefix("8f2b1c0d-") for one in IMAGES]  # of an upload to Label Studio
    assert ids == [one.stem for one in IMAGES]
    assert [records[one.name].labels.tolist() for one in IMAGES] == [[2, 1], [1, 1], [], [2]]
    flags = [records[one.name].difficult.tolist() for one in IMAGES]
    assert flags == [[False, False], [case.has_difficult, False], [], [False]]
    for record in dataset.annotations:
        assert (record.boxes_xyxy_px.dtype, record.labels.dtype, record.difficult.dtype) == (np.float32, np.int64, bool)
        assert record.boxes_xyxy_px.shape == (len(record.labels), 4)
    assert open_case(case, tmp_path, class_names=None).class_names == CLASSES
    assert objects_of(open_case(case, tmp_path, class_names=("bird", "dog", "cat"))) == expected(*IMAGES)


@with_cases("voc", "coco", "tensorflow", "labelme", "cvat", "label studio", "label studio min")
def test_stated_sizes_save_a_look_at_the_images(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case.write(tmp_path, "train", [A])
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", lambda *_, **__: pytest.fail("an image was opened"))
        assert case.format.read(tmp_path, case.split).columns.sizes_px.tolist() == [[100, 200]]
    for path in (*tmp_path.rglob("*.json"), *tmp_path.rglob("*.xml")):
        path.write_text(
            re.sub(r'"(image|original_)([Hh]eight|[Ww]idth)": \d+,|(height|width)="\d+"', "", path.read_text())
        )
    found = case.format.read(tmp_path, case.split)
    assert (objects_of(found), found.columns.sizes_px.tolist()) == (expected(A), [[100, 200]])


@pytest.mark.parametrize(("case", "encoding"), zip(CASES.values(), cycle(["utf-16", "utf-8-sig"])), ids=list(CASES))
def test_any_names_in_any_encoding_in_a_folder_of_any_name(case: Case, encoding: str, tmp_path: Path) -> None:
    images = [replace(A, name=name) for name in ("a b #1 (2).jpg", "猫, Ёж;é.JPG", "100%25.v2.jpg")]
    root = tmp_path / "Some export (1)"
    case.write(root, "train", [*images, EMPTY])
    (tmp_path / "README.txt").write_text("Exported on Monday.\n")
    for marked in (False, True):
        found = detect_format(tmp_path)
        assert (type(found.format), found.root, list(found.splits)) == (type(case.format), root, ["train"])
        assert type(case.format).__name__ in found.reason
        assert "(4 images;" in found.reason
        assert objects_of(case.format.read(root, case.split)) == expected(*images, EMPTY)
        assert objects_of(found.format.read(found.root, found.splits["train"])) == expected(*images, EMPTY)
        for path in root.rglob("*.*") if not marked else ():
            if path.is_file() and path.suffix.lower() not in (".jpg", ".png"):
                path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)


BAD_THINGS = {
    "is inverted: xmin": Thing("dog", (50, 1, 20, 9)),
    "has no area: xmin is": Thing("dog", (50, 1, 50, 9)),
    "nan": Thing("dog", (1, 1, float("nan"), 9)),
    "inf": Thing("dog", (1, 1, 9, float("inf"))),
    "reaches out of the image: xmax is 21": Thing("dog", (1, 1, 210, 9)),
    "reaches out of the image: xmin is -": Thing("dog", (-5, 1, 20, 9)),
    "is of none of the 2 classes": Thing("dgo", (1, 2, 30, 40)),
}


@with_each_case
def test_bad_objects_are_named_skipped_or_clipped(tmp_path: Path, case: Case) -> None:
    bad = dict(BAD_THINGS)
    if isinstance(case.format, LabelMe):
        del bad["is inverted: xmin"]  # labelme's corners have no order
    things = (*IMAGES[0].things, *bad.values())
    case.write(tmp_path, "train", [replace(IMAGES[0], things=things), *IMAGES[1:]])
    with pytest.raises(DataError) as caught:
        open_case(case, tmp_path)

    dataset = open_case(case, tmp_path, on_error="skip")
    assert objects_of(dataset) == expected(*IMAGES)
    messages = list(map(str, dataset.dropped))
    assert len(messages) == len(bad)
    assert str(caught.value).startswith(messages[0])
    for said, thing in bad.items():
        (message,) = (one for one in messages if said in one)
        assert message.startswith(str(tmp_path))
        assert re.search(f"'({thing.name}|99|7)'", message)
        assert "\n" not in message

    clipped = open_case(case, tmp_path, on_error="clip")
    record = next(one for one in clipped.annotations if one.image_path.name == "a.jpg")
    np.testing.assert_allclose(record.boxes_xyxy_px[-2:], [[1, 1, 200, 9], [0, 1, 20, 9]], atol=1e-3)
    assert len(clipped.dropped) == len(bad) - 2


@with_each_case
def test_a_missing_image_or_split_is_named(tmp_path: Path, case: Case) -> None:
    case.write(tmp_path, "train", IMAGES)
    with pytest.raises(DataError, match=r"there is no split 'valley'; there is .*(train|none at all)"):
        case.format.read(tmp_path, "valley")
    image_of(tmp_path, "b").unlink()
    with pytest.raises(DataError, match=r"b\S*: the image is missing"):
        open_case(case, tmp_path)
    dataset = open_case(case, tmp_path, on_error="skip")
    assert sorted(record.image_path.name for record in dataset.annotations) == ["a.jpg", "c.png", "d.v2.jpg"]
    assert len(dataset.dropped) == 1


@with_each_case
def test_a_damaged_file_is_named_and_a_pointer_of_git_lfs_told_from_it(case: Case, tmp_path: Path) -> None:
    path = case.write(tmp_path, "train", [A, EMPTY])
    lfs = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 132735\n".encode()
    for content, said in ((b'[{"a": \xff', ""), (lfs, ".*`git lfs pull`")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=re.escape(str(path)) + said):
            open_case(case, tmp_path)
    if case.has_file_of_image:
        found = case.format.read(tmp_path, case.split)
        assert [problem.file for problem in found.problems] == [str(path)]
        assert objects_of(found) == expected(EMPTY)


def nodes(value: Any, *above: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the keys on the way to each value in a value of JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*above, key)
        yield from nodes(one, *above, key)


@with_cases("coco", "labelme", "label studio", "label studio min", "via", "via project", "via csv")
def test_a_value_of_another_type_is_a_problem_and_no_failure(case: Case, tmp_path: Path) -> None:
    path = case.write(tmp_path, "train", [A])
    is_json = path.suffix == ".json"
    content = json.loads(path.read_text()) if is_json else [*csv.reader(path.read_text().splitlines())]
    for *above, last in nodes(content):
        changed = deepcopy(content)
        place = reduce(getitem, above, changed)
        for value in (True, 5, "x", [1], {"a": 1}):
            place[last] = value if is_json or not above else json.dumps(value)
            if is_json:
                path.write_text(json.dumps(changed))
            elif above:
                write_rows(path, *changed)
            with suppress(DataError):
                case.format.read(tmp_path, case.split)


# How images are found


@pytest.mark.parametrize(("form", "stated", "folder"), [("coco", "absolute", "train"), ("csv", "upwards", "images")])
def test_images_inside_the_root_come_before_those_outside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, form: str, stated: str, folder: str
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside/a.jpg"
    paint(root / folder, IMAGES[:1])
    paint(outside.parent, IMAGES[:1])
    name = str(outside) if stated == "absolute" else "../../outside/a.jpg"
    content = {"images": [{"id": 1, "file_name": name}], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (root / "train.json").write_text(json.dumps(content))
    (root / "train.csv").write_text(f"image,label,xmin,ymin,xmax,ymax\n{name},cat,1,2,30,40\n")
    assert open_case(CASES[form], root).annotations[0].image_path == root / folder / "a.jpg"
    assert not caplog.records

    (root / folder / "a.jpg").unlink()
    assert open_case(CASES[form], root).annotations[0].image_path.samefile(outside)
    assert f"1 of the 1 images lie outside of {root}; the first: {outside}" in caplog.text


@pytest.mark.parametrize(("form", "stored"), [("csv", "NFC"), ("voc", "NFD")])
def test_a_letter_with_an_accent_is_one_or_two_characters(
    tmp_path: Path, form: str, stored: Literal["NFC", "NFD"]
) -> None:
    stated = normalize("NFC" if stored == "NFD" else "NFD", "größe한.jpg")
    CASES[form].write(tmp_path, "train", [replace(A, name=stated)])
    path = image_of(tmp_path, "gr*")
    path.rename(path.with_name(normalize(stored, path.name)))
    (record,) = open_case(CASES[form], tmp_path).annotations
    assert record.image_path.name == normalize(stored, path.name)


@with_cases("voc", "labelimg", "coco", "yolo", "yolo list")
def test_images_of_one_name_in_several_folders(tmp_path: Path, case: Case, caplog: pytest.LogCaptureFixture) -> None:
    cameras = [
        Spec(name, (60, 80), (Thing("cat", (1, 2, 20 + place, 40)),))
        for place, name in enumerate(("cam1\\f1.jpg", "cam2/f1.jpg", "f1.jpg", "night\\cam1\\f1.jpg"))
    ]
    case.write(tmp_path, "train", cameras)
    found = {record.image_id: record for record in open_case(case, tmp_path).annotations}
    assert set(found) == {image.stem.replace("\\", "/") for image in cameras}
    for image in cameras:
        record = found[image.stem.replace("\\", "/")]
        assert record.image_path.as_posix().endswith(f"/{image.name}".replace("\\", "/"))
        assert record.boxes_xyxy_px[0].round(2).tolist() == list(image.things[0].box)
    assert len({record.image_path for record in found.values()}) == len(cameras)
    assert not caplog.records

    found["cam2/f1"].image_path.unlink()
    with pytest.raises(DataError, match=r"cam2[/\\]f1\S*: the image is missing"):
        open_case(case, tmp_path)
    assert len(open_case(case, tmp_path, on_error="skip")) == len(cameras) - 1


@with_cases("voc", "csv")
def test_boxes_of_an_image_that_exif_turns_fit_it_or_it_is_named(tmp_path: Path, case: Case) -> None:
    # The size is stated, or assumed, as 100 x 200 px; the boxes are those of 200 x 100 px.
    things = (Thing("dog", (10, 20, 150, 80)), Thing("cat", (1, 2, 30, 40)))
    case.write(tmp_path, "train", (Spec("t.jpg", (200, 100), things), *IMAGES[1:]))
    save_turned(image_of(tmp_path, "t"), np.zeros((100, 200, 3), np.uint8), 6)

    said = r"t\.\w+: its EXIF tag turns the image from 200 x 100 to 100 x 200 px, and its boxes fit 200 x 100 px alone"
    with pytest.raises(DataError, match=said):
        open_case(case, tmp_path)
    dataset = open_case(case, tmp_path, on_error="skip")
    assert objects_of(dataset) == expected(*IMAGES[1:])
    assert len(dataset.dropped) == 1


@pytest.mark.parametrize(
    ("form", "suffix"),
    [
        *(("voc", ".jfif"), ("yolo", ".Tif"), ("openimages", ".jfif")),  # state no suffix
        *(("coco", ".Jpg"), ("yolo list", ".Jpg"), ("labelme", ".Jpg")),
    ],
)
def test_the_suffix_of_an_image(tmp_path: Path, form: str, suffix: str) -> None:
    CASES[form].write(tmp_path, "train", IMAGES)
    path = image_of(tmp_path, "b")
    with Image.open(path) as image:
        image.save(path.with_suffix(suffix))
    path.unlink()
    dataset = open_case(CASES[form], tmp_path)
    assert [*objects_of(dataset).values()] == [*expected(*IMAGES).values()]
    assert dataset[1][0].shape == (3, 80, 120)


@with_cases("voc", "yolo", "openimages", "coco")
def test_an_image_of_a_format_that_is_not_read_is_named(
    tmp_path: Path, case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    case.write(tmp_path, "train", IMAGES)
    path = image_of(tmp_path, "b")
    path.rename(path.with_suffix(".DNG"))
    for text in tmp_path.rglob("*.json"):  # which states the suffix
        text.write_text(text.read_text().replace("b.jpg", "b.DNG"))
    with pytest.raises(DataError, match=r"b\.DNG: cannot read the image: \.DNG is not read; convert it"):
        open_case(case, tmp_path)
    assert objects_of(open_case(case, tmp_path, on_error="skip")) == expected(IMAGES[0], *IMAGES[2:])
    assert "b.DNG" in caplog.text


# What the writers leave


def write(form: str, root: Path, dataset: DetectionDataset) -> None:
    write_dataset(root, FORMATS[form], {"train": dataset.annotations}, dataset.class_names, images="link")


@pytest.mark.parametrize(("source", "target"), zip(FORMATS, [*list(FORMATS)[1:], "coco"], strict=True))
def test_any_format_comes_back_from_any_other(tmp_path: Path, source: str, target: str) -> None:
    rng = np.random.default_rng(0)
    corners, sides = rng.uniform(0, 1000, (50, 2)).round(3), rng.uniform(2, 300, (50, 2)).round(3)
    boxes = np.concatenate([corners, corners + sides], axis=1)
    things = tuple(Thing(CLASSES[number % 2], tuple(box)) for number, box in enumerate(boxes.tolist()))
    whole = tuple(Thing("dog", tuple(box)) for box in boxes.round().tolist())
    CASES[source].write(
        tmp_path, "train", (*IMAGES, Spec("e.jpg", (1333, 1501), things), Spec("f.jpg", (1333, 1501), whole))
    )
    before = open_case(CASES[source], tmp_path)

    write(target, tmp_path / "target", before)
    middle = open_case(CASES[target], tmp_path / "target", class_names=None)
    write(source, tmp_path / "back", middle)
    after = open_case(CASES[source], tmp_path / "back", class_names=None)

    for dataset in (middle, after):
        assert dataset.class_names == CLASSES
        for old, new in zip(before.annotations, dataset.annotations, strict=True):
            assert (old.image_id, old.size_px, old.labels.tolist()) == (new.image_id, new.size_px, new.labels.tolist())
            np.testing.assert_allclose(old.boxes_xyxy_px, new.boxes_xyxy_px, rtol=0, atol=0.002)
            if "yolo" not in (source, target):
                assert old.difficult.tolist() == new.difficult.tolist()
        assert dataset.annotations[5].boxes_xyxy_px.tolist() == boxes.round().tolist()


NAMES = ("no", "010", "1e3", "~", "a: b # c", "'\"\\", "Größe 猫🐦", "2001-01-01", "a\x07b", "x" * 200 + " y")


def test_what_other_readers_find_in_written_files(tmp_path: Path) -> None:
    CASES["voc"].write(tmp_path, "train", IMAGES)
    dataset = open_case(CASES["voc"], tmp_path)
    for form in FORMATS:
        write(form, tmp_path / form, dataset)

    content = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    files, names = (
        {one["id"]: one[key] for one in content[of]} for of, key in (("images", "file_name"), ("categories", "name"))
    )
    from_coco = [
        (files[one["image_id"]], names[one["category_id"]], *one["bbox"], one["difficult"])
        for one in content["annotations"]
    ]
    assert from_coco == [
        (image.name, name, x1, y1, x2 - x1, y2 - y1, difficult)
        for image in IMAGES
        for name, (x1, y1, x2, y2), difficult in image.things
    ]
    rows = (tmp_path / "csv/train.csv").read_text().splitlines()
    assert rows[:2] == ["image,width,height,label,xmin,ymin,xmax,ymax,difficult", "a.jpg,200,100,dog,10,20,100,80,0"]
    lines = (tmp_path / "yolo/labels/train/a.txt").read_text().splitlines()
    assert [float(text) for text in lines[0].split()] == pytest.approx([1, 0.275, 0.5, 0.45, 0.6], abs=1e-9)
    assert (tmp_path / "yolo/labels/train/c.txt").read_text() == ""
    xml = (tmp_path / "voc/Annotations/a.xml").read_text()
    assert "<xmin>11</xmin><ymin>21</ymin><xmax>101</xmax><ymax>81</ymax>" in xml
    assert "<xmin>1</xmin><ymin>1</ymin><xmax>30.5</xmax><ymax>41.25</ymax>" in xml

    dataset.class_names = NAMES
    write("yolo", tmp_path / "names", dataset)
    assert open_case(CASES["yolo"], tmp_path / "names", class_names=None).class_names == NAMES
    text = (tmp_path / "names/data.yaml").read_text()
    assert tuple(yaml.safe_load(text)["names"]) == NAMES
    assert all(line.startswith('- "') for line in text.partition("names:\n")[2].splitlines())  # for other readers too
