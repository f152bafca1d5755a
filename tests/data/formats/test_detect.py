"""A folder is opened with nothing but its path."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from helpers.annotation_tools import (
    CASES,
    EMPTY,
    A,
    Case,
    expected,
    objects_of,
    paint,
    write_cvat,
    write_darknet,
    write_label_studio,
    write_label_studio_min,
    write_labelme,
    write_retinanet,
    yolo_text,
)
from ssd_lightning.data.formats import COCO, CSV, CVAT, VOC, YOLO, Auto, LabelMe, LabelStudio
from ssd_lightning.data.formats.detect import detect_format
from ssd_lightning.errors import DataError


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_exports_with_one_split(case: Case, tmp_path: Path) -> None:
    inner = tmp_path / "Some export (1)"
    inner.mkdir()
    case.write(inner, [A, EMPTY])
    (tmp_path / "README.txt").write_text("Exported on Monday.\n")
    found = detect_format(tmp_path)
    assert type(found.format) is type(case.format)
    assert found.root == inner
    assert list(found.splits) == ["train"]
    assert objects_of(found.format.read(found.root, found.splits["train"])) == expected(A, EMPTY)
    assert type(case.format).__name__ in found.reason
    assert "2 images" in found.reason


XML = "<annotation><size><width>200</width><height>100</height></size></annotation>"


def voc_folders(root: Path) -> None:
    for folder in ("train", "valid", "test"):
        paint(root / folder, [A])
        (root / folder / "a.xml").write_text(XML)


def voc_folders_of_each_kind(root: Path) -> None:
    for folder in ("train", "val"):
        paint(root / "images" / folder, [A])
        (root / "annotations" / folder).mkdir(parents=True)
        (root / "annotations" / folder / "a.xml").write_text(XML)


def voc_folders_in_others(root: Path) -> None:
    voc_folders_of_each_kind(root)
    (root / "images").rename(root / "Images")


def voc_folders_of_coco(root: Path) -> None:
    voc_folders(root)
    (root / "train").rename(root / "train2017")
    (root / "valid").rename(root / "val2017")
    shutil.rmtree(root / "test")


def voc_lists(*names: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for folder in ("ImageSets/Main", "Annotations"):
            (root / folder).mkdir(parents=True)
        for name in names:
            paint(root / "JPEGImages", [replace(A, name=f"{name}.jpg")])
            (root / f"Annotations/{name}.xml").write_text(XML)
            lines = {"trainval": "trainval\nval", "cat_train": "train -1"}
            (root / f"ImageSets/Main/{name}.txt").write_text(lines.get(name, name))

    return write


def voc_without_lists(root: Path) -> None:
    voc_lists("a", "b")(root)
    for path in (root / "ImageSets/Main").iterdir():
        path.unlink()


def coco(*paths: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for number, path in enumerate(paths):
            image = replace(A, name=f"{number}.jpg")
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            images = [{"id": 1, "file_name": image.name, "width": 200, "height": 100}]
            box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
            content = {"info": {}, "images": images, "annotations": [box], "categories": [{"id": 1, "name": "cat"}]}
            (root / path).write_text(json.dumps(content))
            paint(root / path.rpartition("/")[0], [image])

    return write


def fiftyone(*folders: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        coco(*(f"{folder}/labels.json" for folder in folders))(root)
        for path in list(root.rglob("*.jpg")):
            (path.parent / "data").mkdir()
            path.rename(path.parent / "data" / path.name)

    return write


def yolo(*folders: str, settings: str = "") -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for folder in folders:
            paint(root / folder, [A])
            labels = root / folder.replace("images", "labels")
            labels.mkdir(parents=True, exist_ok=True)
            (labels / "a.txt").write_text(yolo_text(A))
        if settings:
            (root / "data.yaml").write_text(settings)

    return write


def yolo_with_empty_labels(split: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        yolo("images/train", f"images/{split}")(root)
        (root / "labels" / split / "a.txt").write_text("")

    return write


def darknet(root: Path) -> None:
    write_darknet(root, [A, EMPTY])
    (root / "valid.txt").write_text("data/obj_train_data/b.png\n")
    (root / "obj.data").write_text("train = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n")


def labelme_of_words(root: Path) -> None:
    write_labelme(root / "Training set", [A])
    write_labelme(root / "eval", [EMPTY])
    write_labelme(root / "test_set", [EMPTY])


def labelme(root: Path) -> None:
    write_labelme(root / "train", [A])
    write_labelme(root / "val", [EMPTY])


def label_studio(root: Path) -> None:
    for name in ("train", "validation"):
        write_label_studio(root, [A]).rename(root / f"{name}.json")


def kaggle(root: Path) -> None:
    paint(root / "train", [A])
    (root / "train.csv").write_text('image_id,width,height,bbox,source\na,200,100,"[1, 2, 3, 4]",x\n')
    (root / "sample_submission.csv").write_text("image_id,PredictionString\nb,1.0 0 0 50 50\n")


@pytest.mark.parametrize(
    ("write", "kind", "splits"),
    [
        (voc_folders, VOC, ("train", "valid", "test")),
        (voc_folders_of_each_kind, VOC, ("train", "val", None)),
        (voc_folders_in_others, VOC, ("annotations/train", "annotations/val", None)),
        (voc_lists("train", "val", "trainval", "test", "cat_train", "train_val"), VOC, ("train", "val", "test")),
        (voc_lists("trainval", "val", "test"), VOC, ("trainval", None, "test")),
        (voc_folders_of_coco, VOC, ("train2017", "val2017", None)),
        (voc_lists("default"), VOC, ("default", None, None)),
        (voc_without_lists, VOC, (".", None, None)),
        (coco("train/_annotations.coco.json", "valid/_annotations.coco.json"), COCO, ("train", "valid", None)),
        (
            coco(
                "annotations/instances_train2017.json",
                "annotations/instances_val2017.json",
                "annotations/person_keypoints_train2017.json",
            ),
            COCO,
            ("train2017", "val2017", None),
        ),
        (coco("result.json"), COCO, ("result", None, None)),
        (fiftyone("."), COCO, (".", None, None)),
        (fiftyone("train", "validation"), COCO, ("train", "validation", None)),
        (yolo("images/train", "images/val"), YOLO, ("train", "val", None)),
        (yolo("train/images", "valid/images", "test/images"), YOLO, ("train", "valid", "test")),
        (yolo("train", "valid"), YOLO, ("train", "valid", None)),
        (yolo_with_empty_labels("val"), YOLO, ("train", "val", None)),
        (yolo("images"), YOLO, (".", None, None)),
        (yolo("."), YOLO, (".", None, None)),
        (
            yolo("all/images", settings="train: all/images\nval: all/images\nnames: [a, b]"),
            YOLO,
            ("train", None, None),
        ),
        (
            yolo("train/images", "valid/images", settings="train: ../train/images\nval: ../valid/images\nnames: [a]"),
            YOLO,
            ("train", "val", None),
        ),
        (darknet, YOLO, ("train", "val", None)),
        (lambda root: write_cvat(root, [A, A], subsets=["Train", "Test"]), CVAT, ("Train", None, "Test")),
        (labelme, LabelMe, ("train", "val", None)),
        (labelme_of_words, LabelMe, ("Training set", "eval", "test_set")),
        (label_studio, LabelStudio, ("train", "validation", None)),
        (kaggle, CSV, ("train", None, None)),
    ],
)
def test_splits(
    write: Callable[[Path], None], kind: type, splits: tuple[str | None, str | None, str | None], tmp_path: Path
) -> None:
    write(tmp_path)
    found = detect_format(tmp_path)
    assert type(found.format) is kind
    assert tuple(map(found.splits.get, ("train", "val", "test"))) == splits
    for split in filter(None, splits):
        annotations = found.format.read(found.root, split)
        assert len(annotations.columns.image_ids) >= 1
        assert not annotations.problems


def test_the_format_of_most_images_wins_and_the_other_is_named(tmp_path: Path) -> None:
    write_labelme(tmp_path, [A])
    write_retinanet(tmp_path, [A, EMPTY])
    found = detect_format(tmp_path)
    assert type(found.format) is CSV
    assert "LabelMe (1 images)" in found.reason


def test_of_equals_the_one_with_class_names_wins(tmp_path: Path) -> None:
    yolo(".")(tmp_path)
    write_labelme(tmp_path, [A])
    assert type(detect_format(tmp_path).format) is LabelMe
    (tmp_path / "data.yaml").write_text("train: .\nnames: [cat, dog]")
    assert type(detect_format(tmp_path).format) is YOLO


def test_splits_that_are_not_used_are_named(tmp_path: Path) -> None:
    voc_lists("train", "extra")(tmp_path)
    assert "not used: extra" in detect_format(tmp_path).reason


def test_class_names_of_openimages_are_found(tmp_path: Path) -> None:
    paint(tmp_path / "train", [A])
    (tmp_path / "class-descriptions-boxable.csv").write_text("/m/01yrx,Cat\n")
    rows = "ImageID,LabelName,XMin,XMax,YMin,YMax\na,/m/01yrx,0.1,0.5,0.1,0.5\n"
    (tmp_path / "train-annotations-bbox.csv").write_text(rows)
    found = detect_format(tmp_path)
    assert list(found.format.read(tmp_path, found.splits["train"]).names) == ["Cat"]


def test_nothing_fits(tmp_path: Path) -> None:
    paint(tmp_path, [A])
    (tmp_path / "notes.json").write_text("{}")
    with pytest.raises(DataError, match=r"data\.yaml.*labelme.*CSV.*a\.jpg, notes\.json"):
        detect_format(tmp_path)


def test_an_empty_list_of_a_split_is_named(tmp_path: Path) -> None:
    voc_lists("train", "val")(tmp_path)
    (tmp_path / "ImageSets/Main/val.txt").write_text("\n")
    (note,) = detect_format(tmp_path).notes
    assert "the split 'val' is not used" in note
    assert "list is empty" in note
    assert "YOLO" not in note


def test_links_to_a_folder_around_them_are_not_followed(tmp_path: Path) -> None:
    voc_folders(tmp_path)
    (tmp_path / "train/latest").symlink_to(tmp_path)
    assert "(3 images;" in detect_format(tmp_path).reason


def test_images_of_settings_in_a_folder_of_their_own_are_counted(tmp_path: Path) -> None:
    yolo("train/images")(tmp_path)
    (tmp_path / "cfg").mkdir()
    (tmp_path / "cfg/data.yaml").write_text("train: ../train/images\nnames: [cat, dog]\n")
    assert "(1 images;" in detect_format(tmp_path).reason


def test_folders_that_are_too_deep_to_be_counted(tmp_path: Path) -> None:
    write_labelme(tmp_path, [A])
    write_labelme(tmp_path / "1/2/3/4/5/6", [A])
    assert "(at least 1 images;" in detect_format(tmp_path).reason


def test_yolo_labels_in_a_folder_of_another_name(tmp_path: Path) -> None:
    yolo("annotations")(tmp_path)
    paint(tmp_path / "images", [A])
    (tmp_path / "annotations/a.jpg").unlink()
    with pytest.raises(DataError, match=rf"{tmp_path}/annotations: .*'labels' beside the folder 'images'"):
        detect_format(tmp_path)


@pytest.mark.parametrize("pattern", ["{split}_zip/{split}", "{split}/{split}"])
@pytest.mark.parametrize("write", [None, write_labelme])
def test_a_split_in_a_folder_of_its_own_name(
    tmp_path: Path, pattern: str, write: Callable[[Path, list], None] | None
) -> None:
    for split in ("train", "test"):
        folder = tmp_path / pattern.format(split=split)
        if write is not None:
            folder.mkdir(parents=True)
            write(folder, [A])
        else:
            paint(folder, [A])
            (folder / "a.xml").write_text(XML)
    for split in ("train", "test"):
        found = Auto().read(tmp_path, split)
        (path,) = found.columns.image_paths
        assert path.startswith(str(tmp_path / split))
        assert found.notes == []


def test_lists_beside_the_annotations_are_the_splits(tmp_path: Path) -> None:
    paint(tmp_path / "images", [A, EMPTY])
    (tmp_path / "annotations").mkdir()
    for image, split in ((A, "train"), (EMPTY, "test")):
        stem = Path(image.name).stem
        (tmp_path / f"annotations/{stem}.xml").write_text(XML)
        (tmp_path / f"annotations/{split}.txt").write_text(f"{stem}\n")
    assert dict(detect_format(tmp_path).splits) == {"train": "train", "test": "test"}
    for image, split in ((A, "train"), (EMPTY, "test")):
        assert list(Auto().read(tmp_path, split).columns.image_ids) == [Path(image.name).stem]


def test_several_data_sets_in_a_folder(tmp_path: Path) -> None:
    for name in ("VOC2007", "VOC2012"):
        voc_lists("trainval")(tmp_path / name)
    with pytest.raises(DataError, match="VOC2007, VOC2012"):
        detect_format(tmp_path)


def test_splits_of_unknown_names(tmp_path: Path) -> None:
    voc_lists("monday", "tuesday")(tmp_path)
    with pytest.raises(DataError, match="monday, tuesday"):
        Auto().read(tmp_path, "train")
    assert list(Auto().read(tmp_path, "tuesday").columns.image_ids) == ["tuesday"]


def test_a_training_split_that_is_gone_is_not_replaced(tmp_path: Path) -> None:
    yolo("valid/images", settings="train: ../train/images\nval: ../valid/images\nnames: [cat, dog]")(tmp_path)
    with pytest.raises(DataError, match="train/images"):
        detect_format(tmp_path)


def test_a_damaged_settings_file_and_a_reader_that_refuses(tmp_path: Path) -> None:
    path = write_cvat(tmp_path, [A])
    path.write_text('<annotations><track id="0"/></annotations>')
    with pytest.raises(DataError, match="CVAT for images"):
        detect_format(tmp_path)
    (tmp_path / "data.yaml").write_text("names: [a")
    with pytest.raises(DataError, match=r"data\.yaml"):
        detect_format(tmp_path)


def test_images_beside_the_data_set_that_is_read_are_named(tmp_path: Path) -> None:
    yolo("images/train", settings="train: images/train\nnames: [cat, dog]\n")(tmp_path / "A")
    write_labelme(tmp_path / "B/more", [A, EMPTY])
    paint(tmp_path, [A])
    assert detect_format(tmp_path).root == tmp_path / "A"
    (note,) = Auto().read(tmp_path, "train").notes
    assert all(part in note for part in (f"{tmp_path}/A", "2 images in B/more", "1 images in ."))


def test_images_that_the_settings_name_outside_of_their_folder_are_read(tmp_path: Path) -> None:
    yolo("images/train")(tmp_path)
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings/data.yaml").write_text("train: ../images/train\nnames: [cat, dog]\n")
    found = detect_format(tmp_path)
    assert (found.root, found.notes) == (tmp_path / "settings", [])


def test_a_validation_split_of_the_training_images_is_reported(tmp_path: Path) -> None:
    yolo("all/images", settings="train: all/images\nval: ./all/images\nnames: [cat, dog]")(tmp_path / "yolo")
    coco("train/_annotations.coco.json")(tmp_path / "coco")
    (tmp_path / "coco/valid").symlink_to("train")
    write_retinanet(tmp_path / "csv", [A])
    (tmp_path / "csv/val.csv").symlink_to("train.csv")
    facts = {
        "yolo": ("yolo/data.yaml", "'val' and 'train'", "all/images"),
        "coco": (f"{tmp_path}/coco", "'valid' and 'train'", "train/_annotations.coco.json"),
        "csv": (f"{tmp_path}/csv", "'val' and 'train'", "csv/train.csv"),
    }
    for name, parts in facts.items():
        (note,) = Auto().read(tmp_path / name, "train").notes
        assert all(part in note for part in parts)
        with pytest.raises(DataError, match="there is no split 'val'"):
            Auto().read(tmp_path / name, "val")
    (note,) = YOLO().read(tmp_path / "yolo", "train").notes
    assert all(part in note for part in facts["yolo"])


def test_tasks_of_label_studio_are_counted_as_they_are_read(tmp_path: Path) -> None:
    path = write_label_studio_min(tmp_path, [A, EMPTY])
    first, second = json.loads(path.read_text())
    again = first | {"annotator": 2, "data": [1], "annotation_id": 9}
    for tasks in ([first, again, second], [{"data": "x", **one} for one in (first, second)]):
        path.write_text(json.dumps(tasks, separators=(", ", " : ")))
        assert "(2 images;" in detect_format(tmp_path).reason


def test_archives_are_to_be_unpacked(tmp_path: Path) -> None:
    for folder in ("alone", "beside"):
        (tmp_path / folder).mkdir()
        shutil.make_archive(str(tmp_path / folder / "set"), "zip", tmp_path / "alone")
    paint(tmp_path / "beside", [A])
    for root, archive in (("alone", "alone/set.zip"), ("alone/set.zip", "alone/set.zip"), ("beside", "beside/set.zip")):
        with pytest.raises(DataError, match=re.escape(f"{tmp_path}/{archive}") + r".* first"):
            detect_format(tmp_path / root)


def test_lists_of_one_class_are_no_splits(tmp_path: Path) -> None:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("default", "cat_default", "dog_default"):
        (tmp_path / f"ImageSets/Main/{name}.txt").write_text("a 1\n" if "_" in name else "a\n")
    (tmp_path / "Annotations/a.xml").write_text("<annotation/>")
    Image.new("RGB", (20, 10)).save(tmp_path / "JPEGImages/a.jpg")
    found = detect_format(tmp_path)
    assert found.splits == {"train": "default"}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("image,label,xmin,ymin,xmax,ymax\na.jpg,größe,1,2,3,4\n".encode("latin-1"), "train.csv: this is not readable"),
        (b"fname,label,xmin,ymin,xmax,ymax\na.jpg,cat,1,2,3,4\n", "train.csv: there is no column for the image"),
        (b'{"images": [], "annotations": [', "train.json: this is not readable JSON"),
        (b"version https://git-lfs.github.com/spec/v1\n", "train.json: this is a Git LFS pointer"),
        (b'{"images": [], "annotations": []}', "train.json: the JSON has the keys 'images', 'annotations', but"),
        (b"", "train.xml: the file is empty"),
        (b"Car 0.00 0 -1.5 5 6 7 8 1 1 1\n", "a.txt: the first line, 'Car 0.00"),
        (b'{"file_name": "a.jpg"}\n', "metadata.jsonl: the first line"),
    ],
)
def test_why_a_file_cannot_be_read(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / text.partition(":")[0]).write_bytes(content)
    paint(tmp_path, [A])  # a.jpg
    with pytest.raises(DataError, match=f"no format fits.*{re.escape(f'{tmp_path}/{text}')}"):
        detect_format(tmp_path)
