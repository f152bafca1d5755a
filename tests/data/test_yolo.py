"""What is YOLO's alone: data.yaml in its dialects, where labels lie, and which way up an image is."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.datasets import open_yolo
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.formats.detect import Auto
from ssd_lightning.data.formats.yolo import YOLO
from ssd_lightning.data.formats.yolo_labels import label_path
from ssd_lightning.data.formats.yolo_settings import read_settings
from ssd_lightning.errors import DataError

YAML = "train: images/train\nnames: [cat, dog]\n"


def write(
    root: Path, lines: str = "1 .5 .5 .2 .4\n", settings: str | None = YAML, folder: str = "images/train"
) -> None:
    image = root / folder / "a.jpg"
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (200, 100)).save(image)
    label_path(image).parent.mkdir(parents=True, exist_ok=True)
    label_path(image).write_text(lines)
    if settings is not None:
        (root / "data.yaml").write_text(settings)


def read(root: Path, **settings: Any) -> DetectionDataset:
    return open_yolo(splits=[{"root": str(root), "split": "train"}], **settings)


@pytest.mark.parametrize(
    "settings",
    ["train: ../train/images\n", "path: ..\ntrain: train/images\n", "path: ../..\ntrain: [../train/images]\n"],
)
def test_folders_inside_the_root_come_before_those_outside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, settings: str
) -> None:
    root = tmp_path / "outer/root"
    write(root, settings=f"{settings}names: [cat, dog]\n", folder="train/images")
    write(tmp_path / "outer", settings=None, folder="train/images")
    write(tmp_path, settings=None, folder="train/images")
    assert read(root).annotations[0].image_path == root / "train/images/a.jpg"
    assert not caplog.records

    shutil.rmtree(root / "train")
    outside = os.path.abspath(read(root).annotations[0].image_path)
    assert outside in (f"{tmp_path}/outer/train/images/a.jpg", f"{tmp_path}/train/images/a.jpg")
    assert f"1 of the 1 images lie outside of {root}; the first: {outside}" in caplog.text


def test_a_list_means_images_inside_the_root_before_those_outside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, settings="train: lists/train.txt\nnames: [cat, dog]\n")
    write(tmp_path, settings=None)
    (root / "lists").mkdir()
    (root / "lists/train.txt").write_text("../images/train/a.jpg\n")
    assert os.path.abspath(read(root).annotations[0].image_path) == f"{root}/images/train/a.jpg"


@pytest.mark.parametrize("number", ["1", "1.0", "01", "1.000000e+00"])
def test_a_class_number_is_a_number_however_it_is_written(tmp_path: Path, number: str) -> None:
    write(tmp_path, f"{number} .5 .5 .2 .4\n")
    assert read(tmp_path).annotations[0].labels.tolist() == [2]


def test_a_label_file_that_two_images_share_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path)
    assert [record.image_id for record in read(tmp_path).annotations] == ["a"]
    assert not caplog.records
    Image.new("RGB", (200, 100)).save(tmp_path / "images/train/a.png")
    assert [record.image_id for record in read(tmp_path).annotations] == ["a", "a.png"]
    assert (
        f"1 label files belong to more than one image each, the first is {tmp_path}/labels/train/a.txt" in caplog.text
    )


def test_entries_of_a_list_have_ids_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, settings="train: list.txt\nnames: [cat, dog]\n")
    (tmp_path / "list.txt").write_text("images/train/a.jpg\n" * 3)
    assert [record.image_id for record in read(tmp_path).annotations] == ["a", "a.jpg", "a.jpg (2)"]


def test_an_image_of_a_format_that_is_not_read_and_without_labels_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path)
    (tmp_path / "images/train/b.dng").touch()
    assert len(read(tmp_path)) == 1
    assert "skipped 1 images of formats that are not read (b.dng)" in caplog.text


@pytest.mark.parametrize("stated", ["images\\train", ".\\images\\train", "..\\images\\train", "list.txt"])
def test_separators_of_another_system(tmp_path: Path, stated: str) -> None:
    write(tmp_path, settings=f"train: '{stated}'\nnames: [cat, dog]\n")
    (tmp_path / "list.txt").write_bytes(b"..\\" + tmp_path.name.encode() + b"\\images\\train\\a.jpg\r\n")
    assert [(record.image_id, len(record.labels)) for record in read(tmp_path).annotations] == [("a", 1)]


@pytest.mark.parametrize(
    ("stated", "base"),
    [
        ("/home/me/set/train/images", ""),
        ("C:\\Users\\me\\set\\train\\images", "path: 'C:\\Users\\me\\set'\n"),
        ("/home/me/set/train/images/", "path: /home/me/set\n"),
    ],
)
def test_folders_of_another_machine_are_found_by_their_last_parts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, stated: str, base: str
) -> None:
    settings = f"{base}train: '{stated}'\nnames: [cat, dog]\n"
    write(tmp_path, settings=settings, folder="train/images")
    (tmp_path / "images").mkdir()  # a shorter end of the same path
    assert [record.image_path for record in read(tmp_path).annotations] == [tmp_path / "train/images/a.jpg"]
    said = [record.message for record in caplog.records]
    place = tmp_path / "train/images"
    taken = f"there is no '{stated}'; {place} is used, found by the last parts of that path"
    assert said == [f"{tmp_path}/data.yaml: {taken}"]

    shutil.rmtree(tmp_path / "train")
    (tmp_path / "images").rmdir()
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert f"{tmp_path}/data.yaml: " in str(caught.value)
    assert f"no '{stated}', which its line 'train' states" in str(caught.value)


@pytest.mark.parametrize(
    ("folder", "list_file"), [("/home/me/set/", "lists/list.txt"), ("C:\\Users\\me\\set\\", "list.txt")]
)
def test_images_of_another_machine_are_found_by_their_last_parts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, folder: str, list_file: str
) -> None:
    write(tmp_path, settings=f"train: {list_file}\nnames: [cat, dog]\n", folder="train/images")
    write(tmp_path, "", settings=None, folder="images")
    (tmp_path / list_file).parent.mkdir(exist_ok=True)
    missing = f"{folder}train/images/b.jpg"
    (tmp_path / list_file).write_text(f"# all\n\n{folder}train/images/a.jpg\n{missing}\n")
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(caught.value) == f"{tmp_path}/{list_file}: line 4 '{missing}': the image is missing"
    caplog.clear()
    [record] = read(tmp_path, on_error="skip").annotations
    assert (record.image_id, record.image_path) == ("a", tmp_path / "train/images/a.jpg")
    assert record.labels.tolist() == [2]
    assert f"{tmp_path}/{list_file}: 1 of the 2 images are not where the list states" in caplog.text


def test_a_list_may_have_comments_and_names_that_look_like_them(tmp_path: Path) -> None:
    write(tmp_path, settings="train: list.txt\nnames: [cat, dog]\n", folder="")
    shutil.copy(tmp_path / "a.jpg", tmp_path / "#1.jpg")
    (tmp_path / "list.txt").write_text("# a.jpg and so on\n#1.jpg\n# b.jpg\na.jpg\n")
    assert [record.image_id for record in read(tmp_path).annotations] == ["#1", "a"]


def test_images_that_are_all_missing_are_not_missing_labels(tmp_path: Path) -> None:
    write(tmp_path, settings="train: list.txt\nnames: [cat, dog]\n")
    (tmp_path / "list.txt").write_text("images/train/x.jpg\n")
    with pytest.raises(DataError, match=r"list\.txt: line 1 'images/train/x\.jpg': the image is missing"):
        read(tmp_path)


@pytest.mark.parametrize("stated", ["images/train", "./images/train/", "/home/me/set/images/train"])
def test_a_split_that_is_the_training_split_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, stated: str
) -> None:
    write(tmp_path, settings=f"{YAML}val: {stated}\ntest: images/test\n")
    write(tmp_path, settings=None, folder="images/test")
    open_yolo(splits=[{"root": str(tmp_path), "split": "test"}])
    assert not caplog.records
    for split in ("train", "val"):
        caplog.clear()
        open_yolo(splits=[{"root": str(tmp_path), "split": split}])
        assert caplog.text.count(f"{tmp_path}/data.yaml: 'val' and 'train', images/train, are the same images") == 1


def test_images_of_a_folder_inside_the_training_folder_are_not_trained_on(tmp_path: Path) -> None:
    write(tmp_path, settings="train: images\nval: images/val/night\nnames: [cat, dog]\n")
    for folder in ("images/val/night", "images/val/day"):
        write(tmp_path, settings=None, folder=folder)
    places = [path.relative_to(tmp_path).as_posix() for path in read_settings(tmp_path).places("train")]
    assert places == ["images/train", "images/val/day"]
    assert len(read(tmp_path)) == 2
    Image.new("RGB", (200, 100)).save(tmp_path / "images/b.jpg")
    with pytest.raises(DataError, match=r"data\.yaml: .*training image b\.jpg next to .*images/val/night"):
        read(tmp_path)


def test_lists_in_the_root_are_splits_without_settings(tmp_path: Path) -> None:
    write(tmp_path, settings=None, folder="images")
    shutil.copy(tmp_path / "images/a.jpg", tmp_path / "images/b.jpg")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "train.txt").write_text("images/a.jpg\n")
    assert read_settings(tmp_path).values == {"train": "train.txt", "val": "", "test": ""}
    assert [record.image_path.name for record in read(tmp_path).annotations] == ["a.jpg"]
    (tmp_path / "train.txt").write_text("0 .5 .5 .2 .2\n")  # the labels of train.jpg
    assert read_settings(tmp_path).values == {}


@pytest.mark.parametrize("line", ["{name}", "{name}.jpg"])
def test_lists_in_the_root_may_have_names_alone(tmp_path: Path, line: str) -> None:
    write(tmp_path, settings=None, folder="images")
    shutil.copy(tmp_path / "images/a.jpg", tmp_path / "images/b.jpg")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    for split, name in (("train", "a"), ("val", "b")):
        (tmp_path / f"{split}.txt").write_text(line.format(name=name) + "\n")
        shutil.copy(tmp_path / "labels/a.txt", tmp_path / f"labels/{name}2.txt")
    (tmp_path / "labels/b.txt").write_text("0 .5 .5 .2 .4\n")
    for split, name in (("train", "a"), ("val", "b")):
        assert list(Auto().read(tmp_path, split).columns.image_ids) == [name]


def test_hidden_files_are_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path)
    junk = ("images/train/._a.jpg", "labels/train/._a.txt", "images/train/.cache/b.jpg", "images/train/.DS_Store")
    for path in (*junk, "images/train/__MACOSX/a.jpg", "labels/train/__MACOSX/b.txt"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"\0\5\26\7")
    assert [record.image_path.name for record in read(tmp_path).annotations] == ["a.jpg"]
    assert not caplog.records
    assert [Path(path).name for path in YOLO().files(tmp_path, "train")] == ["a.jpg"]


@pytest.mark.parametrize(("settings", "file"), [("names: [cat, dog, cat]", "data.yaml"), (None, "classes.txt")])
def test_two_classes_of_one_name_are_an_error(tmp_path: Path, settings: str | None, file: str) -> None:
    write(tmp_path, settings=settings and f"train: images/train\n{settings}\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\n cat\n")
    with pytest.raises(DataError, match=rf"{tmp_path}/{file}: .*0 and 2 .*'cat'"):
        read(tmp_path)


def test_repeated_lines_are_counted_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = ["1 .5 .5 .2 .4", "0 .5 .5 .2 .4", "1 .5  .5 .2 .4", "1 .5 .5 .2 .3", "1 .5 .5 .2 .4"]
    write(tmp_path, "\n".join(lines))
    assert read(tmp_path).annotations[0].labels.tolist() == [2, 1, 2]
    assert f"label file: 2; the first: {tmp_path}" in caplog.text
    assert "labels/train/a.txt: line 3" in caplog.text


@pytest.mark.parametrize("place", ["mine", "datasets/mine"])
def test_settings_beside_the_set_that_their_path_names(tmp_path: Path, place: str) -> None:
    write(tmp_path / place, settings=None)
    write(tmp_path / "other", settings=None)
    (tmp_path / "mine.yaml").write_text("path: ../datasets/mine\ntrain: images/train\nnames: [cat, dog]\n")
    assert [record.image_path for record in read(tmp_path).annotations] == [tmp_path / place / "images/train/a.jpg"]


@pytest.mark.parametrize("settings", ["train: train/Images\nnames: [cat, dog]\n", None])
@pytest.mark.parametrize("labels", ["Labels", "labels", "Images"])
def test_folders_with_capitals(tmp_path: Path, settings: str | None, labels: str) -> None:
    write(tmp_path, settings=settings, folder="train/Images")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    if labels != "Images":
        (tmp_path / "train" / labels).mkdir()
        (tmp_path / "train/Images/a.txt").rename(tmp_path / "train" / labels / "a.txt")
    found = Auto().read(tmp_path, "train")
    assert (list(found.columns.labels), list(found.notes)) == ([2], [])


def test_folders_with_capitals_around_the_splits(tmp_path: Path) -> None:
    (tmp_path / "Labels").mkdir()
    for split in ("Train", "Val"):
        write(tmp_path, settings=None, folder=f"Images/{split}")
    for split in ("train", "val"):
        (path,) = Auto().read(tmp_path, split).columns.image_paths
        assert path == f"{tmp_path}/Images/{split.title()}/a.jpg"


@pytest.mark.parametrize("beside", ["scripts/a.py", "notes.csv"])
def test_a_set_in_a_folder_beside_other_files(tmp_path: Path, beside: str) -> None:
    for split in ("train", "val"):
        write(tmp_path, settings=None, folder=f"mine/images/{split}")
    (tmp_path / "mine/classes.txt").write_text("cat\ndog\n")
    (tmp_path / beside).parent.mkdir(exist_ok=True)
    (tmp_path / beside).write_text("x = 1\n")
    for split in ("train", "val"):
        found = Auto().read(tmp_path, split)
        assert list(found.columns.image_paths) == [f"{tmp_path}/mine/images/{split}/a.jpg"]
        assert (list(found.names), list(found.columns.labels)) == (["cat", "dog"], [2])


def test_a_count_of_classes_that_is_not_that_of_the_names_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, settings=f"{YAML}nc: 2\n")
    assert read(tmp_path).class_names == ("cat", "dog")
    assert not caplog.records
    write(tmp_path, settings=f"{YAML}nc: 5\n")
    assert read(tmp_path).class_names == ("cat", "dog")
    assert f"{tmp_path}/data.yaml: 'nc' is 5, but the number of names is 2" in caplog.text


def test_names_without_data_yaml(tmp_path: Path) -> None:
    write(tmp_path, settings=None)
    with pytest.raises(DataError, match=r"the files name no classes; give data\.class_names"):
        read(tmp_path)
    assert read(tmp_path, class_names=["x", "y"]).annotations[0].labels.tolist() == [2]
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    for settings in (None, "names:\n", "names: null\n"):
        write(tmp_path, settings=settings)
        assert read(tmp_path).class_names == ("cat", "dog")


def test_a_blank_line_among_the_names_has_a_number(tmp_path: Path) -> None:
    write(tmp_path, "2 .5 .5 .2 .1\n", settings=None)
    (tmp_path / "classes.txt").write_text("cat\n\ndog\n")
    dataset = read(tmp_path)
    assert [dataset.class_names[label - 1] for label in dataset.annotations[0].labels] == ["dog"]
    (tmp_path / "classes.txt").write_bytes("狗\n".encode("gbk"))
    with pytest.raises(DataError, match=r"classes\.txt: cannot read the class names"):
        read(tmp_path)


SPELLINGS = ("no", "yes", "on", "010", "08", "1_0", "null", "~", "1e3", ".5", "2001-01-01", "0x1f", "True", "=", "<<")


@pytest.mark.parametrize("form", ["list", "block", "mapping"])
def test_class_names_are_text_as_the_file_has_them(tmp_path: Path, form: str) -> None:
    names = {
        "list": f"names: [{', '.join(SPELLINGS)}]\n",
        "block": "names:\n" + "".join(f"- {name}\n" for name in SPELLINGS),
        "mapping": "names:\n" + "".join(f"  {number}: {name}\n" for number, name in enumerate(SPELLINGS)),
    }[form]
    write(tmp_path, "0 .5 .5 .2 .4\n3 .5 .5 .2 .4\n", f"train: images/train\npath: null\nval: null\n{names}")
    dataset = read(tmp_path)
    assert dataset.class_names == SPELLINGS
    assert dataset.annotations[0].labels.tolist() == [1, 4]
    assert read(tmp_path, class_names=["010", "no"]).annotations[0].labels.tolist() == [2, 1]


@pytest.mark.parametrize("stated", ["null", "~", "", "[]"])
def test_a_split_that_is_stated_as_nothing_is_missing(tmp_path: Path, stated: str) -> None:
    write(tmp_path, settings=f"train: images/train\nnames: [a, b]\ntest: {stated}\n")
    with pytest.raises(DataError, match=r"there is no split 'test'; there is train"):
        open_yolo(splits=[{"root": str(tmp_path), "split": "test"}])


@pytest.mark.parametrize(
    "names",
    [
        "names: [a, [b]]",
        "names: [a, '']",
        "names: [a, ' ']",
        "names: {0: a, 1: }",
        "names: cat",
        "names: {a: cat}",
        "names: []",
        "- a",
        "a: [",
        "names: 3",
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, names: str) -> None:
    write(tmp_path, settings=names)
    with pytest.raises(DataError, match=r"data\.yaml: "):
        read(tmp_path)


def test_labels_take_the_place_of_the_last_images() -> None:
    assert label_path(Path("images/x/images/train/a.b.jpg")) == Path("images/x/labels/train/a.b.txt")
    assert label_path(Path("flat/a.jpg")) == Path("flat/a.txt")


@pytest.mark.parametrize(
    ("above", "folder"), [("", "images"), ("", "images/train"), ("images", "train"), ("", "Images")]
)
def test_labels_next_to_their_images(tmp_path: Path, above: str, folder: str) -> None:
    root = tmp_path / above / "set"
    write(root, settings=None, folder=folder)
    label_path(root / folder / "a.jpg").rename(root / folder / "a.txt")
    (root / folder / "classes.txt").write_text("cat\ndog\n")
    found = Auto().read(root, "train")
    assert (list(found.names), list(found.columns.labels), list(found.notes)) == (["cat", "dog"], [2], [])


def test_a_split_without_any_label_file_is_no_split_of_empty_images(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "labels/train/a.txt").unlink()
    with pytest.raises(DataError, match=r"labels/train/a\.txt: the labels are missing: none of the 1 images"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 .5 .5 .2", "has 4 values, not the 5 of a box"),
        ("1 .1 .1 .2 .1 .2", "has 6 values, not the 5 of a box"),
        ("1 .1 .1 .2 .1 .2 x", "has y 'x', which is not a number"),
        ("1 .5 x .2 .1", "has cy 'x', which is not a number"),
        ("1 100 50 40 40", "line 2 'dog' has the box (100, 50, 40, 40), which looks like pixels"),
        ("1 .5 .5 -.2 .1", "is inverted: xmin 120 is greater than xmax 80"),
        ("1.5 .5 .5 .2 .1", "line 2 '1.5' is of none of the 2 classes: cat, dog"),
        ("2 .5 .5 .2 .1", "line 2 '2' is of none of the 2 classes: cat, dog"),
        ("dog .5 .5 .2 .1 .9", "has 6 values"),
    ],
)
def test_a_bad_line(tmp_path: Path, line: str, said: str) -> None:
    write(tmp_path, f"0 .5 .5 1 1\n{line}\n\n")
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/labels/train/a.txt: line 2 ")
    assert said in str(caught.value)
    assert read(tmp_path, on_error="skip").annotations[0].boxes_xyxy_px.tolist() == [[0, 0, 200, 100]]


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
def test_a_box_with_keypoints(tmp_path: Path, caplog: pytest.LogCaptureFixture, keypoints: str, shape: str) -> None:
    write(tmp_path, f"1 .5 .5 .2 .4 .1 .1 .2 .2\n1 .5 .5 .2 .4 {keypoints}\n", YAML + shape)
    assert read(tmp_path).annotations[0].boxes_xyxy_px.round(3).tolist() == [[80, 30, 120, 70]] * 2
    said = "" if shape else f"a.txt: line 2 'dog' of {5 + len(keypoints.split())} values has a box with keypoints"
    assert said in caplog.text
    assert bool(caplog.records) is not bool(shape)


def test_outlines_that_may_be_keypoints_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    line = "1 .5 .5 .2 .4 .1 .1 .2 .2 .3 .3"
    write(tmp_path, f"{line}\n{line} .4 .4\n")
    read(tmp_path)
    assert "kpt_shape" not in caplog.text
    write(tmp_path, f"{line}\n0{line[1:]}\n")
    read(tmp_path)
    assert f"{tmp_path}/data.yaml: all lines longer than a box have 11 values" in caplog.text


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
        (["1 .8 .8 .9 .8 .9 .9", "0 .8 .8 .9 .8 .9 .9"], False, ""),
    ],
)
def test_seven_or_nine_values(tmp_path: Path, lines: list[str], is_box: bool, said: str) -> None:
    write(tmp_path, "\n".join(lines))
    found = YOLO().read(tmp_path, "train")
    notes = "\n".join(found.notes)
    assert (found.columns.boxes_xyxy_px[:1].round(3).tolist() == [[80, 30, 120, 70]]) is is_box
    assert said in notes
    assert ("kpt_shape" in notes) is bool(said)


def test_fractions_are_of_the_upright_image(tmp_path: Path) -> None:
    write(tmp_path, "0 .5 .25 1 .5\n")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 100)).save(tmp_path / "images/train/a.jpg", exif=exif)
    dataset = read(tmp_path)
    assert dataset.annotations[0].size_px == (200, 100)
    assert dataset.annotations[0].boxes_xyxy_px.tolist() == [[0, 0, 100, 100]]
    assert dataset[0][0].shape == (3, 200, 100)


def test_images_without_a_label_file_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path)
    bare = tmp_path / "images/train/b.jpg"
    Image.new("RGB", (200, 100)).save(bare)
    assert read(tmp_path).annotations.counts.tolist() == [1, 0]
    assert f"1 of 2 images of 'train' have no label file and are used as background; the first is {bare}" in caplog.text
