"""No split is lost in silence, and validation never becomes training."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.annotation_tools import A, Spec, paint, write_cvat, write_labelme, write_retinanet, yolo_text
from ssd_lightning.data.formats import Auto
from ssd_lightning.data.formats.detect import detect_format
from ssd_lightning.errors import DataError

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"


def write_coco(folder: Path, images: list[Spec]) -> Path:
    paint(folder, images)
    listed = [{"id": 1, "file_name": images[0].name, "width": 200, "height": 100}]
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]
    content = {"images": listed, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    path = folder / "_annotations.coco.json"
    path.write_text(json.dumps(content))
    return path


def write_voc(folder: Path, images: list[Spec]) -> Path:
    paint(folder, images)
    path = folder / "a.xml"
    path.write_text("<annotation><size><width>200</width><height>100</height></size></annotation>")
    return path


def write_yolo(folder: Path, images: list[Spec]) -> Path:
    paint(folder, images)
    path = folder / "a.txt"
    path.write_text(yolo_text(images[0]))
    return path


def write_csv(folder: Path, images: list[Spec]) -> Path:
    return write_retinanet(folder, images).rename(folder / "_annotations.csv")


WRITERS = (write_coco, write_voc, write_yolo, write_cvat, write_labelme, write_csv)
Writer = Callable[[Path, list[Spec]], Path]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_damaged_annotation_file_is_not_ignored(write: Writer, split: str, tmp_path: Path) -> None:
    paths = {folder: write(tmp_path / folder, [A]) for folder in ("train", "valid", "test")}
    for content, fault in ((LFS, "Git LFS"), ("" if write is not write_yolo else LFS, "")):
        paths[split].write_text(content)
        with pytest.raises(DataError, match=f"{re.escape(str(paths[split]))}: .*{fault}"):
            detect_format(tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_truncated_or_foreign_file_of_a_split_is_not_ignored(split: str, tmp_path: Path) -> None:
    (tmp_path / "coco/annotations").mkdir(parents=True)
    for name in ("train", "val"):
        write_coco(tmp_path / f"coco/{name}", [A]).rename(tmp_path / f"coco/annotations/instances_{name}.json")
        write_csv(tmp_path / f"csv/{name}", [A]).rename(tmp_path / f"csv/{name}.csv")
    damaged = tmp_path / f"coco/annotations/instances_{split}.json"
    damaged.write_text(damaged.read_text()[:100])
    with pytest.raises(DataError, match=f"{re.escape(str(damaged))}: .*JSON.*'{split}'"):
        detect_format(tmp_path / "coco")
    (tmp_path / f"csv/{split}.csv").write_text("fname,klasse,xmin,ymin,xmax,ymax\na.jpg,cat,1,2,3,4\n")
    with pytest.raises(DataError, match=f"{split}.csv: there is no column for the image.*klasse.*'{split}'"):
        detect_format(tmp_path / "csv")


def test_files_of_other_kinds_beside_the_annotations_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    for name in ("train", "val"):
        path = write_coco(tmp_path / name, [A])
        captions = {"images": [], "annotations": [{"image_id": 1, "caption": "a cat"}]}
        (tmp_path / f"annotations/captions_{name}.json").write_text(json.dumps(captions))
        (tmp_path / f"annotations/{name}_results.json").write_text('[{"image_id": 1, "bbox": [1, 2, 3, 4]}]')
        (tmp_path / name / "metadata.json").write_text("{}")
        path.rename(tmp_path / f"annotations/instances_{name}.json")
    (tmp_path / "annotations/instances_val_backup.json").write_text("{")
    found = detect_format(tmp_path)
    assert (found.splits, found.notes) == ({"train": "train", "val": "val"}, [])


def test_what_labels_have_beside_them_is_ignored(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_labelme(tmp_path / name, [A])
        (tmp_path / name / "predictions.json").write_text("[]")
    (tmp_path / "val").mkdir()
    (tmp_path / "val/predictions.json").write_text("[]")
    assert detect_format(tmp_path).splits == {"train": "train", "test": "test"}


def test_a_test_file_without_boxes_is_named(tmp_path: Path) -> None:
    write_retinanet(tmp_path, [A]).rename(tmp_path / "train.csv")
    (tmp_path / "test.csv").write_text("image_id,width\na,200\n")
    (note,) = detect_format(tmp_path).notes
    assert f"{tmp_path}/test.csv: there is no column" in note


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ["valid", "val2017", "test"])
def test_a_split_for_validation_or_test_alone_is_not_trained_on_unless_stated(
    write: Writer, name: str, tmp_path: Path
) -> None:
    write(tmp_path / name, [A])
    paint(tmp_path / "train/images", [A])
    with pytest.raises(
        DataError, match=f"{name}.*, and 1 images in train/images.*data.train_split=({name}.*) trains"
    ) as at:
        Auto().read(tmp_path, "train")
    split = re.findall("data.train_split=(.*) trains", str(at.value))[0]
    assert len(Auto().read(tmp_path, split).columns.image_ids) == 1


def test_labels_in_a_folder_of_a_wrong_name(tmp_path: Path) -> None:
    for name, labels in (("train", "lables"), ("val", "labels")):
        paint(tmp_path / name / "images", [A])
        (tmp_path / name / labels).mkdir()
        (tmp_path / name / labels / "a.txt").write_text(yolo_text(A))
    with pytest.raises(DataError, match=r"1 images in train/images.* 'train/lables' cannot be read"):
        Auto().read(tmp_path, "train")


def test_images_of_a_split_without_annotations_are_named(tmp_path: Path) -> None:
    write_voc(tmp_path / "train", [A])
    paint(tmp_path / "val", [A])
    (note,) = Auto().read(tmp_path, "train").notes
    assert all(part in note for part in (str(tmp_path), "'val'", "1 images in val"))


def test_a_validation_split_that_the_settings_state_is_gone(tmp_path: Path) -> None:
    write_yolo(tmp_path / "train", [A])
    (tmp_path / "data.yaml").write_text("train: train\nval: ../valid/images\nnames: [cat, dog]\n")
    (note,) = Auto().read(tmp_path, "train").notes
    assert all(part in note for part in ("data.yaml", "'val'", "../valid/images"))
