"""What is COCO's alone: categories, crowds, sizes, and JSON that is not what it should be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.annotation_tools import Spec, check_messages, paint, put
from helpers.datasets import open_coco
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.formats import COCO, Auto
from ssd_lightning.data.split_annotations import Annotations
from ssd_lightning.errors import DataError

CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 3, "name": "car"}]


def write(
    root: Path, annotations: list[dict[str, Any]], place: str = "annotations/instances_train.json", **changes: Any
) -> None:
    paint(root / "train", [Spec("000000000139.jpg", (100, 200))])
    content = {
        "images": [{"id": 139, "file_name": "000000000139.jpg", "width": 200, "height": 100}],
        "annotations": [{"id": 5, "image_id": 139, **entry} for entry in annotations],
        "categories": CATEGORIES,
    } | changes
    put(root / place, json.dumps({key: value for key, value in content.items() if value is not None}))


def read(root: Path, split: str = "train", **settings: Any) -> DetectionDataset:
    return open_coco(splits=[{"root": str(root), "split": split}], **settings)


def test_ids_with_holes_become_labels_without(tmp_path: Path) -> None:
    write(tmp_path, [{"category_id": number, "bbox": [1, 2, 30, 40]} for number in (90, 1, 3)])
    dataset = read(tmp_path)
    assert dataset.class_names == ("person", "car", "toothbrush")
    assert dataset.annotations[0].labels.tolist() == [3, 1, 2]
    assert dataset.annotations[0].boxes_xyxy_px[0].tolist() == [1, 2, 31, 42]
    assert dataset.annotations[0].image_id == "000000000139"


@pytest.mark.parametrize(
    ("image_id", "stated_id", "category_id"), [(139, "139", "3"), ("139.0", 139.0, 3.0), ("a", "a", 3)]
)
def test_a_number_is_a_number_however_it_is_written(
    tmp_path: Path, image_id: Any, stated_id: Any, category_id: Any
) -> None:
    images = [{"id": image_id, "file_name": "000000000139.jpg", "width": 200.0, "height": "100"}]
    categories = [{"id": 1.0, "name": "person"}, {"id": "3", "name": "car"}]
    entry = {"id": 5.0, "image_id": stated_id, "category_id": category_id, "bbox": [1, "2", 30.0, 40]}
    write(tmp_path, [entry], images=images, categories=categories)
    dataset = read(tmp_path)
    assert dataset.class_names == ("person", "car")
    assert dataset.annotations[0].labels.tolist() == [2]
    assert dataset.annotations[0].size_px == (100, 200)


def test_an_unset_box_is_that_of_the_outline(tmp_path: Path) -> None:
    unset: list[Any] = [[0, 0, 0, 0], [0.0] * 4, [], None]
    outlines = [{"category_id": 1, "bbox": bbox, "segmentation": [[10, 20, 40, 20, 40, 60]]} for bbox in unset]
    write(tmp_path, [*outlines, {"category_id": 3, "bbox": [0, 0, 9, 9]}])
    assert read(tmp_path).annotations[0].boxes_xyxy_px.tolist() == [[10, 20, 40, 60]] * 4 + [[0, 0, 9, 9]]
    write(tmp_path, [{"category_id": 1, "bbox": [0, 0, 0, 0], "segmentation": []}])
    with pytest.raises(DataError, match=r"instances_train.json: annotation 5 'person' .* has no area"):
        read(tmp_path)


@pytest.mark.parametrize("form", [int, "{}.0".format])
def test_large_ids_and_ids_with_zeros_stay_distinct(tmp_path: Path, form: Callable[[int], Any]) -> None:
    ids = [2**63, form(2**63 + 1), "007", "7"]
    images = [{"id": image_id, "file_name": f"{place}.jpg"} for place, image_id in enumerate(ids)]
    write(tmp_path, [{"image_id": 2**63 + 1, "category_id": 1, "bbox": [1, 2, 30, 40]}], images=images)
    paint(tmp_path / "train", [Spec(f"{place}.jpg", (100, 200)) for place in range(4)])
    assert [len(record.labels) for record in read(tmp_path).annotations] == [0, 1, 0, 0]


def test_a_key_says_what_is_difficult(tmp_path: Path) -> None:
    write(tmp_path, [{"category_id": 1, "bbox": [1, 2, 30, 40], "difficult": flag} for flag in (1, 0)])
    assert read(tmp_path).annotations[0].difficult.tolist() == [True, False]
    dataset = read(tmp_path, keep_difficult=False)
    assert dataset.annotations[0].difficult.tolist() == [False]
    assert dataset.skipped == "1 crowds or difficult objects are skipped; data.train_difficult=true keeps them"


GOOD = {"category_id": 1, "bbox": [1, 2, 3, 4]}
BAD_ANNOTATIONS: dict[str, dict[str, Any]] = {
    "'person' of 000000000139.jpg has the box None, not four numbers": {"category_id": 1},
    "has the box [1, 2, 3], not four numbers": GOOD | {"bbox": [1, 2, 3]},
    "has the box '1234', not four numbers": GOOD | {"bbox": "1234"},
    "has y None, which is not a number": GOOD | {"bbox": [1, None, 3, 4]},
    "has iscrowd '2'": GOOD | {"iscrowd": 2},
    "has difficult 'maybe'": GOOD | {"iscrowd": 1, "difficult": "maybe"},
    "'4' of 000000000139.jpg is of none of the 3 classes": GOOD | {"category_id": 4},
    "has image_id 7, which is not in 'images'": GOOD | {"image_id": 7},
    "has image_id 1.5, which is not": GOOD | {"image_id": 1.5},
    "'1.5' of 000000000139.jpg is of none of the 3": GOOD | {"category_id": 1.5},
    "has a segmentation of 3 numbers": {"category_id": 1, "segmentation": [[1, 2, 3]]},
    "has a segmentation that is neither points nor a mask: True": {"category_id": 1, "segmentation": True},
    "has segmentation {'size': [9, 9]}, which": {"category_id": 1, "segmentation": [{"size": [9, 9]}]},
}


def test_a_bad_annotation(tmp_path: Path) -> None:
    bad = [entry | {"id": number} for number, entry in enumerate(BAD_ANNOTATIONS.values(), start=5)]
    write(tmp_path, [*bad, {"category_id": 3, "bbox": [1, 2, 3, 4]}])
    dataset = read(tmp_path, on_error="skip")
    assert dataset.annotations[0].labels.tolist() == [2]
    file = f"{tmp_path}/annotations/instances_train.json"
    check_messages(
        dataset.dropped, {f"{file}: annotation {number} ": said for number, said in enumerate(BAD_ANNOTATIONS, start=5)}
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"categories": None}, "no list 'categories'; it has 'images', 'annotations'"),
        ({"images": [{"id": 1}]}, "entry 1 of 'images' has no 'file_name'"),
        ({"images": [{"id": n, "file_name": "a.jpg"} for n in (1, 1.0)]}, "have the same id"),
        ({"images": [{"id": 1.5, "file_name": "a.jpg"}]}, "entry 1 of 'images' has the id 1.5, which is not a whole"),
        *(
            ({"categories": [{"id": 2, "name": name}]}, said)
            for name, said in (
                (True, "category 2 has the name true; names have to be text in quotes"),
                (" ", 'category 2 has the name " "; names have to be text in quotes'),
                (None, "entry 1 of 'categories' has no 'name'"),
                ([], "entry 1 of 'categories' has no 'name'"),
                (1.5, "entry 1 of 'categories' has the name 1.5, which is not a whole number"),
            )
        ),
        ({"categories": [{"id": 2.5, "name": "car"}]}, "entry 1 of 'categories' has the id 2.5"),
        ({"categories": [*CATEGORIES, {"id": 2, "name": "car"}]}, "two of the 4 'categories' have the same name"),
    ],
)
def test_a_file_that_cannot_be(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    write(tmp_path, [], **changes)
    with pytest.raises(DataError, match=said):
        read(tmp_path)


ROOT = {"id": 0, "name": "pets", "supercategory": "none"}
PETS = [{"id": number, "name": name, "supercategory": "pets"} for number, name in ((1, "cat"), (2, "dog"))]
TWIN = {"id": 1, "name": "pets", "supercategory": "pets"}


@pytest.mark.parametrize(
    ("categories", "used", "class_names"),
    [
        ([ROOT, *PETS], 1, ("cat", "dog")),
        ([ROOT, TWIN], 1, ("pets",)),
        ([ROOT, TWIN, PETS[1]], 1, ("pets", "dog")),
        ([ROOT, *PETS], 0, ("pets", "cat", "dog")),  # a root with objects is a class
        ([ROOT, *PETS, {"id": 3, "name": "car", "supercategory": "none"}], 1, ("pets", "cat", "dog", "car")),
        ([TWIN, PETS[1]], 2, ("pets", "dog")),  # COCO's person is its own supercategory
        (CATEGORIES, 3, ("person", "car", "toothbrush")),  # classes that nobody annotated here stay
    ],
)
def test_a_root_without_objects_is_no_class(
    tmp_path: Path,
    categories: list[dict[str, Any]],
    used: int,
    class_names: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    write(tmp_path, [{"category_id": used, "bbox": [1, 2, 30, 40]}], categories=categories)
    with caplog.at_level("INFO"):
        dataset = read(tmp_path)
    assert dataset.class_names == class_names
    said = "instances_train.json: category 0 'pets' is not a class: it has no objects and only groups"
    assert (said in caplog.text) is (len(class_names) < len(categories))
    name = next(category["name"] for category in categories if category["id"] == used)
    assert dataset.annotations[0].labels.tolist() == [class_names.index(name) + 1]
    assert read(tmp_path, class_names=[name]).annotations[0].labels.tolist() == [1]


def test_names_with_a_folder_and_one_without(tmp_path: Path) -> None:
    stems = [f"{number:02d}" for number in range(12)]
    paint(tmp_path / "images", [Spec(f"{stem}.jpg", (100, 200)) for stem in stems])
    names = [*(f"images/{stem}.jpg" for stem in stems[:-2]), f"{stems[-2]}.jpg", f"other/{stems[-1]}.jpg"]
    images = [{"id": number, "file_name": name, "width": 200, "height": 100} for number, name in enumerate(names)]
    write(tmp_path, [], place="result.json", images=images)
    found = COCO().read(tmp_path, "result.json")
    assert list(found.columns.image_paths) == [str(tmp_path / f"images/{stem}.jpg") for stem in stems[:-1]]
    (missing,) = (problem for problem in found.problems if problem.kind == "missing")  # a file of another folder
    assert missing.file == str(tmp_path / f"other/{stems[-1]}.jpg")


def test_lvis_names_images_by_their_address(tmp_path: Path) -> None:
    url = "http://images.cocodataset.org/train2017/000000000139.jpg"
    images = [{"id": 139, "coco_url": url, "width": 200, "height": 100}]
    entry = {"category_id": 3, "bbox": [1, 2, 30, 40]}
    write(tmp_path, [entry], place="annotations/lvis_v1_train.json", images=images)
    found = Auto().read(tmp_path, "train")
    assert list(found.columns.image_paths) == [str(tmp_path / "train/000000000139.jpg")]


@pytest.mark.parametrize("text", ["[]", "[" * 100_000])
def test_no_json(tmp_path: Path, text: str) -> None:
    write(tmp_path, [])
    (tmp_path / "annotations/instances_train.json").write_text(text)
    with pytest.raises(DataError, match=r"instances_train.json: (this is not readable JSON|the JSON is a list)"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("boxes", "is_refused"),
    [
        ([[10, 20, 90, 100], [110, 50, 190, 90]], True),  # the image is 200 x 100
        ([[110, 50, 190, 90], [110, 50, 30, 20]], False),  # the second has no corners
        ([[10, 20, 90, 60], [10, 20, 80, 40]], False),  # fits both ways
        ([[10, 45, 90, 60], [10, 20, 80, 40]], False),  # overhangs by 5 % of the height, as drawn carelessly
    ],
)
def test_boxes_of_corners(tmp_path: Path, boxes: list[list[int]], is_refused: bool) -> None:
    write(tmp_path, [{"category_id": 3, "id": number, "bbox": box} for number, box in enumerate(boxes, start=7)])
    if is_refused:
        with pytest.raises(DataError, match=r"train\.json: annotation 7 'car' .*ymax is 120 of 100.*two corners"):
            COCO().read(tmp_path, "train")
    else:
        assert isinstance(COCO().read(tmp_path, "train"), Annotations)
