"""The same small data set as several annotation tools write it: all readers say the same about it."""

import json
import re
import runpy
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.annotation_tools import (
    CASES,
    EMPTY,
    A,
    Case,
    Spec,
    expected,
    objects_of,
    paint,
    region,
    write_cvat,
    write_darknet,
    write_labelme,
    write_rows,
    yolo_text,
)
from ssd_lightning.data.annotations import Annotations
from ssd_lightning.data.formats import CSV, CVAT, VIA, YOLO, LabelMe, LabelStudio, Records, annotations_from_records
from ssd_lightning.data.formats.detect import detect_format
from ssd_lightning.data.reading import DatasetOpener
from ssd_lightning.errors import DataError

with_each_format = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


@with_each_format
@pytest.mark.parametrize("with_size", [True, False])
def test_boxes_classes_and_sizes_of_all_images(case: Case, with_size: bool, tmp_path: Path) -> None:
    case.write(tmp_path, [A, EMPTY], with_size=with_size)
    found = case.format.read(tmp_path, case.split)
    assert objects_of(found) == expected(A, EMPTY)
    assert sorted(found.names) == ["cat", "dog"]
    assert found.columns.sizes_px.tolist() == [[100, 200], [60, 50]]
    assert not found.problems
    assert not found.notes
    assert found.sources
    assert list(case.format.files(tmp_path, case.split))


@with_each_format
def test_hostile_names(case: Case, tmp_path: Path) -> None:
    images = [replace(A, name=name) for name in ("a b #1 (2).jpg", "猫, Ёж;é.JPG", "100%25.v2.jpg")]
    case.write(tmp_path, [*images, EMPTY])
    assert objects_of(case.format.read(tmp_path, case.split)) == expected(*images, EMPTY)


@pytest.mark.parametrize(("case", "encoding"), zip(CASES.values(), cycle(["utf-16", "utf-8-sig"])), ids=list(CASES))
def test_a_byte_order_mark_says_the_encoding(case: Case, encoding: str, tmp_path: Path) -> None:
    image = replace(A, name="猫.jpg")
    case.write(tmp_path, [image, EMPTY])
    for path in tmp_path.rglob("*.*"):
        if path.suffix not in (".jpg", ".png"):
            path.write_text(path.read_text(encoding="utf-8"), encoding=encoding)
    assert objects_of(case.format.read(tmp_path, case.split)) == expected(image, EMPTY)
    found = detect_format(tmp_path)
    assert type(found.format) is type(case.format)
    assert "(2 images;" in found.reason


@with_each_format
def test_a_box_outside_is_a_problem_that_can_be_clipped(case: Case, tmp_path: Path) -> None:
    image = replace(A, objects=(("cat", (150, 20, 230, 90)), ("dog", (1, 2, 50, 60))))
    case.write(tmp_path, [image, EMPTY])
    found = case.format.read(tmp_path, case.split)
    (problem,) = found.problems
    assert (problem.kind, problem.is_clipped) == ("outside", True)
    assert "230" in problem.text
    assert DatasetOpener(format=case.format, on_error="skip").choose(found).annotations.counts.sum() == 1
    clipped = DatasetOpener(format=case.format, on_error="clip").choose(found).annotations
    assert clipped.objects().boxes_xyxy_px[0] == pytest.approx([150, 20, 200, 90], abs=1e-4)


@with_each_format
def test_damaged_file_is_named(case: Case, tmp_path: Path) -> None:
    path = case.write(tmp_path, [A, EMPTY])
    path.write_bytes(b'[{"a": \xff')
    if case.format in (LabelMe(), YOLO()):  # one file for each image
        found = case.format.read(tmp_path, case.split)
        assert [problem.file for problem in found.problems] == [str(path)]
        assert objects_of(found) == expected(EMPTY)
    else:
        with pytest.raises(DataError, match=re.escape(str(path))):
            case.format.read(tmp_path, case.split)


@with_each_format
def test_a_pointer_of_git_lfs_is_told_from_a_damaged_file(case: Case, tmp_path: Path) -> None:
    path = case.write(tmp_path, [A, EMPTY])
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 132735\n")
    with pytest.raises(DataError, match=re.escape(str(path)) + ".*`git lfs pull`"):
        DatasetOpener(format=case.format)(splits=[{"root": str(tmp_path), "split": case.split}])


def labelme_shape(kind: str, points: Any, **more: Any) -> dict[str, Any]:
    return {"label": "cat", "shape_type": kind, "points": points, "flags": {}} | more


def read_labelme(root: Path, shapes: Sequence[dict[str, Any]], **more: Any) -> Annotations:
    paint(root, [replace(A, objects=())])
    content = {"shapes": shapes, "imagePath": "a.jpg", "imageHeight": 100, "imageWidth": 200} | more
    (root / "a.json").write_text(json.dumps(content))
    return LabelMe().read(root, ".")


def test_labelme_shapes_become_bounding_boxes_and_are_counted_once(tmp_path: Path) -> None:
    found = read_labelme(
        tmp_path,
        [
            labelme_shape("polygon", [[10, 10], [30, 5], [20, 40]]),
            labelme_shape("circle", [[50, 50], [53, 54]]),
            labelme_shape("rotation", [[60, 50], [70, 40], [80, 50], [70, 60]], direction=0.8),
            labelme_shape("rectangle", [[90, 10], [99, 20]], flags={"difficult": True}),
        ],
    )
    boxes = [[10, 5, 30, 40], [45, 45, 55, 55], [60, 40, 80, 60], [90, 10, 99, 20]]
    assert found.columns.boxes_xyxy_px.tolist() == boxes
    assert found.columns.difficult.tolist() == [False, False, False, True]
    (note,) = found.notes
    assert note.startswith("3 ")
    assert "a.json: object 1" in note


def test_labelme_shapes_of_a_group_and_label_are_one_object(tmp_path: Path) -> None:
    """As in labelme's own labelme2coco.py."""
    found = read_labelme(
        tmp_path,
        [
            labelme_shape("rectangle", [[60, 10], [80, 20]], group_id=1),
            labelme_shape("rectangle", [[1, 1], [5, 5]], label="dog", group_id=1),
            labelme_shape("rectangle", [[2, 2], [6, 6]], group_id=None),
            labelme_shape("polygon", [[90, 15], [99, 40], [85, 30]], group_id=1, flags={"difficult": True}),
            labelme_shape("rectangle", [[3, 3], [7, 7]], group_id=0),
            labelme_shape("rectangle", [[4, 4], [8, 8]]),
        ],
    )
    columns = found.columns
    boxes = [[60, 10, 99, 40], [1, 1, 5, 5], [2, 2, 6, 6], [3, 3, 7, 7], [4, 4, 8, 8]]
    assert columns.boxes_xyxy_px.tolist() == boxes
    assert columns.items.tolist() == [1, 2, 3, 5, 6]
    assert columns.difficult.tolist() == [True, False, False, False, False]
    assert [found.names[label - 1] for label in columns.labels] == ["cat", "dog", "cat", "cat", "cat"]
    (note,) = found.notes
    assert note.startswith("1 ")


def test_a_labelme_group_with_a_damaged_shape_is_not_read_as_a_smaller_object(tmp_path: Path) -> None:
    good = labelme_shape("rectangle", [[1, 1], [5, 5]], group_id=1)
    found = read_labelme(tmp_path, [good, labelme_shape("polygon", [[1, "x"]], group_id=1)])
    (problem,) = found.problems
    assert "'x'" in problem.text
    assert len(found.columns.labels) == 0


@pytest.mark.parametrize(
    ("shape", "kind", "value"),
    [
        (labelme_shape("point", [[10, 10]]), "no_area", "10"),
        (labelme_shape("line", [[10, 10], [40, 10]]), "no_area", "10"),
        (labelme_shape("circle", [[10, 10]]), "annotation", "1 points"),
        (labelme_shape("polygon", [[1, "x"]]), "annotation", "'x'"),
        (labelme_shape("polygon", None), "annotation", "None"),
        (labelme_shape("rectangle", [[1, 1], [5, 5]], flags={"difficult": "maybe"}), "annotation", "maybe"),
    ],
)
def test_labelme_shapes_that_are_no_objects(shape: dict[str, Any], kind: str, value: str, tmp_path: Path) -> None:
    found = read_labelme(tmp_path, [labelme_shape("rectangle", [[1, 1], [5, 5]]), shape])
    (problem,) = found.problems
    assert problem.kind == kind
    assert value in problem.text
    assert problem.item == "object 2 'cat'"
    assert len(found.columns.labels) == 1


def test_labelme_image_that_is_only_embedded(tmp_path: Path) -> None:
    found = read_labelme(tmp_path, [], imagePath="gone.jpg", imageData="iVBORw0KGgo=")
    assert objects_of(found) == {"a.jpg": []}  # by the name of the JSON file
    (tmp_path / "a.jpg").unlink()
    (problem,) = LabelMe().read(tmp_path, ".").problems
    assert "gone.jpg" in problem.file
    assert "imageData" in problem.text


def test_labelme_splits_other_files_and_images_without_json(tmp_path: Path) -> None:
    write_labelme(tmp_path / "train", [A])
    paint(tmp_path / "train", [replace(EMPTY, name="c.png")])
    (tmp_path / "train/settings.json").write_text('{"shade": 1}')
    write_labelme(tmp_path / "valid", [EMPTY])
    notes = LabelMe().read(tmp_path, "train").notes
    assert sum("c.png" in note for note in notes) == 1
    assert sum("settings.json" in note for note in notes) == 1
    assert objects_of(LabelMe().read(tmp_path, "valid")) == expected(EMPTY)
    with pytest.raises(DataError, match="train, valid"):
        LabelMe().read(tmp_path, ".")


def test_labelme_folders_of_validation_or_test_in_a_split_are_named(tmp_path: Path) -> None:
    write_labelme(tmp_path / "train_set", [A])
    write_labelme(tmp_path / "test_set", [EMPTY])
    (note,) = LabelMe().read(tmp_path, ".").notes
    assert "the folders test_set are read" in note


def test_labelme_json_apart_from_images(tmp_path: Path) -> None:
    path = write_labelme(tmp_path / "images", [A])
    content = json.loads(path.read_text())
    path.unlink()
    (tmp_path / "json").mkdir()
    for stated in ("..\\images\\a.jpg", "C:\\Users\\me\\a.jpg"):
        (tmp_path / "json/a.json").write_text(json.dumps(content | {"imagePath": stated}))
        assert objects_of(LabelMe().read(tmp_path, ".")) == expected(A)


def read_cvat(root: Path, shapes: str) -> Annotations:
    path = write_cvat(root, [replace(A, objects=())])
    path.write_text(path.read_text().replace("</image>", f"{shapes}</image>"))
    return CVAT().read(root, ".")


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ('<polygon label="cat" points="10.00,10.00;30.00,5.00;20.00,40.00"/>', [10, 5, 30, 40]),
        ('<polyline label="cat" points="10.00,10.00;30.00,5.00"/>', [10, 5, 30, 10]),
        ('<ellipse label="cat" cx="50" cy="50" rx="20" ry="10"/>', [30, 40, 70, 60]),
        ('<ellipse label="cat" cx="50" cy="50" rx="20" ry="10" rotation="90"/>', [40, 30, 60, 70]),
        ('<box label="cat" xtl="40" ytl="40" xbr="60" ybr="50" rotation="90.00"/>', [45, 35, 55, 55]),
        ('<mask label="cat" rle="3, 4" left="10" top="20" width="30" height="40"/>', [10, 20, 40, 60]),
        (
            '<cuboid label="cat" xtl1="10" ytl1="10" xbl1="10" ybl1="40" xtr1="30" ytr1="10" xbr1="30" ybr1="40" '
            'xtl2="40" ytl2="5" xbl2="40" ybl2="30" xtr2="20" ytr2="5" xbr2="20" ybr2="30"/>',
            [10, 5, 40, 40],
        ),
    ],
)
def test_cvat_shapes_become_bounding_boxes_and_are_counted(shape: str, box: list[float], tmp_path: Path) -> None:
    found = read_cvat(tmp_path, f'<tag label="night"/>{shape}')
    assert found.columns.boxes_xyxy_px[0] == pytest.approx(box, abs=1e-4)
    assert not found.problems
    (note,) = found.notes
    assert note.startswith("1 ")
    assert "object 1 'cat' of a.jpg" in note


@pytest.mark.parametrize(
    ("shape", "value"),
    [
        ('<points label="cat" points="10.00,10.00"/>', "no area"),
        ('<skeleton label="cat"/>', "<skeleton>"),
        ('<polygon label="cat" points="10.00"/>', "10.00"),
        ('<box label="cat" xtl="x" ytl="40" xbr="60" ybr="50"/>', "xtl 'x'"),
        ('<box label="cat" xtl="60" ytl="40" xbr="50" ybr="50" rotation="5"/>', "inverted"),
        ('<box label="cat" ytl="40" xbr="60" ybr="50"/>', "xtl None"),
    ],
)
def test_cvat_shapes_that_are_no_objects(shape: str, value: str, tmp_path: Path) -> None:
    (problem,) = read_cvat(tmp_path, shape).problems
    assert value in problem.text
    assert problem.item == "object 1 'cat' of a.jpg"


def test_cvat_attribute_difficult_and_labels_of_other_tasks(tmp_path: Path) -> None:
    box = '<box label="{}" xtl="1" ytl="2" xbr="9" ybr="9"><attribute name="difficult">{}</attribute></box>'
    found = read_cvat(tmp_path, box.format("cat", "true") + box.format("cow", "false"))
    assert found.columns.difficult.tolist() == [True, False]
    assert list(found.names) == ["cat", "dog", "cow"]
    assert found.num_declared == 2


def test_cvat_subsets_are_splits_even_with_images_of_one_name(tmp_path: Path) -> None:
    other = replace(A, objects=(("cat", (1, 2, 30, 40)),), size_px=(50, 60))
    write_cvat(tmp_path, [A, other], subsets=["Train", "Validation"])
    assert objects_of(CVAT().read(tmp_path, "Train")) == expected(A)
    validation = CVAT().read(tmp_path, "validation")
    assert objects_of(validation) == expected(other)
    assert validation.columns.image_paths[0] == str(tmp_path / "images/Validation/a.jpg")
    assert set(CVAT().files(tmp_path, "Train")).isdisjoint(CVAT().files(tmp_path, "Validation"))
    whole = CVAT().read(tmp_path, ".")
    assert len(set(whole.columns.image_paths)) == len(set(whole.columns.image_ids)) == 2
    with pytest.raises(DataError, match="Train, Validation"):
        CVAT().read(tmp_path, "test")


def test_cvat_for_video_and_foreign_xml_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "annotations.xml"
    for content, text in [
        ('<annotations><track id="0" label="cat"><box frame="0"/></track></annotations>', "CVAT for images"),
        ("<annotation></annotation>", "<annotation>"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotations>&x;</annotations>', "entities"),
    ]:
        path.write_text(content)
        with pytest.raises(DataError, match=text):
            CVAT().read(tmp_path, ".")


def read_via(root: Path, *regions: dict[str, Any]) -> Annotations:
    paint(root, [replace(A, objects=())])
    numbered = {str(number): region for number, region in enumerate(regions)}  # as VIA 1 does
    (root / "via.json").write_text(json.dumps({"a.jpg99": {"filename": "a.jpg", "size": 99, "regions": numbered}}))
    return VIA().read(root, "via")


def via_region(name: str, attributes: dict[str, Any] | None = None, **shape: Any) -> dict[str, Any]:
    return {"shape_attributes": {"name": name, **shape}, "region_attributes": attributes or {}}


def test_via_shapes_become_bounding_boxes_and_are_counted(tmp_path: Path) -> None:
    found = read_via(
        tmp_path,
        via_region("polygon", all_points_x=[10, 30, 20], all_points_y=[10, 5, 40]),
        via_region("circle", cx=50, cy=50, r=5),
        via_region("ellipse", cx=50, cy=50, rx=20, ry=10, theta=np.pi / 2),
        via_region("rect", x=1, y=2, width=3, height=4),
    )
    boxes = [[10, 5, 30, 40], [45, 45, 55, 55], [40, 30, 60, 70], [1, 2, 4, 6]]
    np.testing.assert_allclose(found.columns.boxes_xyxy_px, boxes, atol=1e-4)
    assert list(found.names) == ["object"]
    assert [note.split()[0] for note in found.notes] == [f"{tmp_path}/via.json:", "3"]


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({"colour": "red", "Label": "cat ", "difficult": "1"}, "cat"),
        ({"pet": "cat", "difficult": "1"}, "cat"),  # the only one
        ({"type": {"cat": True, "dog": False}, "difficult": "1"}, "cat"),
    ],
)
def test_via_class_is_an_attribute(attributes: dict[str, Any], name: str, tmp_path: Path) -> None:
    found = read_via(tmp_path, via_region("rect", attributes, x=1, y=2, width=3, height=4))
    assert list(found.names) == [name]
    assert found.columns.difficult.tolist() == [True]


@pytest.mark.parametrize(
    ("region", "value"),
    [
        (via_region("point", cx=1, cy=2), "'point'"),
        (via_region("rect", x=1, y=2, width="wide", height=4), "'wide'"),
        (via_region("polygon", all_points_x=[1, 2], all_points_y=[1]), "[1, 2]"),
        (via_region("rect", {"class": {"cat": True, "dog": True}}, x=1, y=2, width=3, height=4), "cat, dog"),
    ],
)
def test_via_regions_that_are_no_objects(region: dict[str, Any], value: str, tmp_path: Path) -> None:
    (problem,) = read_via(tmp_path, region).problems
    assert value in problem.text
    assert problem.item.startswith("region 1 ")


def test_via_files_that_are_none(tmp_path: Path) -> None:
    box = {"x": 1, "y": 2, "width": 3, "height": 4}
    with pytest.raises(DataError, match="colour, age"):
        read_via(tmp_path, via_region("rect", {"colour": "red", "age": "3"}, **box))
    for content, said in (("{}", "no images"), ("[]", "no images"), ('{"a": 1}', "'a'")):
        (tmp_path / "via.json").write_text(content)
        with pytest.raises(DataError, match=said):
            VIA().read(tmp_path, "via")
    header = "filename,region_shape_attributes,region_attributes"
    for content, said in (("filename,a\n", "region_shape_attributes"), (f"{header}\na.jpg,x,{{}}\n", "line 2")):
        (tmp_path / "via.csv").write_text(content)
        with pytest.raises(DataError, match=said):
            VIA().read(tmp_path, "via.csv")


def read_tasks(root: Path, *tasks: dict[str, Any]) -> Annotations:
    paint(root, [replace(A, objects=())])
    (root / "tasks.json").write_text(json.dumps(tasks))
    return LabelStudio().read(root, "tasks.json")


def task(*results: dict[str, Any], image: str = "s3://bucket/photos/a.jpg", **more: Any) -> dict[str, Any]:
    return {"id": 7, "data": {"image": image}, "annotations": [{"result": list(results)}]} | more


CORNER = {"x": 20, "y": 40, "width": 10, "height": 20}  # of the image of 200 x 100: 40, 40, 60, 60


@pytest.mark.parametrize(
    ("kind", "value", "box"),
    [
        ("rectanglelabels", CORNER | {"rotation": 90}, [20, 40, 40, 60]),
        ("rectanglelabels", CORNER | {"rotation": 30}, [30, 40, 57.3205, 67.3205]),
        ("polygonlabels", {"points": [[10, 10], [30, 5], [20, 40]]}, [20, 5, 60, 40]),
        ("ellipselabels", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 10, "rotation": 0}, [80, 40, 120, 60]),
        ("ellipselabels", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 10, "rotation": 90}, [90, 30, 110, 70]),
    ],
)
def test_label_studio_shapes(kind: str, value: dict[str, Any], box: list[float], tmp_path: Path) -> None:
    keypoint = region(A, {"x": 5, "y": 5, "width": 0.5, "keypointlabels": ["nose"]}, "keypointlabels", id="k")
    found = read_tasks(tmp_path, task(region(A, value | {kind: ["cat"]}, kind, id="r"), keypoint))
    assert found.columns.boxes_xyxy_px[0] == pytest.approx(box, abs=1e-3)
    assert list(found.names) == ["cat"]
    assert not found.problems
    assert found.notes[0].startswith("1 ")


def test_label_studio_shape_and_label_as_two_results(tmp_path: Path) -> None:
    results = region(A, CORNER, "rectangle", id="r"), region(A, CORNER | {"labels": ["cat"]}, "labels", id="r")
    choice = {"from_name": "day", "to_name": "text", "type": "choices", "value": {"choices": ["sunny"]}, "id": "c"}
    found = read_tasks(tmp_path, task(choice, *results, data={"text": "a cat", "image": "a.jpg"}))
    assert objects_of(found) == {"a.jpg": [("cat", pytest.approx([40, 40, 60, 60]))]}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (CORNER | {"rectanglelabels": []}, "[]"),
        (CORNER | {"rectanglelabels": ["cat", "dog"]}, "'dog'"),
        (CORNER | {"x": None, "rectanglelabels": ["cat"]}, "x None"),
        ({"rle": [1, 2], "format": "rle", "brushlabels": ["cat"]}, "brush"),
        (CORNER | {"width": 0, "rectanglelabels": ["cat"]}, "no area"),
    ],
)
def test_label_studio_shapes_that_are_no_objects(value: dict[str, Any], text: str, tmp_path: Path) -> None:
    (problem,) = read_tasks(tmp_path, task(region(A, value, id="r"))).problems
    assert text in problem.text
    assert "object 1" in problem.item
    assert "a.jpg" in problem.item


def test_label_studio_annotations_of_several_people(tmp_path: Path) -> None:
    cancelled, first, second = (
        {"was_cancelled": name == "x", "result": [region(A, CORNER | {"rectanglelabels": [name]}, id=name)]}
        for name in ("x", "first", "second")
    )
    found = read_tasks(
        tmp_path,
        task(id=3, annotations=[cancelled, first, second], predictions=[second]),
        task(id=4, annotations=[cancelled], image="open.jpg"),
    )
    assert list(found.names) == ["first"]
    more, unfinished = found.notes
    assert "task is 3" in more
    assert "first is 4" in unfinished


def test_a_task_whose_image_was_rotated_is_a_problem(tmp_path: Path) -> None:
    turned = region(A, CORNER | {"rectanglelabels": ["cat"]}, id="r", image_rotation=90)
    found = read_tasks(tmp_path, task(turned), task(id=8, image="b.jpg"))
    problem = found.problems[0]
    assert not len(found.columns.labels)
    assert problem.file == str(tmp_path / "tasks.json")
    assert all(part in problem.text for part in ("task 7", "image_rotation 90", "photos/a.jpg"))


@pytest.mark.parametrize(
    "link",
    [
        "/data/upload/1/0a1b2c3d-a.jpg",
        "/data/local-files/?d=photos/a.jpg",
        "https://host.example/x/a.jpg?Expires=1&Signature=%2F",
        "gs://bucket/a.jpg",
        "a.jpg",
    ],
)
def test_label_studio_links(link: str, tmp_path: Path) -> None:
    for key in ("image", "photo"):
        found = read_tasks(tmp_path, task(data={"text": "a cat", key: link}))
        assert objects_of(found) == {"a.jpg": []}


def test_images_in_a_folder_of_any_name_but_a_split(tmp_path: Path) -> None:
    read_tasks(tmp_path, task())
    for folder, kinds in (("my photos", []), ("test2017", ["missing"])):
        (tmp_path / folder).mkdir()
        next(tmp_path.rglob("a.jpg")).rename(tmp_path / folder / "a.jpg")
        problems = LabelStudio().read(tmp_path, "tasks").problems
        assert [problem.kind for problem in problems] == kinds


def test_label_studio_finds_the_images_of_each_storage(tmp_path: Path) -> None:
    links = ["/data/local-files/?d=imgs/a.jpg", "s3://bucket/raw/b.jpg", "/data/upload/1/0a1b2c3d-c.jpg"]
    for folder, name in (("imgs", "a.jpg"), ("cloud/images", "b.jpg"), ("up", "c.jpg")):
        paint(tmp_path / folder, [replace(A, name=name)])
    tasks = [task(id=number, image=link) for number, link in enumerate(links)]
    (tmp_path / "p.json").write_text(json.dumps(tasks))
    found = LabelStudio().read(tmp_path, "p")
    assert not found.problems
    paths = [str(tmp_path / path) for path in ("imgs/a.jpg", "cloud/images/b.jpg", "up/c.jpg")]
    assert list(found.columns.image_paths) == paths


def test_label_studio_uploads_of_one_name_are_not_confused(tmp_path: Path) -> None:
    links = [f"/data/upload/1/{prefix}-a.jpg" for prefix in ("0a1b2c3d", "0a1b2c3e")]
    found = read_tasks(tmp_path, *(task(id=number, image=link) for number, link in enumerate(links)))
    assert [problem.kind for problem in found.problems] == ["missing", "missing"]
    assert len({problem.image_id for problem in found.problems}) == 2


def test_darknet_with_folders_of_its_own_and_splits(tmp_path: Path) -> None:
    """As AlexeyAB's darknet describes it: all paths start above `data`."""
    write_darknet(tmp_path / "data", [A, EMPTY])
    (tmp_path / "data/obj_train_data").rename(tmp_path / "data/obj")
    for split, image in (("train", A), ("test", EMPTY)):
        (tmp_path / f"data/{split}.txt").write_text(f"data/obj/{image.name}\n")
    settings = "classes= 2\ntrain  = data/train.txt\nvalid  = data/test.txt\nnames = data/obj.names\nbackup = backup/\n"
    (tmp_path / "data/obj.data").write_text(settings)
    assert objects_of(YOLO().read(tmp_path, "train")) == expected(A)
    assert objects_of(YOLO().read(tmp_path, "val")) == expected(EMPTY)
    names = tmp_path / "data/obj.names"
    names.write_text("cat\n\ndog\n")  # blank lines count, as in classes.txt
    assert objects_of(YOLO().read(tmp_path, "train")) != expected(A)


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ("names: [cat, dog]\ntrain: images/train", "images/train"),
        ("names: {1: dog, 0: cat}\npath: {root}\ntrain: images/train", "images/train"),
        ("names:\n- cat\n- dog\ntrain: {root}/images/train", "images/train"),
        ("names: [cat, dog]\npath: ../elsewhere\ntrain: images/train", "images/train"),
        ("names: [cat, dog]\ntrain: ../train/images", "train/images"),
        ("names: [cat, dog]\ntrain: [train/images, more/images]", "train/images"),
        ("names: [cat, dog]\ntrain: list.txt", "images/train"),
        ("path: .\ntrain: images/train", "images/train"),
    ],
)
def test_yolo_settings(settings: str, place: str, tmp_path: Path) -> None:
    paint(tmp_path / place, [A])
    (tmp_path / "more/images").mkdir(parents=True)
    labels = tmp_path / place.replace("images", "labels")
    labels.mkdir(parents=True)
    (labels / "a.txt").write_text(yolo_text(A))
    (tmp_path / "list.txt").write_text("./images/train/a.jpg\n")
    if "names" not in settings:
        (tmp_path / "classes.txt").write_text("cat\ndog\n")
    for file in (tmp_path / "data.yaml", tmp_path / "my set.yml"):
        file.write_text(settings.replace("{root}", str(tmp_path)))
        assert objects_of(YOLO().read(tmp_path, "train")) == expected(A)
        file.unlink()


def test_yolo_names_next_to_the_labels(tmp_path: Path) -> None:
    """labelImg and Roboflow's darknet export."""
    for folder, name in (("train", "_darknet.labels"), ("valid", "classes.txt")):
        paint(tmp_path / folder, [A])
        (tmp_path / folder / "a.txt").write_text(yolo_text(A))
        (tmp_path / folder / name).write_text("cat\ndog\n")
        assert objects_of(YOLO().read(tmp_path, folder)) == expected(A)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("image_id,width,height,bbox,source", 'a,200,100,"[10, 20, 100, 60]",x'),  # Kaggle
        ("filename,x,y,w,h,label", "a.jpg,10,20,100,60,object"),
        ("image,x_center,y_center,width,height,class", "a.jpg,60,50,100,60,object"),
        ("img,x0,y0,x1,y1,classname", "a.jpg,10,20,110,80,object"),
        ("ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax", "a,x,object,1,0.05,0.55,0.2,0.8"),
    ],
)
def test_csv_columns(header: str, row: str, tmp_path: Path) -> None:
    paint(tmp_path / "train", [A])
    (tmp_path / "train.csv").write_text(f"\ufeff{header}\r\n{row}\r\n")
    assert objects_of(CSV().read(tmp_path, "train")) == {"a.jpg": [("object", pytest.approx([10, 20, 110, 80]))]}


def test_csv_without_header_whose_first_image_has_no_objects(tmp_path: Path) -> None:
    paint(tmp_path, [A, EMPTY])
    write_rows(tmp_path / "train.csv", [["b.png", *[""] * 5], ["a.jpg", -0.5, 5, 40.5, 45, "cat"]])
    assert list(objects_of(CSV().read(tmp_path, "train")).values()) == [[], [("cat", [0, 5, 40.5, 45])]]


def record(image: Spec, /, **more: Any) -> dict[str, Any]:
    names, boxes = [name for name, _ in image.objects], np.array([box for _, box in image.objects])
    return {"image": image.name, "boxes": boxes, "labels": names, **more}


def test_records_are_a_format(tmp_path: Path) -> None:
    paint(tmp_path, [A, EMPTY])
    records = Records(train=[record(A, difficult=[True, False], size_px=(100, 200), image_id="first"), record(EMPTY)])
    assert repr(records) != repr(Records(train=[record(EMPTY)]))
    found = records.read(tmp_path, "train")
    assert objects_of(found) == expected(A, EMPTY)
    assert list(found.columns.image_ids[:]) == ["first", "b"]
    assert sorted(found.columns.difficult.tolist()) == [False, True]
    dataset = DatasetOpener(format=records)(splits=[{"root": tmp_path, "split": "train"}])
    assert (len(dataset), dataset.class_names) == (2, ("cat", "dog"))
    with pytest.raises(DataError, match="train"):
        records.read(tmp_path, "test")


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"labels": ["cat"]}, "2 boxes, 1 labels"),
        ({"labels": ["cat", 3]}, "label 3"),
        ({"labels": "cat"}, "'labels' is 'cat'"),
        ({"boxes": [10, 20, 30, 40]}, "'boxes' is [10, 20, 30, 40]"),
        ({"boxes": np.array([10, 20, 30, 40])}, "'boxes' is array([10, 20, 30, 40])"),
        ({"boxes": 3}, "'boxes' is 3"),
        ({"difficult": True}, "'difficult' is True"),
        ({"difficult": np.array(True)}, "'difficult' is array(True)"),
        ({"boxes": [[1, 2, 3], [1, 2, 30, 40]]}, "[1, 2, 3]"),
        ({"boxes": [[1, 2, float("nan"), 9], [1, 2, 30, 40]]}, "nan"),
        ({"boxes": [[1, 2, 300, 9], [1, 2, 30, 40]]}, "300"),
        ({"boxes": [[0.1, 0.2, 0.5, 0.9], [1, 2, 30, 40]]}, "fractions"),
        ({"difficult": [0, "perhaps"]}, "perhaps"),
        ({"size_px": (0, 10)}, "(0, 10)"),
        ({"image": "gone.jpg"}, "gone.jpg"),
        ({"image_id": "b"}, "'b'"),
    ],
)
def test_bad_records_are_problems(more: dict[str, Any], text: str, tmp_path: Path) -> None:
    paint(tmp_path, [A, EMPTY])
    found = annotations_from_records([record(EMPTY, image_id="b"), record(A, **more)], root=tmp_path)
    (problem,) = found.problems
    assert text in str(problem)
    assert "record 2" in str(problem)


def test_a_misspelt_key_of_a_record(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="record 1 has the key 'dificult'"):
        annotations_from_records([record(A, dificult=[True, True])], root=tmp_path)


def test_the_example_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(Path(__file__).parents[3] / "examples/from_records.py"), run_name="__main__")
    assert "8 images" in capsys.readouterr().out


def test_tasks_of_one_id_and_two_images_are_two(tmp_path: Path) -> None:
    value = {"x": 10, "y": 10, "width": 50, "height": 50, "rectanglelabels": ["cat"]}
    region = {"id": "r", "type": "rectanglelabels", "value": value, "original_width": 20, "original_height": 10}
    names = ("a.jpg", "b.jpg", "a.jpg")
    tasks = [{"id": 1, "data": {"image": name}, "annotations": [{"result": [region]}]} for name in names]
    (tmp_path / "result.json").write_text(json.dumps(tasks))
    for name in names:
        Image.new("RGB", (20, 10)).save(tmp_path / name)
    found = LabelStudio().read(tmp_path, "result.json")
    assert found.columns.boxes_xyxy_px.tolist() == [[2, 1, 12, 6]] * 2
    assert any("1 tasks have more than one annotation" in note for note in found.notes)
