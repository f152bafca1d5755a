"""Names made to harm: found and read as they are, and never more than one line of a log."""

import csv
import json
import logging
import os
from pathlib import Path

import pytest
from PIL import Image

from helpers.datasets import open_coco, open_csv, open_splits, open_voc, open_yolo
from ssd_lightning.data.formats import Auto
from ssd_lightning.errors import DataError, one_line
from ssd_lightning.inference.names import output_names
from ssd_lightning.inference.sources import find_images
from ssd_lightning.metrics.detection_state import image_key
from ssd_lightning.visualization.tables import print_scores

BOX = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>20</xmax><ymax>20</ymax></bndbox>"
XML = (
    f"<annotation><size><width>32</width><height>24</height></size><object><name>cat</name>{BOX}</object></annotation>"
)
NAMES = ["a b", "-rf", "--help", "größe", "鳥", "🐦", "tab\tinside", "[1]*?", "$(touch x)", "a=b,c", "%s%n", "..a",
         "next\x85line", "para\u2029graph", "right\u202eleft", "x" * 240, "form\x0cfeed", "'\"`", "{0}"]  # fmt: skip
LINE_FEEDS = ["line\nfeed", "forged\n2026-01-01 00:00:00,000 INFO train: all is well", "return\rhere"]
FORGED = "2026-01-01"


def voc(root: Path, names: list[str], *, newline: str = "\n", mark: str = "") -> list[dict[str, str]]:
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / part).mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (32, 24)).save(root / "JPEGImages" / f"{name}.jpg", "JPEG")
        (root / "Annotations" / f"{name}.xml").write_text(XML)
    text = mark + "".join(f"{name}{newline}" for name in names)
    (root / "ImageSets/Main/train.txt").write_bytes(text.encode())
    return [{"root": str(root), "split": "train"}]


def coco(root: Path, names: list[str], *, images: bool = True) -> list[dict[str, str]]:
    (root / "train").mkdir(parents=True)
    if images:
        for name in names:
            Image.new("RGB", (32, 24)).save(root / "train" / name, "JPEG")
    content = {
        "images": [{"id": i, "file_name": name, "width": 32, "height": 24} for i, name in enumerate(names)],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 9, 9]} for i in range(len(names))],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (root / "train.json").write_text(json.dumps(content))
    return [{"root": str(root), "split": "train"}]


def yolo(root: Path, names: list[str]) -> list[dict[str, str]]:
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("cat\n")
    for name in names:
        Image.new("RGB", (32, 24)).save(root / "images/train" / f"{name}.jpg", "JPEG")
        (root / "labels/train" / f"{name}.txt").write_text("0 .5 .5 .2 .2\n")
    return [{"root": str(root), "split": "train"}]


@pytest.mark.parametrize(("newline", "mark"), [("\n", ""), ("\r\n", "\ufeff"), ("\r", "")])
def test_voc_lists_of_any_system(tmp_path: Path, newline: str, mark: str) -> None:
    dataset = open_voc(splits=voc(tmp_path, NAMES, newline=newline, mark=mark), class_names=["cat"], part="train")
    assert [record.image_id for record in dataset.annotations] == NAMES
    assert dataset[len(NAMES) - 1][0].shape == (3, 24, 32)


def test_names_with_line_feeds_in_formats_that_can_have_them(tmp_path: Path) -> None:
    names = NAMES + LINE_FEEDS
    files = [f"{name}.jpg" for name in names]
    assert [record.image_id for record in open_coco(splits=coco(tmp_path / "coco", files)).annotations] == names
    found = open_yolo(splits=yolo(tmp_path / "yolo", names)).annotations
    visible = [name for name in names if not name.startswith(".")]  # hidden files of a folder are ignored
    assert sorted(record.image_id for record in found) == sorted(visible)
    (tmp_path / "csv").mkdir()
    with (tmp_path / "csv/train.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "label", "xmin", "ymin", "xmax", "ymax"])
        writer.writerows([name, "cat", 1, 1, 9, 9] for name in files)
    splits = [{"root": str(tmp_path / "csv"), "split": "train"}]
    records = open_csv(splits=splits, images=str(tmp_path / "coco/train")).annotations
    assert [record.image_id for record in records] == names


def test_bytes_that_are_no_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    splits = yolo(tmp_path, ["good"])
    odd = os.fsdecode(b"bad\xff\xfe.jpg")
    os.rename(tmp_path / "images/train/good.jpg", tmp_path / "images/train" / odd)
    os.rename(tmp_path / "labels/train/good.txt", tmp_path / "labels/train" / odd.replace("jpg", "txt"))
    dataset = open_yolo(splits=splits, part="train")
    assert len(dataset) == 1
    assert dataset[0][0].shape == (3, 24, 32)
    one_line(dataset.annotations[0].image_id).encode()
    assert isinstance(image_key(dataset.annotations[0].image_id), int)  # by which metrics know the image
    Image.new("RGB", (32, 24)).save(tmp_path / "images/train" / os.fsdecode(b"without labels\xff.jpg"))
    open_splits(Auto, splits=splits)
    assert "1 of 2 images" in caplog.text
    caplog.text.encode()


@pytest.mark.parametrize("name", LINE_FEEDS)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_name_forges_no_line_of_a_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, on_error: str
) -> None:
    splits = coco(tmp_path, [f"{name}.jpg", "good.jpg"])
    (tmp_path / "train" / f"{name}.jpg").write_bytes(b"no image")
    text = ""
    if on_error == "raise":
        with pytest.raises(DataError) as caught:
            open_coco(splits=splits)[0]
        text = str(caught.value)
        assert "\n" not in text
    else:
        with caplog.at_level(logging.WARNING):
            dataset = open_coco(splits=splits, on_error="skip")  # type: ignore[arg-type]
        assert [record.image_id for record in dataset.annotations] == ["good"]
        assert all("\n" not in str(problem) for problem in dataset.dropped)
        text = caplog.text
    assert one_line(name) in text
    assert not any(line.startswith(FORGED) for line in text.splitlines())
    assert "\r" not in text


@pytest.mark.parametrize("tag", ["name", "difficult", "xmin"])
def test_a_class_name_forges_no_line_of_a_log(tmp_path: Path, caplog: pytest.LogCaptureFixture, tag: str) -> None:
    splits = voc(tmp_path, ["a", "b"])
    odd = XML.replace("<object>", f"<object><{tag}>x\n{FORGED} INFO: all is well\x85</{tag}>")
    odd = odd.replace("<bndbox>", f"<bndbox><{tag}>x\n{FORGED} INFO</{tag}>")
    (tmp_path / "Annotations/a.xml").write_text(odd)
    with caplog.at_level(logging.WARNING):
        (problem,) = open_voc(splits=splits, class_names=["cat"], on_error="skip").dropped
    assert "\n" not in str(problem)
    assert not any(line.startswith(FORGED) for line in caplog.text.splitlines())


@pytest.mark.parametrize("name", [("x" * 100 + "/") * 50, "x\0y", ""])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError):
        open_coco(splits=coco(tmp_path / "coco", [name or " "], images=False))
    splits = voc(tmp_path / "voc", ["a"])
    (tmp_path / "voc/ImageSets/Main/train.txt").write_text(f"{name or 'absent'}\n")
    with pytest.raises(DataError):
        open_voc(splits=splits, class_names=["cat"])
    (tmp_path / "voc/ImageSets/Main/train.txt").write_text("a\n")
    os.remove(tmp_path / "voc/JPEGImages/a.jpg")
    stated = name.replace("\0", "") or "absent"
    (tmp_path / "voc/Annotations/a.xml").write_text(XML.replace("<size>", f"<filename>{stated}</filename><size>"))
    with pytest.raises(DataError, match="the image is missing"):
        open_voc(splits=splits, class_names=["cat"])


@pytest.mark.timeout(20)
def test_loops_and_pipes_in_a_data_folder(tmp_path: Path) -> None:
    splits = yolo(tmp_path, ["a", "b"])
    folder = tmp_path / "images/train"
    for link in ("self", "again", "more"):
        (folder / link).symlink_to(folder, target_is_directory=True)
        (tmp_path / "labels/train" / link).symlink_to(tmp_path / "labels/train", target_is_directory=True)
    assert [record.image_id for record in open_yolo(splits=splits).annotations] == ["a", "b"]
    os.mkfifo(folder / "c.jpg")
    (folder / "d.jpg").symlink_to("d.jpg")
    dataset = open_yolo(splits=splits, on_error="skip")
    assert len(dataset) == len(dataset.dropped) == 2
    os.remove(tmp_path / "labels/train/a.txt")
    os.mkfifo(tmp_path / "labels/train/a.txt")
    with pytest.raises(DataError, match=r"a\.txt: .*pipe"):
        open_yolo(splits=splits)


@pytest.mark.timeout(20)
def test_what_predict_finds_in_a_folder_of_loops(tmp_path: Path) -> None:
    for name in [*NAMES, *LINE_FEEDS]:
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.jpg", "JPEG")
    for link in ("self", "again", "more"):
        (tmp_path / link).symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    images = {tmp_path / f"{name}.jpg" for name in [*NAMES, *LINE_FEEDS]}
    assert set(find_images(str(tmp_path))) == {*images, tmp_path / "loop.jpg"}
    images.remove(tmp_path / "..a.jpg")  # patterns leave hidden files out
    assert set(find_images(f"{tmp_path}/**/*.jpg")) == images
    assert set(find_images(f"{tmp_path}/**")) == images
    assert set(find_images(f"{tmp_path}/*.jpg")) == images
    names = output_names(find_images(str(tmp_path)))
    assert len(set(names.values())) == len(names)
    assert all(Path(name).name == name for name in names.values())


def test_one_line() -> None:
    assert one_line("plain größe 🐦 'x'") == "plain größe 🐦 'x'"
    assert one_line("a\nb\r\tc\x1b[31m\u2028\x85") == r"a\nb\r\tc\x1b[31m\u2028\x85"
    assert one_line(os.fsdecode(b"\xff")) == r"\udcff"


@pytest.mark.parametrize("name", ["[/b]", "[red]", "[link=x]y", "\x1b[31m", "größe", "a\nb"])
def test_class_names_are_no_markup(capsys: pytest.CaptureFixture[str], name: str) -> None:
    print_scores("title", {"AP": {name: 0.5}}, {"map": 0.5})
    printed = capsys.readouterr().out
    assert "0.5000" in printed
    assert "\x1b" not in printed
    assert one_line(name) in printed
