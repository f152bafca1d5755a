"""What is YOLO's alone: data.yaml in its dialects, where labels lie, and which way up an image is."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.annotation_tools import (
    EMPTY,
    A,
    check_messages,
    expected,
    make,
    objects_of,
    put,
    write_darknet,
    write_yolo_flat,
)
from helpers.datasets import open_yolo
from helpers.pixels import save_turned
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.formats.detect import Auto
from ssd_lightning.data.formats.yolo import YOLO
from ssd_lightning.data.formats.yolo_labels import label_path
from ssd_lightning.data.formats.yolo_settings import read_settings
from ssd_lightning.data.split_annotations import Annotations
from ssd_lightning.errors import DataError

NAMES = "names: [cat, dog]\n"
YAML = f"train: images/train\n{NAMES}"
LINE = "1 .5 .5 .2 .4\n"


def write(root: Path, lines: str = LINE, settings: str | None = YAML, folder: str = "images/train") -> None:
    make(root, f"{folder}/a.jpg")
    put(label_path(root / folder / "a.jpg"), lines)
    if settings is not None:
        put(root / "data.yaml", settings)


def read(root: Path, split: str = "train") -> Annotations:
    return YOLO().read(root, split)


def opened(root: Path, **settings: Any) -> DetectionDataset:
    return open_yolo(splits=[{"root": str(root), "split": "train"}], **settings)


# Where images are


@pytest.mark.parametrize("settings", ["train: ../train/images\n", "path: ../..\ntrain: [../train/images]\n"])
def test_folders_inside_the_root_come_before_those_outside(tmp_path: Path, settings: str) -> None:
    root = tmp_path / "outer/root"
    write(root, settings=settings + NAMES, folder="train/images")
    for outside in (tmp_path / "outer", tmp_path):
        write(outside, settings=None, folder="train/images")
    found = read(root)
    assert (list(found.columns.image_paths), found.notes) == ([f"{root}/train/images/a.jpg"], [])
    shutil.rmtree(root / "train")
    (note,) = read(root).notes
    assert f"1 of the 1 images lie outside of {root}; the first: {tmp_path}" in note


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        (f"{NAMES}train: images/train", "images/train"),
        ("names: {1: dog, 0: cat}\npath: {root}\ntrain: images/train", "images/train"),
        ("names:\n- cat\n- dog\ntrain: {root}/images/train", "images/train"),
        (f"{NAMES}path: ../elsewhere\ntrain: images/train", "images/train"),
        (f"{NAMES}train: ../train/images", "train/images"),
        (f"{NAMES}train: [train/images, more/images]", "train/images"),
        ("path: .\ntrain: images/train", "images/train"),
        (f"{NAMES}train: '..\\images\\train'", "images/train"),
        (f"{NAMES}train: lists/train.txt", "images/train"),
        (f"{NAMES}train: lists/windows.txt", "images/train"),
    ],
)
def test_places_that_settings_state(settings: str, place: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    write(root, settings=None, folder=place)
    write(tmp_path, settings=None)  # a path above the root is one below it where there is one
    (root / "more/images").mkdir(parents=True)
    put(root / "lists/train.txt", "../images/train/a.jpg\n")
    put(root / "lists/windows.txt", "..\\set\\images\\train\\a.jpg\r\n")
    if "names" not in settings:
        put(root / "classes.txt", "cat\ndog\n")
    for name in ("data.yaml", "my set.yml"):
        file = put(root / name, settings.replace("{root}", str(root)))
        columns = read(root).columns
        assert list(map(os.path.abspath, columns.image_paths)) == [f"{root}/{place}/a.jpg"]
        assert (list(columns.image_ids), columns.labels.tolist()) == (["a"], [2])
        file.unlink()


@pytest.mark.parametrize(
    ("stated", "base"),
    [
        ("C:\\Users\\me\\set\\train\\images", "path: 'C:\\Users\\me\\set'\n"),
        ("/home/me/set/train/images/", "path: /home/me/set\n"),
    ],
)
def test_folders_of_another_machine_are_found_by_their_last_parts(tmp_path: Path, stated: str, base: str) -> None:
    write(tmp_path, settings=f"{base}train: '{stated}'\n{NAMES}", folder="train/images")
    (tmp_path / "images").mkdir()  # a shorter end of the same path
    place = tmp_path / "train/images"
    found = read(tmp_path)
    assert list(found.columns.image_paths) == [f"{place}/a.jpg"]
    taken = f"there is no '{stated}'; {place} is used, found by the last parts of that path"
    assert found.notes == [f"{tmp_path}/data.yaml: {taken}"]

    shutil.rmtree(tmp_path / "train")
    (tmp_path / "images").rmdir()
    with pytest.raises(DataError, match=f"{tmp_path}/data.yaml: .*{re.escape(stated)}', which its line 'train' states"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("folder", "list_file"), [("/home/me/set/", "lists/list.txt"), ("C:\\Users\\me\\set\\", "list.txt")]
)
def test_images_of_another_machine_are_found_by_their_last_parts(tmp_path: Path, folder: str, list_file: str) -> None:
    write(tmp_path, settings=f"train: {list_file}\n{NAMES}", folder="train/images")
    write(tmp_path, "", settings=None, folder="images")
    missing = f"{folder}train/images/b.jpg"
    put(tmp_path / list_file, f"# all\n\n{folder}train/images/a.jpg\n{missing}\n")
    found = read(tmp_path)
    assert list(map(str, found.problems)) == [f"{tmp_path}/{list_file}: line 4 '{missing}': the image is missing"]
    assert list(found.columns.image_ids) == ["a"]
    assert list(found.columns.image_paths) == [str(tmp_path / "train/images/a.jpg")]
    assert found.columns.labels.tolist() == [2]
    assert f"{tmp_path}/{list_file}: 1 of the 2 images are not where the list states" in found.notes[0]


def test_lines_of_a_list(tmp_path: Path) -> None:
    write(tmp_path, settings=f"train: list.txt\n{NAMES}", folder=".")
    shutil.copy(tmp_path / "a.jpg", tmp_path / "#1.jpg")
    put(tmp_path / "list.txt", "# a.jpg and so on\n#1.jpg\n# b.jpg\na.jpg\n")  # names that look like comments
    assert list(read(tmp_path).columns.image_ids) == ["#1", "a"]
    put(tmp_path / "list.txt", "a.jpg\n" * 3)
    assert list(read(tmp_path).columns.image_ids) == ["a", "a.jpg", "a.jpg (2)"]
    put(tmp_path / "list.txt", "x.jpg\n")  # missing images are not missing labels
    check_messages(read(tmp_path).problems, {f"{tmp_path}/list.txt: line 1 'x.jpg'": "the image is missing"})


@pytest.mark.parametrize("line", ["images/{name}.jpg", "{name}"])
def test_lists_in_the_root_are_splits_without_settings(tmp_path: Path, line: str) -> None:
    make(tmp_path, "images/{a,b}.jpg", "labels/{a,b}.txt")
    put(tmp_path / "classes.txt", "cat\ndog\n")
    for split, name in (("train", "a"), ("val", "b")):
        put(tmp_path / f"{split}.txt", line.format(name=name) + "\n")
    assert read_settings(tmp_path).values == {"train": "train.txt", "val": "val.txt", "test": ""}
    for split, name in (("train", "a"), ("val", "b")):
        assert list(Auto().read(tmp_path, split).columns.image_ids) == [name]
    put(tmp_path / "train.txt", "0 .5 .5 .2 .2\n")  # the labels of train.jpg
    assert read_settings(tmp_path).values == {}


@pytest.mark.parametrize("stated", ["./images/train/", "/home/me/set/images/train"])
def test_a_split_that_is_the_training_split_is_reported(tmp_path: Path, stated: str) -> None:
    write(tmp_path, settings=f"{YAML}val: {stated}\ntest: images/test\n")
    write(tmp_path, settings=None, folder="images/test")
    assert read(tmp_path, "test").notes == []
    for split in ("train", "val"):
        note = read(tmp_path, split).notes[-1]
        assert f"{tmp_path}/data.yaml: 'val' and 'train', images/train, are the same images" in note


def test_a_place_that_is_found_by_its_last_parts_is_named_beside_a_divided_folder(tmp_path: Path) -> None:
    write(tmp_path, settings=f"train: [images, /home/me/more]\nval: images/val\n{NAMES}", folder="images/day")
    for folder in ("images/night", "images/val", "more"):
        write(tmp_path, settings=None, folder=folder)
    (note,) = (note for note in read(tmp_path).notes if "last parts" in note)
    assert f"there is no '/home/me/more'; {tmp_path}/more is used" in note


def test_images_of_a_folder_inside_the_training_folder_are_not_trained_on(tmp_path: Path) -> None:
    write(tmp_path, settings=f"train: images\nval: images/val/night\n{NAMES}")
    for folder in ("images/val/night", "images/val/day"):
        write(tmp_path, settings=None, folder=folder)
    places = [path.relative_to(tmp_path).as_posix() for path in read_settings(tmp_path).places("train")]
    assert places == ["images/train", "images/val/day"]
    assert len(read(tmp_path).columns.image_ids) == 2
    make(tmp_path, "images/b.jpg")
    with pytest.raises(DataError, match=r"data\.yaml: .*training image b\.jpg next to .*images/val/night"):
        read(tmp_path)


def test_files_that_are_no_images_or_have_no_labels(tmp_path: Path) -> None:
    write(tmp_path)
    hidden = ("images/train/._a.jpg", "labels/train/._a.txt", "images/train/.cache/b.jpg", "images/train/.DS_Store")
    for path in (*hidden, "images/train/__MACOSX/a.jpg", "labels/train/__MACOSX/b.txt"):
        put(tmp_path / path, "\0\5")
    found = read(tmp_path)
    assert (list(found.columns.image_paths), found.notes) == ([f"{tmp_path}/images/train/a.jpg"], [])
    assert [Path(path).name for path in YOLO().files(tmp_path, "train")] == ["a.jpg"]

    put(tmp_path / "images/train/b.dng", "")
    make(tmp_path, "images/train/b.jpg")
    found = read(tmp_path)
    assert found.columns.starts.tolist() == [0, 1, 1]
    skipped, bare = found.notes
    assert "skipped 1 images of formats that are not read (b.dng)" in skipped
    assert "1 of 2 images of 'train' have no label file and are used as background" in bare
    assert bare.endswith(f"the first is {tmp_path}/images/train/b.jpg")
    (tmp_path / "labels/train/a.txt").unlink()
    with pytest.raises(DataError, match=r"labels/train/a\.txt: the labels are missing: none of the 2 images"):
        read(tmp_path)


def test_a_label_file_that_two_images_share_is_reported(tmp_path: Path) -> None:
    write(tmp_path)
    make(tmp_path, "images/train/a.png")
    found = read(tmp_path)
    assert list(found.columns.image_ids) == ["a", "a.png"]
    said = f"1 label files belong to more than one image each, the first is {tmp_path}/labels/train/a.txt"
    assert found.notes == [said]


@pytest.mark.parametrize("place", ["mine", "datasets/mine"])
def test_settings_beside_the_set_that_their_path_names(tmp_path: Path, place: str) -> None:
    write(tmp_path / place, settings=None)
    write(tmp_path / "other", settings=None)
    put(tmp_path / "mine.yaml", f"path: ../datasets/mine\n{YAML}")
    assert list(read(tmp_path).columns.image_paths) == [f"{tmp_path}/{place}/images/train/a.jpg"]


@pytest.mark.parametrize("beside", ["scripts/a.py", "notes.csv"])
def test_a_set_in_a_folder_beside_other_files(tmp_path: Path, beside: str) -> None:
    make(tmp_path, "mine/images/{train,val}/a.jpg", "mine/labels/{train,val}/a.txt")
    put(tmp_path / "mine/classes.txt", "cat\ndog\n")
    put(tmp_path / beside, "x = 1\n")
    for split in ("train", "val"):
        found = Auto().read(tmp_path, split)
        assert list(found.columns.image_paths) == [f"{tmp_path}/mine/images/{split}/a.jpg"]
        assert objects_of(found) == expected(A)


@pytest.mark.parametrize(
    ("folder", "labels", "settings"),
    [
        ("set/Images/Train", "set/Labels/Train", None),
        ("set/train/Images", "set/train/Labels", None),
        ("set/train/Images", "set/train/labels", None),
        ("set/train/Images", "set/train/Labels", f"train: train/Images\n{NAMES}"),
        ("set/train/Images", "set/train/Images", f"train: train/Images\n{NAMES}"),
        *((folder, folder, None) for folder in ("set/images", "set/images/train", "images/set/train", "set/Images")),
    ],
)
def test_folders_with_capitals_and_labels_next_to_their_images(
    tmp_path: Path, folder: str, labels: str, settings: str | None
) -> None:
    root = tmp_path / ("images/set" if folder.startswith("images") else "set")
    make(tmp_path, f"{folder}/a.jpg", f"{labels}/a.txt")
    put((root if "train/" in folder else tmp_path / folder) / "classes.txt", "cat\ndog\n")
    if settings:
        put(root / "data.yaml", settings)
    found = Auto().read(root, "train")
    assert (objects_of(found), found.notes) == (expected(A), [])


def test_label_files_of_image_files() -> None:
    assert label_path(Path("images/x/images/train/a.b.jpg")) == Path("images/x/labels/train/a.b.txt")
    assert label_path(Path("flat/a.jpg")) == Path("flat/a.txt")


def test_darknet_with_folders_of_its_own_and_splits(tmp_path: Path) -> None:
    """As AlexeyAB's darknet describes it: all paths start above `data`."""
    write_darknet(tmp_path / "data", "train", [A, EMPTY])
    (tmp_path / "data/obj_train_data").rename(tmp_path / "data/obj")
    for split, image in (("train", A), ("test", EMPTY)):
        put(tmp_path / f"data/{split}.txt", f"data/obj/{image.name}\n")
    settings = "classes= 2\ntrain  = data/train.txt\nvalid  = data/test.txt\nnames = data/obj.names\nbackup = backup/\n"
    put(tmp_path / "data/obj.data", settings)
    assert objects_of(read(tmp_path, "train")) == expected(A)
    assert objects_of(read(tmp_path, "val")) == expected(EMPTY)
    put(tmp_path / "data/obj.names", "cat\n\ndog\n")  # blank lines count, as in classes.txt
    assert objects_of(read(tmp_path, "train")) != expected(A)


# Names of classes


def test_names_without_data_yaml(tmp_path: Path) -> None:
    write(tmp_path, "2 .5 .5 .2 .4\n", settings=None)
    with pytest.raises(DataError, match=r"the files name no classes; give data\.class_names"):
        opened(tmp_path)
    assert opened(tmp_path, class_names=["x", "y", "z"]).annotations[0].labels.tolist() == [3]
    put(tmp_path / "classes.txt", "cat\n\ndog\n")  # a blank line has a number
    for settings in (None, "names:\n", "names: null\n"):
        write(tmp_path, "2 .5 .5 .2 .4\n", settings=settings)
        found = read(tmp_path)
        assert (found.names, found.columns.labels.tolist()) == (["cat", "dog"], [2])
    (tmp_path / "classes.txt").write_bytes("狗\n".encode("gbk"))
    with pytest.raises(DataError, match=r"classes\.txt: cannot read the class names"):
        read(tmp_path)
    for folder, name in (("flat", "_darknet.labels"), ("valid", "classes.txt")):  # labelImg, Roboflow's darknet export
        write_yolo_flat(tmp_path / "beside", folder, [A])
        put(tmp_path / "beside" / folder / name, "cat\ndog\n")
        assert objects_of(read(tmp_path / "beside", folder)) == expected(A)


SPELLINGS = ("no", "yes", "on", "010", "08", "1_0", "null", "~", "1e3", ".5", "2001-01-01", "0x1f", "True", "=", "<<")


@pytest.mark.parametrize(
    "names",
    [
        f"names: [{', '.join(SPELLINGS)}]\n",
        "names:\n" + "".join(f"  {number}: {name}\n" for number, name in enumerate(SPELLINGS)),
    ],
)
def test_class_names_are_text_as_the_file_has_them(tmp_path: Path, names: str) -> None:
    write(tmp_path, "0 .5 .5 .2 .4\n3 .5 .5 .2 .4\n", f"train: images/train\npath: null\nval: null\n{names}")
    dataset = opened(tmp_path)
    assert dataset.class_names == SPELLINGS
    assert dataset.annotations[0].labels.tolist() == [1, 4]
    assert opened(tmp_path, class_names=["010", "no"]).annotations[0].labels.tolist() == [2, 1]


def test_settings_that_cannot_be(tmp_path: Path) -> None:
    of_names = ("[a, [b]]", "[a, '']", "[a, ' ']", "{0: a, 1: }", "cat", "{a: cat}", "[]", "3")
    for settings in (*(f"names: {names}" for names in of_names), "- a", "a: ["):
        write(tmp_path, settings=settings)
        with pytest.raises(DataError, match=r"data\.yaml: "):
            read(tmp_path)
    for stated in ("null", "~", "", "[]"):
        write(tmp_path, settings=f"{YAML}test: {stated}\n")
        with pytest.raises(DataError, match=r"there is no split 'test'; there is train"):
            read(tmp_path, "test")
    put(tmp_path / "classes.txt", "cat\ndog\n cat\n")
    for settings, file in (("train: images/train\nnames: [cat, dog, cat]", "data.yaml"), ("", "classes.txt")):
        (tmp_path / "data.yaml").unlink()
        write(tmp_path, settings=settings or None)
        with pytest.raises(DataError, match=rf"{tmp_path}/{file}: .*0 and 2 .*'cat'"):
            read(tmp_path)
        put(tmp_path / "data.yaml", "")
    write(tmp_path, settings=f"{YAML}nc: 2\n")
    assert read(tmp_path).notes == []
    write(tmp_path, settings=f"{YAML}nc: 5\n")
    (note,) = read(tmp_path).notes
    assert f"{tmp_path}/data.yaml: 'nc' is 5, but the number of names is 2" in note


# Lines of labels


def test_numbers_and_repetitions(tmp_path: Path) -> None:
    write(tmp_path, "1 .5 .5 .2 .1\n1.0 .5 .5 .2 .2\n01 .5 .5 .2 .3\n1.000000e+00 .5 .5 .2 .4\n")
    found = read(tmp_path)
    assert (found.columns.labels.tolist(), found.notes) == ([2, 2, 2, 2], [])
    lines = ["1 .5 .5 .2 .4", "0 .5 .5 .2 .4", "1 .5  .5 .2 .4", "1 .5 .5 .2 .3", "1 .5 .5 .2 .4"]
    write(tmp_path, "\n".join(lines))
    found = read(tmp_path)
    assert found.columns.labels.tolist() == [2, 1, 2]
    assert f"label file: 2; the first: {tmp_path}/labels/train/a.txt: line 3" in found.notes[0]


BAD_LINES = {
    "1 .5 .5 .2": "has 4 values, not the 5 of a box",
    "1 .1 .1 .2 .1 .2 x": "has y 'x', which is not a number",
    "1 .5 x .2 .1": "has cy 'x', which is not a number",
    "1 100 50 40 40": "'dog' has the box (100, 50, 40, 40), which looks like pixels",
    "1.5 .5 .5 .2 .1": "'1.5' is of none of the 2 classes: cat, dog",
    "dog .5 .5 .2 .1 .9": "'dog' has 6 values",
}


def test_a_bad_line(tmp_path: Path) -> None:
    write(tmp_path, "\n".join(["0 .5 .5 1 1", *BAD_LINES, "", ""]))
    dataset = opened(tmp_path, on_error="skip")
    assert dataset.annotations[0].boxes_xyxy_px.tolist() == [[0, 0, 200, 100]]
    file = f"{tmp_path}/labels/train/a.txt"
    check_messages(dataset.dropped, {f"{file}: line {n} ": said for n, said in enumerate(BAD_LINES.values(), start=2)})


@pytest.mark.parametrize(
    ("keypoints", "shape"),
    [
        (".5 .5 1", ""),  # an even number of values
        (".5 .5 2 .1 .1 1", ""),  # 2 is no fraction
        (".5 .5 2 .1 .1 1", "kpt_shape: [2, 3]\n"),
        ("0 0 0 .5 .5 1 .6 .6 2", ""),
        (".5 .5 0 0 .6 .6 0 0", ""),  # no outline is at one place twice
    ],
)
def test_a_box_with_keypoints(tmp_path: Path, keypoints: str, shape: str) -> None:
    write(tmp_path, f"1 .5 .5 .2 .4 .1 .1 .2 .2\n1 .5 .5 .2 .4 {keypoints}\n", YAML + shape)
    found = read(tmp_path)
    assert found.columns.boxes_xyxy_px.round(3).tolist() == [[80, 30, 120, 70]] * 2
    said = f"a.txt: line 2 'dog' of {5 + len(keypoints.split())} values has a box with keypoints"
    assert [said in note for note in found.notes] == ([] if shape else [True])


@pytest.mark.parametrize(
    ("lines", "is_box", "said"),
    [
        (["1 .5 .5 .2 .4 .9 7", "1 .2 .2 .1 .1 .8 1"], True, "a.txt: line 1 'dog' of 7 values"),  # score and track
        (["1 .5 .5 .2 .4 .9 .9", "1 .2 .2 .1 .1 -1 -1"], True, "a.txt: line 2 'dog' of 7 values"),
        (["1 .5 .5 .2 .4 .4 .4 .6 2.5"], True, "a.txt: line 1 'dog' of 9 values"),
        (["1 .5 .5 .2 .4 .5 .6", "1 .2 .2 .1 .1 .2 .2"], False, "all lines longer than a box have 7 values"),
        (
            ["1 .5 .5 .2 .4 .5 .6 .4 .4", "0 .5 .5 .2 .4 .5 .6 .4 .4"],
            False,
            "all lines longer than a box have 9 values",
        ),
        (["1 .5 .5 .2 .4 .9 7", "1 .8 .8 .9 .8 .9 .9"], False, ""),  # the second can only be an outline
        ([f"{number} .5 .5 .2 .4 .1 .1 .2 .2 .3 .3" for number in (0, 1)], False, "longer than a box have 11 values"),
        (["1 .5 .5 .2 .4 .1 .1 .2 .2 .3 .3", "1 .5 .5 .2 .4 .1 .1 .2 .2 .3 .3 .4 .4"], False, ""),
    ],
)
def test_outlines_and_boxes_with_more_values(tmp_path: Path, lines: Sequence[str], is_box: bool, said: str) -> None:
    write(tmp_path, "\n".join(lines))
    found = read(tmp_path)
    notes = "\n".join(found.notes)
    assert (found.columns.boxes_xyxy_px[:1].round(3).tolist() == [[80, 30, 120, 70]]) is is_box
    assert said in notes
    assert ("kpt_shape" in notes) is bool(said)


def test_fractions_are_of_the_upright_image(tmp_path: Path) -> None:
    write(tmp_path, "0 .5 .25 1 .5\n")
    save_turned(tmp_path / "images/train/a.jpg", np.zeros((100, 200, 3), np.uint8), 6)
    dataset = opened(tmp_path)
    assert dataset.annotations[0].size_px == (200, 100)
    assert dataset.annotations[0].boxes_xyxy_px.tolist() == [[0, 0, 100, 100]]
    assert dataset[0][0].shape == (3, 200, 100)
