"""Names made to harm: found and read as they are, and never more than one line of a log."""

import logging
import os
from pathlib import Path

import pytest

from helpers.annotation_tools import Spec, Thing, coco_json, paint, put, put_each, write_rows, yolo_text
from helpers.datasets import open_coco, open_csv, open_splits, open_voc, open_yolo
from ssd_lightning.data.formats import Auto
from ssd_lightning.errors import DataError, one_line
from ssd_lightning.inference.names import output_names
from ssd_lightning.inference.sources import find_images, find_sources
from ssd_lightning.metrics.detection_state import image_key
from ssd_lightning.visualization.tables import print_scores

BOX = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>20</xmax><ymax>20</ymax></bndbox>"
XML = f"<annotation><object><name>cat</name>{BOX}</object></annotation>"
NAMES = ["a b", "-rf", "--help", "größe", "鳥", "🐦", "tab\tinside", "[1]*?", "$(touch x)", "a=b,c", "%s%n", "..a",
         "next\x85line", "para\u2029graph", "right\u202eleft", "x" * 240, "form\x0cfeed", "'\"`", "{0}"]  # fmt: skip
LINE_FEEDS = ["line\nfeed", "forged\n2026-01-01 00:00:00,000 INFO train: all is well", "return\rhere"]


def specs(names: list[str]) -> list[Spec]:
    return [Spec(name, (24, 32), (Thing("cat", (1, 1, 10, 10)),)) for name in names]


def splits_of(root: Path) -> list[dict[str, str]]:
    return [{"root": str(root), "split": "train"}]


def voc(root: Path, names: list[str], *, newline: str = "\n", mark: str = "") -> list[dict[str, str]]:
    images = specs([f"{name}.jpg" for name in names])
    paint(root / "JPEGImages", images)
    put_each(root / "Annotations", images, ".xml", lambda _: XML)
    put(root / "ImageSets/Main/train.txt", mark + "".join(f"{name}{newline}" for name in names))
    return splits_of(root)


def coco(root: Path, files: list[str]) -> list[dict[str, str]]:
    put(root / "train.json", coco_json(specs(files), {"cat": 1}))
    return splits_of(root)


def yolo(root: Path, names: list[str]) -> list[dict[str, str]]:
    images = specs([f"{name}.jpg" for name in names])
    put(root / "classes.txt", "cat\n")
    paint(root / "images/train", images)
    put_each(root / "labels/train", images, ".txt", yolo_text)
    return splits_of(root)


def forged_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("2026-01-01")]


@pytest.mark.parametrize(("newline", "mark"), [("\n", ""), ("\r\n", "\ufeff"), ("\r", "")])
def test_voc_lists_of_any_system(tmp_path: Path, newline: str, mark: str) -> None:
    dataset = open_voc(splits=voc(tmp_path, NAMES, newline=newline, mark=mark), class_names=["cat"], part="train")
    assert [record.image_id for record in dataset.annotations] == NAMES
    assert dataset[len(NAMES) - 1][0].shape == (3, 24, 32)


def test_names_with_line_feeds_in_formats_that_can_have_them(tmp_path: Path) -> None:
    names = NAMES + LINE_FEEDS
    files = [f"{name}.jpg" for name in names]
    paint(tmp_path / "coco/train", specs(files))
    assert [record.image_id for record in open_coco(splits=coco(tmp_path / "coco", files)).annotations] == names
    found = open_yolo(splits=yolo(tmp_path / "yolo", names)).annotations
    visible = [name for name in names if not name.startswith(".")]  # hidden files of a folder are ignored
    assert sorted(record.image_id for record in found) == sorted(visible)
    rows = [[name, "cat", 1, 1, 9, 9] for name in files]
    write_rows(tmp_path / "train.csv", ["image", "label", "xmin", "ymin", "xmax", "ymax"], *rows)
    records = open_csv(splits=splits_of(tmp_path), images=str(tmp_path / "coco/train")).annotations
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
    paint(tmp_path / "images/train", specs([os.fsdecode(b"without labels\xff.jpg")]))
    open_splits(Auto, splits=splits)
    assert "1 of 2 images" in caplog.text
    caplog.text.encode()


@pytest.mark.parametrize("name", LINE_FEEDS)
def test_a_name_forges_no_line_of_a_log(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    splits = coco(tmp_path, [f"{name}.jpg", "good.jpg"])
    paint(tmp_path / "train", specs(["good.jpg"]))
    put(tmp_path / "train" / f"{name}.jpg", "no image")
    with pytest.raises(DataError) as caught:
        open_coco(splits=splits)[0]
    with caplog.at_level(logging.WARNING):
        dataset = open_coco(splits=splits, on_error="skip")  # type: ignore[arg-type]
    assert [record.image_id for record in dataset.annotations] == ["good"]
    assert not any("\n" in str(told) for told in (caught.value, *dataset.dropped))
    for text in (str(caught.value), caplog.text):
        assert one_line(name) in text
        assert not forged_lines(text)
        assert "\r" not in text


@pytest.mark.parametrize("tag", ["name", "difficult", "xmin"])
def test_a_class_name_forges_no_line_of_a_log(tmp_path: Path, caplog: pytest.LogCaptureFixture, tag: str) -> None:
    splits = voc(tmp_path, ["a", "b"])
    odd = f"<{tag}>x\n2026-01-01 INFO: all is well\x85</{tag}>"
    text = XML.replace("<object>", f"<object>{odd}").replace("<bndbox>", f"<bndbox>{odd}")
    put(tmp_path / "Annotations/a.xml", text)
    with caplog.at_level(logging.WARNING):
        (problem,) = open_voc(splits=splits, class_names=["cat"], on_error="skip").dropped
    assert "\n" not in str(problem)
    assert not forged_lines(caplog.text)


@pytest.mark.parametrize("name", [("x" * 100 + "/") * 50, "x\0y", ""])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError):
        open_coco(splits=coco(tmp_path / "coco", [name or " "]))
    splits, names = voc(tmp_path / "voc", ["a"]), tmp_path / "voc/ImageSets/Main/train.txt"
    names.write_text(f"{name or 'absent'}\n")
    with pytest.raises(DataError):
        open_voc(splits=splits, class_names=["cat"])
    names.write_text("a\n")
    os.remove(tmp_path / "voc/JPEGImages/a.jpg")
    stated = name.replace("\0", "") or "absent"
    put(tmp_path / "voc/Annotations/a.xml", XML.replace("<object>", f"<filename>{stated}</filename><object>"))
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
    images = {tmp_path / f"{name}.jpg" for name in [*NAMES, *LINE_FEEDS]}
    paint(tmp_path, specs([path.name for path in images]))
    for link in ("self", "again", "more"):
        (tmp_path / link).symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    found = find_sources(str(tmp_path))
    assert {Path(source.address) for source in found} == {*images, tmp_path / "loop.jpg"}
    names = output_names(found)
    assert len(set(names.values())) == len(names)
    assert all(Path(name).name == name for name in names.values())
    images.remove(tmp_path / "..a.jpg")  # patterns leave hidden files out
    for pattern in ("**/*.jpg", "**", "*.jpg"):
        assert set(find_images(f"{tmp_path}/{pattern}")) == images


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
