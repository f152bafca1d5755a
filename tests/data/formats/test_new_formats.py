"""What is alone that of labelme, CVAT, VIA, Label Studio and records in memory."""

import json
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.annotation_tools import (
    EMPTY,
    A,
    Spec,
    Thing,
    check_messages,
    expected,
    objects_of,
    paint,
    put,
    region,
    write_cvat,
    write_labelme,
)
from ssd_lightning.data.formats import CVAT, VIA, LabelMe, LabelStudio, Records, annotations_from_records
from ssd_lightning.data.reading import DatasetOpener
from ssd_lightning.data.split_annotations import Annotations
from ssd_lightning.errors import DataError

BARE = replace(A, things=())


def labelme(root: Path, *shapes: dict[str, Any], **more: Any) -> Annotations:
    paint(root, [BARE])
    content = {"shapes": shapes, "imagePath": "a.jpg", "imageHeight": 100, "imageWidth": 200} | more
    put(root / "a.json", json.dumps(content))
    return LabelMe().read(root, ".")


def shape(kind: str, points: Any, **more: Any) -> dict[str, Any]:
    return {"label": "cat", "shape_type": kind, "points": points, "flags": {}} | more


def cvat(root: Path, *shapes: str) -> Annotations:
    path = write_cvat(root, ".", [BARE])
    path.write_text(path.read_text().replace("</image>", f"{''.join(shapes)}</image>"))
    return CVAT().read(root, ".")


def via(root: Path, *regions: dict[str, Any]) -> Annotations:
    paint(root, [BARE])
    numbered = {str(number): one for number, one in enumerate(regions)}  # as VIA 1 does
    put(root / "via.json", json.dumps({"a.jpg99": {"filename": "a.jpg", "size": 99, "regions": numbered}}))
    return VIA().read(root, "via")


def via_region(name: str, attributes: dict[str, Any] | None = None, **shape: Any) -> dict[str, Any]:
    return {"shape_attributes": {"name": name, **shape}, "region_attributes": attributes or {"class": "cat"}}


def tasks(root: Path, *given: dict[str, Any]) -> Annotations:
    paint(root, [BARE])
    put(root / "tasks.json", json.dumps(given))
    return LabelStudio().read(root, "tasks.json")


def task(*results: dict[str, Any], image: str = "s3://bucket/photos/a.jpg", **more: Any) -> dict[str, Any]:
    return {"id": 7, "data": {"image": image}, "annotations": [{"result": list(results)}]} | more


def studio(root: Path, value: dict[str, Any]) -> Annotations:
    (kind,) = (key for key in value if key.endswith("labels"))
    keypoint = region(A, {"x": 5, "y": 5, "width": 0.5, "keypointlabels": ["nose"]}, "keypointlabels", id="k")
    return tasks(root, task(region(A, value, kind, id="r"), keypoint))


CAT = {"rectanglelabels": ["cat"]}
CORNER = {"x": 20, "y": 40, "width": 10, "height": 20}  # of the image of 200 x 100: 40, 40, 60, 60
ROUND = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 10, "ellipselabels": ["cat"]}
CUBOID = (
    '<cuboid label="cat" xtl1="10" ytl1="10" xbl1="10" ybl1="40" xtr1="30" ytr1="10" xbr1="30" ybr1="40" '
    'xtl2="40" ytl2="5" xbl2="40" ybl2="30" xtr2="20" ytr2="5" xbr2="20" ybr2="30"/>'
)
THETA = {"cx": 50, "cy": 50, "rx": 20, "ry": 10, "theta": np.pi / 2}
BOX = {"x": 1, "y": 2, "width": 3, "height": 4}
Read = Callable[..., Annotations]


@pytest.mark.parametrize(
    ("read", "drawn", "box"),
    [
        (labelme, shape("polygon", [[10, 10], [30, 5], [20, 40]]), [10, 5, 30, 40]),
        (labelme, shape("circle", [[50, 50], [53, 54]]), [45, 45, 55, 55]),
        (labelme, shape("rotation", [[60, 50], [70, 40], [80, 50], [70, 60]], direction=0.8), [60, 40, 80, 60]),
        (cvat, '<polygon label="cat" points="10.00,10.00;30.00,5.00;20.00,40.00"/>', [10, 5, 30, 40]),
        (cvat, '<ellipse label="cat" cx="50" cy="50" rx="20" ry="10" rotation="90"/>', [40, 30, 60, 70]),
        (cvat, '<box label="cat" xtl="40" ytl="40" xbr="60" ybr="50" rotation="90.00"/>', [45, 35, 55, 55]),
        (cvat, '<mask label="cat" rle="3, 4" left="10" top="20" width="30" height="40"/>', [10, 20, 40, 60]),
        (cvat, CUBOID, [10, 5, 40, 40]),
        (via, via_region("polygon", all_points_x=[10, 30, 20], all_points_y=[10, 5, 40]), [10, 5, 30, 40]),
        (via, via_region("circle", cx=50, cy=50, r=5), [45, 45, 55, 55]),
        (via, via_region("ellipse", **THETA), [40, 30, 60, 70]),
        (studio, CORNER | CAT | {"rotation": 30}, [30, 40, 57.3205, 67.3205]),
        (studio, {"points": [[10, 10], [30, 5], [20, 40]], "polygonlabels": ["cat"]}, [20, 5, 60, 40]),
        (studio, ROUND | {"rotation": 90}, [90, 30, 110, 70]),
    ],
)
def test_shapes_become_bounding_boxes_and_are_counted(read: Read, drawn: Any, box: list[float], tmp_path: Path) -> None:
    found = read(tmp_path, drawn)
    assert found.columns.boxes_xyxy_px[0] == pytest.approx(box, abs=1e-3)
    assert "cat" in found.names
    assert not found.problems
    (note,) = found.notes
    assert note.startswith("1 ")
    assert f"{'region' if read is via else 'object'} 1 'cat'" in note


@pytest.mark.parametrize(
    ("read", "drawn", "said"),
    [
        (labelme, shape("point", [[10, 10]]), "no area"),
        (labelme, shape("circle", [[10, 10]]), "1 points"),
        (labelme, shape("polygon", [[1, "x"]]), "'x'"),
        (labelme, shape("rectangle", [[1, 1], [5, 5]], flags={"difficult": "maybe"}), "maybe"),
        (cvat, '<skeleton label="cat"/>', "<skeleton>"),
        (cvat, '<polygon label="cat" points="10.00"/>', "10.00"),
        (cvat, '<box label="cat" xtl="60" ytl="40" xbr="50" ybr="50" rotation="5"/>', "inverted"),
        (cvat, '<box label="cat" ytl="40" xbr="60" ybr="50"/>', "xtl None"),
        (via, via_region("point", cx=1, cy=2), "'point'"),
        (via, via_region("rect", **BOX | {"width": "wide"}), "'wide'"),
        (via, via_region("polygon", all_points_x=[1, 2], all_points_y=[1]), "[1, 2]"),
        (via, via_region("rect", {"class": {"cat": True, "dog": True}}, **BOX), "cat, dog"),
        (studio, CORNER | {"rectanglelabels": []}, "[]"),
        (studio, CORNER | {"rectanglelabels": ["cat", "dog"]}, "'dog'"),
        (studio, CORNER | CAT | {"x": None}, "x None"),
        (studio, {"rle": [1, 2], "format": "rle", "brushlabels": ["cat"]}, "brush"),
    ],
)
def test_shapes_that_are_no_objects(read: Read, drawn: Any, said: str, tmp_path: Path) -> None:
    (problem,) = read(tmp_path, drawn).problems
    assert said in problem.text
    assert problem.item.startswith(("object 1 '", "region 1 '"))
    assert ("of a.jpg" in problem.item) is (read is not labelme)


def test_labelme_shapes_of_a_group_and_label_are_one_object(tmp_path: Path) -> None:
    """As in labelme's own labelme2coco.py."""
    found = labelme(
        tmp_path,
        shape("rectangle", [[60, 10], [80, 20]], group_id=1),
        shape("rectangle", [[1, 1], [5, 5]], label="dog", group_id=1),
        shape("rectangle", [[2, 2], [6, 6]], group_id=None),
        shape("polygon", [[90, 15], [99, 40], [85, 30]], group_id=1, flags={"difficult": True}),
        shape("rectangle", [[3, 3], [7, 7]], group_id=0),
        shape("rectangle", [[4, 4], [8, 8]]),
    )
    columns = found.columns
    boxes = [[60, 10, 99, 40], [1, 1, 5, 5], [2, 2, 6, 6], [3, 3, 7, 7], [4, 4, 8, 8]]
    assert columns.boxes_xyxy_px.tolist() == boxes
    assert columns.items.tolist() == [1, 2, 3, 5, 6]
    assert columns.difficult.tolist() == [True, False, False, False, False]
    assert [found.names[label - 1] for label in columns.labels] == ["cat", "dog", "cat", "cat", "cat"]
    assert [note[:2] for note in found.notes] == ["1 "]
    # A damaged part spoils the object: the rest would be a smaller one.
    good = shape("rectangle", [[1, 1], [5, 5]], group_id=1)
    found = labelme(tmp_path, good, shape("polygon", [[1, "x"]], group_id=1))
    assert ["'x'" in problem.text for problem in found.problems] == [True]
    assert len(found.columns.labels) == 0


def test_labelme_image_that_is_only_embedded(tmp_path: Path) -> None:
    found = labelme(tmp_path, imagePath="gone.jpg", imageData="iVBORw0KGgo=")
    assert objects_of(found) == {"a.jpg": []}  # by the name of the JSON file
    (tmp_path / "a.jpg").unlink()
    check_messages(LabelMe().read(tmp_path, ".").problems, {f"{tmp_path}/gone.jpg: ": "imageData"})


def test_labelme_splits_other_files_and_images_without_json(tmp_path: Path) -> None:
    write_labelme(tmp_path, "train", [A])
    paint(tmp_path / "train", [replace(EMPTY, name="c.png")])
    put(tmp_path / "train/settings.json", '{"shade": 1}')
    write_labelme(tmp_path, "valid", [EMPTY])
    notes = LabelMe().read(tmp_path, "train").notes
    assert sum("c.png" in note for note in notes) == 1
    assert sum("settings.json" in note for note in notes) == 1
    assert objects_of(LabelMe().read(tmp_path, "valid")) == expected(EMPTY)
    with pytest.raises(DataError, match="train, valid"):
        LabelMe().read(tmp_path, ".")
    write_labelme(tmp_path, "contest set", [A])
    write_labelme(tmp_path, "test_set", [EMPTY])
    assert any("the folders test_set are read" in note for note in LabelMe().read(tmp_path, ".").notes)


def test_labelme_json_apart_from_images(tmp_path: Path) -> None:
    path = write_labelme(tmp_path, "images", [A])
    content = json.loads(path.read_text())
    path.unlink()
    for stated in ("..\\images\\a.jpg", "C:\\Users\\me\\a.jpg"):
        put(tmp_path / "json/a.json", json.dumps(content | {"imagePath": stated}))
        assert objects_of(LabelMe().read(tmp_path, ".")) == expected(A)


def test_cvat_attribute_difficult_and_labels_of_other_tasks(tmp_path: Path) -> None:
    box = '<box label="{}" xtl="1" ytl="2" xbr="9" ybr="9"><attribute name="difficult">{}</attribute></box>'
    found = cvat(tmp_path, '<tag label="night"/>', box.format("cat", "true"), box.format("cow", "false"))
    assert found.columns.difficult.tolist() == [True, False]
    assert found.columns.items.tolist() == [1, 2]
    assert list(found.names) == ["cat", "dog", "cow"]
    assert found.num_declared == 2


def test_cvat_subsets_are_splits_even_with_images_of_one_name(tmp_path: Path) -> None:
    other = replace(A, things=(Thing("cat", (1, 2, 30, 40)),), size_px=(50, 60))
    write_cvat(tmp_path, ".", [A, other], subsets=["Train", "Validation"])
    assert objects_of(CVAT().read(tmp_path, "Train")) == expected(A)
    validation = CVAT().read(tmp_path, "validation")
    assert objects_of(validation) == expected(other)
    assert validation.columns.image_paths[0] == str(tmp_path / "images/Validation/a.jpg")
    assert set(CVAT().files(tmp_path, "Train")).isdisjoint(CVAT().files(tmp_path, "Validation"))
    whole = CVAT().read(tmp_path, ".")
    assert len(set(whole.columns.image_paths)) == len(set(whole.columns.image_ids)) == 2
    with pytest.raises(DataError, match="Train, Validation"):
        CVAT().read(tmp_path, "test")


VIA_HEADER = "filename,region_shape_attributes,region_attributes"


@pytest.mark.parametrize(
    ("reader", "file", "content", "said"),
    [
        (CVAT(), "train.xml", '<annotations><track id="0"><box frame="0"/></track></annotations>', "CVAT for images"),
        (CVAT(), "train.xml", "<annotation></annotation>", "<annotation>"),
        (VIA(), "train.json", "[]", "no images"),
        (VIA(), "train.json", '{"a": 1}', "'a'"),
        (VIA(), "train.csv", "filename,a\n", "region_shape_attributes"),
        (VIA(), "train.csv", f"{VIA_HEADER}\na.jpg,x,{{}}\n", "line 2"),
        (LabelStudio(), "train.json", "{}", "the JSON is a dict"),
        (LabelMe(), "train/a.json", "{}", "none of the 1 JSON files"),
    ],
)
def test_files_of_another_kind(reader: Any, file: str, content: str, said: str, tmp_path: Path) -> None:
    put(tmp_path / file, content)
    with pytest.raises(DataError, match=f"{tmp_path}/train.*{said}"):
        reader.read(tmp_path, "train")


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({"colour": "red", "Label": "cat ", "difficult": "1"}, "cat"),
        ({"pet": "cat", "difficult": "1"}, "cat"),  # the only one
        ({"type": {"cat": True, "dog": False}, "difficult": "1"}, "cat"),
        ({"difficult": "1"}, "object"),
    ],
)
def test_via_class_is_an_attribute(attributes: dict[str, Any], name: str, tmp_path: Path) -> None:
    found = via(tmp_path, via_region("rect", attributes, **BOX))
    assert list(found.names) == [name]
    assert found.columns.difficult.tolist() == [True]
    assert any(f"{tmp_path}/via.json" in note and "'object'" in note for note in found.notes) is (name == "object")
    with pytest.raises(DataError, match="colour, age"):
        via(tmp_path, via_region("rect", {"colour": "red", "age": "3"}, **BOX))


def test_label_studio_shape_and_label_as_two_results(tmp_path: Path) -> None:
    results = region(A, CORNER, "rectangle", id="r"), region(A, CORNER | {"labels": ["cat"]}, "labels", id="r")
    choice = {"from_name": "day", "to_name": "text", "type": "choices", "value": {"choices": ["sunny"]}, "id": "c"}
    found = tasks(tmp_path, task(choice, *results, data={"text": "a cat", "image": "a.jpg"}))
    assert objects_of(found) == {"a.jpg": [("cat", pytest.approx([40, 40, 60, 60]))]}


def test_label_studio_annotations_of_several_people_and_tasks_of_one_id(tmp_path: Path) -> None:
    cancelled, first, second = (
        {"was_cancelled": name == "x", "result": [region(A, CORNER | {"rectanglelabels": [name]}, id=name)]}
        for name in ("x", "first", "second")
    )
    found = tasks(
        tmp_path,
        task(id=3, annotations=[cancelled, first, second], predictions=[second]),
        task(id=4, annotations=[cancelled], image="open.jpg"),
    )
    assert list(found.names) == ["first"]
    more, unfinished = found.notes
    assert "task is 3" in more
    assert "first is 4" in unfinished
    paint(tmp_path, [replace(A, name="b.jpg")])
    found = tasks(tmp_path, *(task(*first["result"], image=name) for name in ("a.jpg", "b.jpg", "a.jpg")))
    assert found.columns.boxes_xyxy_px.round(3).tolist() == [[40, 40, 60, 60]] * 2
    assert any("1 tasks have more than one annotation" in note for note in found.notes)


def test_a_task_whose_image_was_rotated_is_a_problem(tmp_path: Path) -> None:
    turned = region(A, CORNER | CAT, id="r", image_rotation=90)
    found = tasks(tmp_path, task(turned), task(id=8, image="b.jpg"))
    assert not len(found.columns.labels)
    assert str(found.problems[0]).startswith(
        f"{tmp_path}/tasks.json: task 7 has image_rotation 90 for bucket/photos/a.jpg"
    )


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
    found = tasks(tmp_path, task(data={"text": "a cat", "photo": link}))
    assert objects_of(found) == {"a.jpg": []}


def test_label_studio_finds_the_images_of_each_storage(tmp_path: Path) -> None:
    links = ["/data/local-files/?d=imgs/a.jpg", "s3://bucket/raw/b.jpg", "/data/upload/1/0a1b2c3d-c.jpg"]
    for folder, name in (("imgs", "a.jpg"), ("cloud/images", "b.jpg"), ("up", "c.jpg")):
        paint(tmp_path / folder, [replace(A, name=name)])
    put(tmp_path / "p.json", json.dumps([task(id=number, image=link) for number, link in enumerate(links)]))
    found = LabelStudio().read(tmp_path, "p")
    assert not found.problems
    paths = [str(tmp_path / path) for path in ("imgs/a.jpg", "cloud/images/b.jpg", "up/c.jpg")]
    assert list(found.columns.image_paths) == paths


def test_label_studio_uploads_of_one_name_are_not_confused(tmp_path: Path) -> None:
    links = [f"/data/upload/1/{prefix}-a.jpg" for prefix in ("0a1b2c3d", "0a1b2c3e")]
    found = tasks(tmp_path, *(task(id=number, image=link) for number, link in enumerate(links)))
    assert [problem.kind for problem in found.problems] == ["missing", "missing"]
    assert len({problem.image_id for problem in found.problems}) == 2


def record(image: Spec, /, **more: Any) -> dict[str, Any]:
    names, boxes = [thing.name for thing in image.things], np.array([thing.box for thing in image.things])
    return {"image": image.name, "boxes": boxes, "labels": names, **more}


def test_records_are_a_format(tmp_path: Path) -> None:
    paint(tmp_path, [A, EMPTY])
    records = Records(train=[record(A, difficult=[True, False], size_px=(100, 200), image_id="first"), record(EMPTY)])
    assert repr(records) != repr(Records(train=[record(EMPTY)]))
    found = records.read(tmp_path, "train")
    assert objects_of(found) == expected(A, EMPTY)
    assert list(found.columns.image_ids) == ["first", "b"]
    assert sorted(found.columns.difficult.tolist()) == [False, True]
    dataset = DatasetOpener(format=records)(splits=[{"root": tmp_path, "split": "train"}])
    assert (len(dataset), dataset.class_names) == (2, ("cat", "dog"))
    with pytest.raises(DataError, match="train"):
        records.read(tmp_path, "test")
    with pytest.raises(DataError, match="record 1 has the key 'dificult'"):
        annotations_from_records([record(A, dificult=[True, True])], root=tmp_path)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"labels": ["cat"]}, "2 boxes, 1 labels"),
        ({"labels": ["cat", 3]}, "label 3"),
        ({"labels": "cat"}, "'labels' is 'cat'"),
        ({"boxes": [10, 20, 30, 40]}, "'boxes' is [10, 20, 30, 40]"),
        ({"boxes": 3}, "'boxes' is 3"),
        ({"difficult": np.array(True)}, "'difficult' is array(True)"),
        ({"boxes": [[1, 2, 3], [1, 2, 30, 40]]}, "[1, 2, 3]"),
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


def test_the_example_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(Path(__file__).parents[3] / "examples/from_records.py"), run_name="__main__")
    assert "8 images" in capsys.readouterr().out
