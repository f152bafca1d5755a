"""A folder is opened with nothing but its path; no split is lost in silence, and validation never becomes training."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from helpers.annotation_tools import (
    EMPTY,
    A,
    Spec,
    make,
    paint,
    put,
    write_coco,
    write_cvat,
    write_darknet,
    write_label_studio,
    write_label_studio_min,
    write_labelimg,
    write_labelme,
    write_retinanet,
    write_roboflow,
    write_yolo_flat,
)
from ssd_lightning.data.formats import COCO, CSV, CVAT, VOC, YOLO, Auto, LabelMe, LabelStudio
from ssd_lightning.data.formats.detect import detect_format
from ssd_lightning.errors import DataError

Write = Callable[[Path], object]


def folders(write: Callable[..., object], *names: str) -> Write:
    """Each folder is a split of the same image."""
    return lambda root: [write(root, name, [A]) for name in names]


def files(*places: str, settings: str = "") -> Write:
    """Write files as `make` does, and `data.yaml`."""

    def write(root: Path) -> None:
        make(root, *places)
        if settings:
            put(root / "data.yaml", settings)

    return write


def voc_lists(*names: str) -> Write:
    def write(root: Path) -> None:
        for name in names:
            make(root, f"JPEGImages/{name}.jpg", f"Annotations/{name}.xml")
            lines = {"trainval": "trainval\nval", "cat_train": "train -1"}
            put(root / f"ImageSets/Main/{name}.txt", lines.get(name, name))

    return write


def voc_without_lists(root: Path) -> None:
    make(root, "JPEGImages/a.jpg", "Annotations/a.xml")
    (root / "ImageSets/Main").mkdir(parents=True)


def coco(*paths: str) -> Write:
    def write(root: Path) -> None:
        for number, path in enumerate(paths):
            write_coco(root, path.rpartition("/")[0] or ".", [replace(A, name=f"{number}.jpg")], place=path)

    return write


def fiftyone(*names: str) -> Write:
    def write(root: Path) -> None:
        coco(*(f"{name}/labels.json" for name in names))(root)
        for path in list(root.rglob("*.jpg")):
            (path.parent / "data").mkdir()
            path.rename(path.parent / "data" / path.name)

    return write


def yolo_with_empty_labels(root: Path) -> None:
    make(root, "images/{train,val}/a.jpg", "labels/train/a.txt")
    put(root / "labels/val/a.txt", "")


def darknet(root: Path) -> None:
    write_darknet(root, "train", [A, EMPTY])
    put(root / "valid.txt", "data/obj_train_data/b.png\n")
    put(root / "obj.data", "train = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n")


def kaggle(root: Path) -> None:
    paint(root / "train", [A])
    put(root / "train.csv", 'image_id,width,height,bbox,source\na,200,100,"[1, 2, 3, 4]",x\n')
    put(root / "sample_submission.csv", "image_id,PredictionString\nb,1.0 0 0 50 50\n")


ALL_OF_YOLO = "train: all/images\nval: ./all/images\nnames: [cat, dog]"
OF_ROBOFLOW = "train: ../train/images\nval: ../valid/images\nnames: [cat, dog]"
INSTANCES = ("instances_train2017", "instances_val2017", "person_keypoints_train2017")


@pytest.mark.parametrize(
    ("write", "kind", "splits"),
    [
        (files("{train,valid,test}/a.{jpg,xml}"), VOC, "train, valid, test"),
        (files("images/{train,val}/a.jpg", "annotations/{train,val}/a.xml"), VOC, "train, val, -"),
        (
            files("Images/{train,val}/a.jpg", "annotations/{train,val}/a.xml"),
            VOC,
            "annotations/train, annotations/val, -",
        ),
        (voc_lists("train", "val", "trainval", "test", "cat_train", "train_val"), VOC, "train, val, test"),
        (voc_lists("trainval", "val", "test"), VOC, "trainval, -, test"),
        (voc_lists("default", "cat_default", "dog_default"), VOC, "default, -, -"),
        (voc_without_lists, VOC, "., -, -"),
        (coco(*(f"annotations/{name}.json" for name in INSTANCES)), COCO, "train2017, val2017, -"),
        (coco("result.json"), COCO, "result, -, -"),
        (fiftyone("."), COCO, "., -, -"),
        (fiftyone("train", "validation"), COCO, "train, validation, -"),
        (files("{train,valid}/images/a.jpg", "{train,valid}/labels/a.txt"), YOLO, "train, valid, -"),
        (files("{train,valid,test}/a.{jpg,txt}"), YOLO, "train, valid, test"),
        (yolo_with_empty_labels, YOLO, "train, val, -"),
        (files("images/a.jpg", "labels/a.txt"), YOLO, "., -, -"),
        (files("a.{jpg,txt}"), YOLO, "., -, -"),
        (files("all/images/a.jpg", "all/labels/a.txt", settings=ALL_OF_YOLO), YOLO, "train, -, -"),
        (
            files("{train,valid}/images/a.jpg", "{train,valid}/labels/a.txt", settings=OF_ROBOFLOW),
            YOLO,
            "train, val, -",
        ),
        (darknet, YOLO, "train, val, -"),
        (lambda root: write_cvat(root, ".", [A, A], subsets=["Train", "Test"]), CVAT, "Train, -, Test"),
        (folders(write_labelme, "Training set", "eval", "test_set"), LabelMe, "Training set, eval, test_set"),
        (folders(write_label_studio, "train", "validation"), LabelStudio, "train, validation, -"),
        (kaggle, CSV, "train, -, -"),
    ],
)
def test_splits(write: Write, kind: type, splits: str, tmp_path: Path) -> None:
    write(tmp_path)
    found = detect_format(tmp_path)
    assert type(found.format) is kind
    assert ", ".join(found.splits.get(name, "-") for name in ("train", "val", "test")) == splits
    for split in found.splits.values():
        annotations = found.format.read(found.root, split)
        assert len(annotations.columns.image_ids) >= 1
        assert not annotations.problems


def test_the_format_of_most_images_wins_or_the_one_with_class_names(tmp_path: Path) -> None:
    write_labelme(tmp_path / "most", ".", [A])
    write_retinanet(tmp_path / "most", "train", [A, EMPTY])
    found = detect_format(tmp_path / "most")
    assert type(found.format) is CSV
    assert "LabelMe (1 images)" in found.reason
    make(tmp_path / "same", "a.txt")
    write_labelme(tmp_path / "same", ".", [A])
    assert type(detect_format(tmp_path / "same").format) is LabelMe
    put(tmp_path / "same/data.yaml", "train: .\nnames: [cat, dog]")
    assert type(detect_format(tmp_path / "same").format) is YOLO


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (voc_lists("train", "extra"), "not used: extra"),
        (lambda root: (make(root, "train/a.{jpg,xml}"), (root / "train/latest").symlink_to(root)), "(1 images;"),
        (
            lambda root: (
                make(root, "train/images/a.jpg", "train/labels/a.txt"),
                put(root / "cfg/data.yaml", "train: ../train/images\nnames: [cat, dog]\n"),
            ),
            "(1 images;",
        ),
        (folders(write_labelme, ".", "1/2/3/4/5/6"), "(at least 1 images;"),
    ],
    ids=["unused split", "link to a folder around it", "images of settings elsewhere", "too deep to be counted"],
)
def test_what_the_reason_says(write: Write, said: str, tmp_path: Path) -> None:
    write(tmp_path)
    found = detect_format(tmp_path)
    assert said in found.reason
    assert list(found.notes) == []


def archive(root: Path) -> None:
    root.mkdir(exist_ok=True)
    shutil.make_archive(str(root / "set"), "zip", root)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (
            lambda root: (make(root, "a.jpg"), put(root / "notes.json", "{}")),
            r"data\.yaml.*labelme.*CSV.*a\.jpg, notes",
        ),
        (files("images/a.jpg", "annotations/a.txt"), r"set/annotations: .*'labels' beside the folder 'images'"),
        (lambda root: [voc_lists("trainval")(root / name) for name in ("VOC2007", "VOC2012")], "VOC2007, VOC2012"),
        (
            files("valid/images/a.jpg", "valid/labels/a.txt", settings=OF_ROBOFLOW),
            "train/images",
        ),  # a training split that is gone
        (lambda root: put(root / "annotations.xml", '<annotations><track id="0"/></annotations>'), "CVAT for images"),
        (lambda root: put(root / "data.yaml", "names: [a"), r"data\.yaml"),
        (archive, r"set/set\.zip.* first"),
        (lambda root: (archive(root), make(root, "a.jpg")), r"set/set\.zip.* first"),
    ],
)
def test_what_cannot_be_opened(write: Write, said: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write(tmp_path / "set")
    with pytest.raises(DataError, match=said):
        detect_format(tmp_path / "set")


@pytest.mark.parametrize("pattern", ["{split}_zip/{split}", "{split}/{split}"])
@pytest.mark.parametrize("write", [write_labelimg, write_labelme])
def test_a_split_in_a_folder_of_its_own_name(tmp_path: Path, pattern: str, write: Callable[..., Path]) -> None:
    for split in ("train", "test"):
        write(tmp_path, pattern.format(split=split), [A])
    for split in ("train", "test"):
        found = Auto().read(tmp_path, split)
        (path,) = found.columns.image_paths
        assert path.startswith(str(tmp_path / split))
        assert found.notes == []


def test_splits_of_unknown_names(tmp_path: Path) -> None:
    voc_lists("monday", "tuesday")(tmp_path)
    with pytest.raises(DataError, match="monday, tuesday"):
        Auto().read(tmp_path, "train")
    assert list(Auto().read(tmp_path, "tuesday").columns.image_ids) == ["tuesday"]


def test_images_beside_the_data_set_that_is_read_are_named(tmp_path: Path) -> None:
    files("images/train/a.jpg", "labels/train/a.txt", settings="train: images/train\nnames: [cat, dog]")(tmp_path / "A")
    write_labelme(tmp_path, "B/more", [A, EMPTY])
    paint(tmp_path, [A])
    assert detect_format(tmp_path).root == tmp_path / "A"
    (note,) = Auto().read(tmp_path, "train").notes
    assert all(part in note for part in (f"{tmp_path}/A", "2 images in B/more", "1 images in ."))


def test_a_validation_split_of_the_training_images_is_reported(tmp_path: Path) -> None:
    files("all/images/a.jpg", "all/labels/a.txt", settings=ALL_OF_YOLO)(tmp_path / "yolo")
    write_roboflow(tmp_path / "coco", "train", [A])
    (tmp_path / "coco/valid").symlink_to("train")
    write_retinanet(tmp_path / "csv", "train", [A])
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


def test_a_split_that_shares_images_with_training_is_named(tmp_path: Path) -> None:
    make(tmp_path, "JPEGImages/{a,b,c}.jpg", "Annotations/{a,b,c}.xml")
    put(tmp_path / "ImageSets/Main/train.txt", "a\nb\n")
    put(tmp_path / "ImageSets/Main/val.txt", "b\nc\n")
    found = detect_format(tmp_path)
    assert found.splits == {"train": "train"}
    said = "1 files of the split 'val' are in another split too, so it is not used by itself"
    assert found.notes == [f"{tmp_path}: {said}"]
    put(tmp_path / "ImageSets/Main/val.txt", "c\n")
    assert detect_format(tmp_path).notes == []


def test_tasks_of_label_studio_are_counted_as_they_are_read(tmp_path: Path) -> None:
    path = write_label_studio_min(tmp_path, "min", [A, EMPTY])
    first, second = json.loads(path.read_text())
    again = first | {"annotator": 2, "data": [1], "annotation_id": 9}
    for tasks in ([first, again, second], [{"data": "x", **one} for one in (first, second)]):
        path.write_text(json.dumps(tasks, separators=(", ", " : ")))
        assert "(2 images;" in detect_format(tmp_path).reason


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("image,label,xmin,ymin,xmax,ymax\na.jpg,größe,1,2,3,4\n".encode("latin-1"), "train.csv: this is not readable"),
        (b"fname,label,xmin,ymin,xmax,ymax\na.jpg,cat,1,2,3,4\n", "train.csv: there is no column for the image"),
        (b'{"images": [], "annotations": [', "train.json: this is not readable JSON"),
        (b"version https://git-lfs.github.com/spec/v1\n", "train.json: this is a Git LFS pointer"),
        (b'{"images": [], "annotations": []}', "train.json: the JSON has the keys 'images', 'annotations', but"),
        (b"[1]", "train.json: the JSON is a list"),
        (b"<html/>", "train.xml: the XML begins with <html>"),
        (b"", "train.xml: the file is empty"),
        (b"Car 0.00 0 -1.5 5 6 7 8 1 1 1\n", "a.txt: the first line, 'Car 0.00"),
        (b'{"file_name": "a.jpg"}\n', "metadata.jsonl: the first line"),
    ],
)
def test_why_a_file_cannot_be_read(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / text.partition(":")[0]).write_bytes(content)
    make(tmp_path, "a.jpg")
    with pytest.raises(DataError, match=f"no format fits.*{re.escape(f'{tmp_path}/{text}')}"):
        detect_format(tmp_path)


# Splits that would be lost


def write_csv(root: Path, split: str, images: list[Spec]) -> Path:
    return write_retinanet(root / split, "_annotations", images)


WRITERS = (write_roboflow, write_labelimg, write_yolo_flat, write_cvat, write_labelme, write_csv)
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"


@pytest.mark.parametrize("write", WRITERS)
def test_a_damaged_annotation_file_is_not_ignored(write: Callable[..., Path], tmp_path: Path) -> None:
    paths = {split: write(tmp_path, split, [A]) for split in ("train", "valid", "test")}
    for path in paths.values():
        sound = path.read_text()
        for content, fault in ((LFS, "Git LFS"), ("" if write is not write_yolo_flat else LFS, "")):
            path.write_text(content)
            with pytest.raises(DataError, match=f"{re.escape(str(path))}: .*{fault}"):
                detect_format(tmp_path)
        path.write_text(sound)


def test_a_truncated_or_foreign_file_of_a_split_is_not_ignored(tmp_path: Path) -> None:
    for name in ("train", "val"):
        damaged = write_coco(tmp_path / "coco", name, [A])
        write_retinanet(tmp_path / "csv", name, [A])
    damaged.write_text(damaged.read_text()[:100])
    with pytest.raises(DataError, match=f"{re.escape(str(damaged))}: .*JSON.*'val'"):
        detect_format(tmp_path / "coco")
    put(tmp_path / "csv/val.csv", "fname,klasse,xmin,ymin,xmax,ymax\na.jpg,cat,1,2,3,4\n")
    with pytest.raises(DataError, match=r"val\.csv: there is no column for the image.*klasse.*'val'"):
        detect_format(tmp_path / "csv")


def test_files_of_other_kinds_beside_the_annotations_are_ignored(tmp_path: Path) -> None:
    captions = {"images": [], "annotations": [{"image_id": 1, "caption": "a cat"}]}
    for name in ("train", "val"):
        write_coco(tmp_path / "coco", name, [A])
        put(tmp_path / f"coco/annotations/captions_{name}.json", json.dumps(captions))
        put(tmp_path / f"coco/annotations/{name}_results.json", '[{"image_id": 1, "bbox": [1, 2, 3, 4]}]')
        put(tmp_path / f"coco/{name}/metadata.json", "{}")
        put(tmp_path / f"labelme/{name}/predictions.json", "[]")
    put(tmp_path / "coco/annotations/instances_val_backup.json", "{")
    folders(write_labelme, "train", "test")(tmp_path / "labelme")
    for name, splits in (("coco", {"train", "val"}), ("labelme", {"train", "test"})):
        found = detect_format(tmp_path / name)
        assert (found.splits, found.notes) == ({split: split for split in splits}, [])


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ["val2017", "test"])
def test_a_split_for_validation_or_test_alone_is_not_trained_on_unless_stated(
    write: Callable[..., Path], name: str, tmp_path: Path
) -> None:
    write(tmp_path, name, [A])
    make(tmp_path, "train/images/a.jpg")
    said = f"{name}.*, and 1 images in train/images.*data.train_split=({name}.*) trains"
    with pytest.raises(DataError, match=said) as at:
        Auto().read(tmp_path, "train")
    split = re.findall("data.train_split=(.*) trains", str(at.value))[0]
    assert len(Auto().read(tmp_path, split).columns.image_ids) == 1


def test_labels_in_a_folder_of_a_wrong_name(tmp_path: Path) -> None:
    make(tmp_path, "{train,val}/images/a.jpg", "train/lables/a.txt", "val/labels/a.txt")
    with pytest.raises(DataError, match=r"1 images in train/images.* 'train/lables' cannot be read"):
        Auto().read(tmp_path, "train")


@pytest.mark.parametrize(
    ("write", "parts"),
    [
        (
            lambda root: (voc_lists("train", "val")(root), put(root / "ImageSets/Main/val.txt", "\n")),
            ("the split 'val' is not used", "list is empty"),
        ),
        (
            lambda root: (write_retinanet(root, "train", [A]), put(root / "test.csv", "image_id,width\na,200\n")),
            ("set/test.csv: there is no column",),
        ),
        (files("train/a.{jpg,xml}", "val/a.jpg"), ("'val'", "1 images in val")),
        (
            files("train/a.{jpg,txt}", settings="train: train\nval: ../valid/images\nnames: [cat, dog]\n"),
            ("data.yaml", "'val'", "../valid/images"),
        ),
    ],
    ids=["empty list", "test without boxes", "images without annotations", "stated split is gone"],
)
def test_a_split_that_is_not_used_is_named(write: Write, parts: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path / "set")
    (note,) = Auto().read(tmp_path / "set", "train").notes
    assert all(part in note for part in (str(tmp_path / "set"), *parts))
    assert "labels of YOLO" not in note


# The folder of the images that an annotation file names


write_a = partial(write_coco, images=[A])


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("annotations/{}_coco.json", "images/{}"),
        ("annotations/instances_{}.json", "images/{}2017"),
        ("annotations/instances_{}2017.json", "{}"),
        ("{}_coco.json", "imgs/{}"),
        ("{}/annotations/instances.json", "{}/images"),
        ("annotations/{}.json", "my set/photos/all of {}"),
    ],
)
def test_images_of_each_split_in_usual_and_other_places(file: str, folder: str, tmp_path: Path) -> None:
    for split in ("train", "val"):  # the images have the same names
        write_a(tmp_path, folder.format(split), place=file.format(split))
    for split in ("train", "val"):
        found = Auto().read(tmp_path, split)
        assert list(found.columns.image_paths) == [str(tmp_path / folder.format(split) / "a.jpg")]


@pytest.mark.parametrize("name", ["a.jpg", "/home/me/old/imgs/a.jpg", "C:\\old\\imgs\\a.jpg"])
def test_one_folder_at_any_depth_holds_the_images(name: str, tmp_path: Path) -> None:
    path = write_a(tmp_path, "raw/v2/imgs", place="annotations/all.json")
    path.write_text(path.read_text().replace('"a.jpg"', json.dumps(name)))
    assert list(COCO().read(tmp_path, "all").columns.image_paths) == [str(tmp_path / "raw/v2/imgs/a.jpg")]


def test_several_folders_or_none_hold_the_images(tmp_path: Path) -> None:
    for folder in ("raw/imgs", "raw/thumbs"):
        write_a(tmp_path / "several", folder, place="annotations/train.json")
    said = r"train\.json: .*'a\.jpg'.* raw/imgs, raw/thumbs.* data=coco_folder data\.images="
    with pytest.raises(DataError, match=said):
        COCO().read(tmp_path / "several", "train")
    make(tmp_path, "several/raw/train_imgs/a.jpg")
    (path,) = COCO().read(tmp_path / "several", "train").columns.image_paths
    assert path == f"{tmp_path}/several/raw/train_imgs/a.jpg"
    for folder in ("images/val2017", "images/train2017"):
        write_a(tmp_path / "none", folder, place="annotations/instances_train.json")
    (tmp_path / "none/images/train2017/a.jpg").unlink()
    (problem,) = COCO().read(tmp_path / "none", "train").problems
    assert problem.kind == "missing"
    for part in ("instances_train.json", "annotations, images", "images/val2017", "data=coco_folder data.images="):
        assert part in problem.text
