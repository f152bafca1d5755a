"""What is CSV's alone: which column is what, in which unit, and rows that are too short."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate
from PIL import Image

from helpers.datasets import open_csv
from ssd_lightning.config import compose_config
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.formats import Auto
from ssd_lightning.data.formats.csv_boxes import CSV
from ssd_lightning.data.formats.csv_columns import Columns, sniff_columns
from ssd_lightning.data.formats.detect import detect_format
from ssd_lightning.errors import ConfigurationError, DataError


def write(root: Path, text: str, place: str = "train.csv", images: str = "train") -> None:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / images).mkdir(parents=True, exist_ok=True)
    (root / place).write_text(text)
    Image.new("RGB", (200, 100)).save(root / images / "a.jpg")


def read(root: Path, split: str = "train", **settings: Any) -> DetectionDataset:
    return open_csv(splits=[{"root": str(root), "split": split}], **settings)


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("img_name,label,xmin,ymin,xmax,ymax", Columns(0, 1, (2, 3, 4, 5), "xyxy", None, None, "pixels")),
        (
            "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf",
            Columns(0, 2, (4, 6, 5, 7), "xyxy", 8, None, "fractions"),
        ),
        (
            "filename,width,height,class,xmin,ymin,xmax,ymax",
            Columns(0, 3, (4, 5, 6, 7), "xyxy", None, (2, 1), "pixels"),
        ),
        ("path,x1,y1,x2,y2,class_name", Columns(0, 5, (1, 2, 3, 4), "xyxy", None, None, "pixels")),
        ("image_id,width,height,bbox,source", Columns(0, None, (3,), "xywh", None, (2, 1), "pixels")),
        ("image,label,xmin,ymin,width,height", Columns(0, 1, (2, 3, 4, 5), "xywh", None, None, "pixels")),
        ("name,image_id,xmin,ymin,xmax,ymax,category", Columns(1, 6, (2, 3, 4, 5), "xyxy", None, None, "pixels")),
        ("image,label,x_center,y_center,w,h", Columns(0, 1, (2, 3, 4, 5), "cxcywh", None, None, "pixels")),
    ],
)
def test_columns_are_known_by_their_names(header: str, columns: Columns) -> None:
    assert sniff_columns(header.split(","), Path("x.csv")) == columns


@pytest.mark.parametrize("header", ["img_name,label,xmin,ymin,width", "image,1,2,3,4", ""])
def test_a_column_is_missing(tmp_path: Path, header: str) -> None:
    write(tmp_path, header + "\n")
    with pytest.raises(DataError, match=r"train.csv: there is no column for the (image|class|box)"):
        read(tmp_path)


PLAIN = ["a.jpg,20,30,x,1,2,3,4,0", "b.jpg,20,30,y,5,6,7,8,1", "a.jpg,20,30,x, 1.1 ,2e0,3,4,0,more", "c,,,x,1,2,3,4,0"]
FAULTS = {
    "an empty box": "b.jpg,20,30,,,,,,",
    "no number": "b.jpg,20,30,x,1,2,z,4,0",
    "not finite": "b.jpg,20,30,x,1,2,nan,4,0",
    "four times -1": "b.jpg,20,30,x,-1,-1,-1,-1,0",
    "no flag": "b.jpg,20,30,x,1,2,3,4,maybe",
    "an empty flag": "b.jpg,20,30,x,1,2,3,4,",
    "an empty line": "",
    "a short row": "b.jpg,20",
    "a line break": '"b.jpg",20,30,"x\nx",1,2,3,4,0',
    "a size later": "c.jpg,20,30,x,1,2,3,4,0",
}


@pytest.mark.parametrize("rows_of_block", [2, 100])
@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_blocks_give_what_rows_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str | None, rows_of_block: int
) -> None:
    rows = PLAIN[:3] if fault is None else [*PLAIN, FAULTS[fault], *PLAIN]
    write(tmp_path, "image,width,height,label,xmin,ymin,xmax,ymax,difficult\n" + "\n".join(rows))
    for name in "abc":
        Image.new("RGB", (20, 30)).save(tmp_path / f"train/{name}.jpg")
    by_rows = CSV().read(tmp_path, "train")
    monkeypatch.setattr("ssd_lightning.data.formats.csv_blocks.LEAST_BYTES", 0)
    monkeypatch.setattr("ssd_lightning.data.formats.csv_blocks.ROWS_OF_BLOCK", rows_of_block)
    if fault is None:
        monkeypatch.setattr("ssd_lightning.data.formats.csv_rows.Rows.read", lambda _: pytest.fail("row by row"))
    in_blocks = CSV().read(tmp_path, "train")
    assert (in_blocks.names, in_blocks.problems, in_blocks.notes) == (by_rows.names, by_rows.problems, by_rows.notes)
    for field in fields(in_blocks.columns):
        ours, theirs = (np.array(getattr(found.columns, field.name)) for found in (in_blocks, by_rows))
        assert np.array_equal(ours, theirs), field.name


def test_rows_of_a_image_need_not_follow_each_other(tmp_path: Path) -> None:
    write(tmp_path, "image,label,xmin,ymin,xmax,ymax\na.jpg,x,1,2,3,4\nb.jpg,y,5,6,7,8\n\na.jpg,y,9,10,11,12\n")
    Image.new("RGB", (20, 30)).save(tmp_path / "train/b.jpg")
    dataset = read(tmp_path)
    assert [record.image_id for record in dataset.annotations] == ["a", "b"]
    assert [record.labels.tolist() for record in dataset.annotations] == [[1, 2], [2]]
    assert dataset.annotations[0].boxes_xyxy_px.tolist() == [[1, 2, 3, 4], [9, 10, 11, 12]]


def test_a_stated_size_saves_a_look_at_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,200,100,x,1,2,3,4\n")
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("an image was opened"))
    assert read(tmp_path).annotations[0].size_px == (100, 200)


@pytest.mark.parametrize(
    ("rows", "is_refused"),
    [
        (["a.jpg,0,10,20,60,50", "a.jpg,1,20,30,80,90"], True),
        (["a.jpg,0,10,20,60,50", "a.jpg,,,,,", "a.jpg,1,20,30,80,90"], True),
        (["a.jpg,0,10,20,60,50", "a.jpg,1,20,30,80,3"], False),  # 3 is no y2 below 30
        (["a.jpg,0,10,20,60,50", "a.jpg,1,20,30,80,cat"], False),
        (["a.jpg,0.5,10,20,60,50"], False),
        (["a.jpg,10,20,60,80,3"], False),
        (["a.jpg,,,,,"], False),
    ],
)
def test_columns_without_a_header(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rows: list[str], is_refused: bool
) -> None:
    caplog.set_level("INFO")
    write(tmp_path, "\n".join(rows))
    if is_refused:
        with pytest.raises(DataError, match=r"train.csv: .*image,xmin,ymin,xmax,ymax,label.*a.jpg,0,10,20,60,50"):
            CSV().read(tmp_path, "train")
    else:
        CSV().read(tmp_path, "train")
        (line,) = caplog.messages
        assert f"{tmp_path}/train.csv" in line
        assert "image,xmin,ymin,xmax,ymax,label" in line
        assert rows[0] in line


def test_a_column_of_corners(tmp_path: Path) -> None:
    boxes = ("10, 20, 90, 100", "110, 50, 190, 90")  # the image is 200 x 100
    write(tmp_path, "image,label,bbox\n" + "".join(f'a.jpg,cat,"[{box}]"\n' for box in boxes))
    with pytest.raises(DataError, match=r"train.csv: line 2 'cat' of a.jpg .*xmin, ymin, xmax, ymax"):
        CSV().read(tmp_path, "train")


def test_the_unit_may_be_said(tmp_path: Path) -> None:
    write(tmp_path, "image,label,xmin,ymin,xmax,ymax\na.jpg,x,.1,.2,.3,.4\n")
    with pytest.raises(DataError, match=r"line 2 'x' of a.jpg has the box \(0\.1, .*looks like fractions"):
        read(tmp_path)
    assert read(tmp_path, unit="fractions").annotations[0].boxes_xyxy_px.round(3).tolist() == [[20, 20, 60, 40]]
    with pytest.raises(ConfigurationError, match="unit='metres'"):
        read(tmp_path, unit="metres")


@pytest.mark.parametrize("row", ["a.jpg,x,1,2,3", "a.jpg,x,1,2,3,", "a.jpg,x,1,2,3,4e", "a.jpg,,1,2,3,4"])
def test_a_bad_row(tmp_path: Path, row: str) -> None:
    write(tmp_path, f"image,label,xmin,ymin,xmax,ymax\na.jpg,x,1,2,3,4\n{row}\n")
    with pytest.raises(DataError, match=r"train\.csv: line 3 "):
        read(tmp_path)
    dataset = read(tmp_path, on_error="skip")
    assert dataset.annotations[0].boxes_xyxy_px.tolist() == [[1, 2, 3, 4]]
    assert len(dataset.dropped) == 1


@pytest.mark.parametrize("empty", ["", "nan", "NaN", "NA", " ", "None", "<NA>"])
def test_a_row_of_empty_fields_is_an_image_without_objects(tmp_path: Path, empty: str) -> None:
    write(tmp_path, f"image,label,xmin,ymin,xmax,ymax,difficult\na.jpg{f',{empty}' * 6}\nb.jpg,none,1,2,3,4,nan\n")
    (tmp_path / "train/b.jpg").hardlink_to(tmp_path / "train/a.jpg")
    dataset = read(tmp_path)
    assert dataset.class_names == ("none",)
    assert [(record.image_id, record.difficult.tolist()) for record in dataset.annotations] == [
        ("a", []),
        ("b", [False]),
    ]


@pytest.mark.parametrize("minus", ["-1", "-1.0"])
def test_a_row_of_minus_ones_is_reported_how_to_write_it(tmp_path: Path, minus: str) -> None:
    write(tmp_path, f"image,label,xmin,ymin,xmax,ymax\na.jpg,x,1,2,3,4\na.jpg{f',{minus}' * 5}\n")
    with pytest.raises(
        DataError,
        match=r"line 3 '-1' of a.jpg has -1 for all four numbers of its box; an image without",
    ):
        read(tmp_path)
    dataset = read(tmp_path, on_error="skip")
    assert dataset.class_names == ("x",)
    assert (len(dataset.dropped), len(dataset.annotations[0].labels)) == (1, 1)


def test_blanks_around_a_name_are_dropped_where_no_file_has_them(tmp_path: Path) -> None:
    rows = [" a.jpg,x,1,2,3,4", "a.jpg ,x,2,2,3,4", "b.jpg,x,1,2,3,4", " b.jpg,x,2,2,3,4"]
    write(tmp_path, "\n".join(["image,label,xmin,ymin,xmax,ymax", *rows]))
    for name in ("b.jpg", " b.jpg"):
        Image.new("RGB", (200, 100)).save(tmp_path / "train" / name)
    found = [(record.image_path.name, len(record.labels)) for record in read(tmp_path).annotations]
    assert found == [("a.jpg", 2), ("b.jpg", 1), (" b.jpg", 1)]


def test_images_of_train_labels_lie_in_train(tmp_path: Path) -> None:
    write(tmp_path, "filename,class,xmin,ymin,xmax,ymax\na.jpg,x,1,2,3,4\n", place="train_labels.csv")
    assert read(tmp_path, "train_labels").annotations[0].image_path == tmp_path / "train/a.jpg"


def test_two_images_that_differ_in_their_suffix_have_ids_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, "image,label,xmin,ymin,xmax,ymax\na.jpg,x,1,2,3,4\na.png,x,1,2,3,4\n")
    Image.new("RGB", (20, 30)).save(tmp_path / "train/a.png")
    assert [record.image_id for record in read(tmp_path).annotations] == ["a", "a.png"]


def test_a_number_is_a_number_however_it_is_written(tmp_path: Path) -> None:
    header = "image_id,width,height,label,xmin,ymin,xmax,ymax"
    write(tmp_path, f"{header}\n17.0,200.0,100.0,1.0,1.0,2,3,4\n17.0,200.0,100.0,1,5,6,7,8\n")
    (tmp_path / "train/a.jpg").rename(tmp_path / "train/17.jpg")
    dataset = read(tmp_path, class_descriptions={"1.0": "cat"})
    assert dataset.class_names == ("cat",)
    assert dataset.annotations[0].size_px == (100, 200)
    assert dataset.annotations[0].boxes_xyxy_px.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert read(tmp_path).class_names == ("1",)


@pytest.mark.parametrize("row", ["1.5,200,100,1,1,2,3,4", "17,200,100,1.5,1,2,3,4"])
def test_a_number_that_is_not_whole_is_named(tmp_path: Path, row: str) -> None:
    write(tmp_path, f"image_id,width,height,label,xmin,ymin,xmax,ymax\n{row}\n")
    (tmp_path / "train/a.jpg").rename(tmp_path / "train/17.jpg")
    with pytest.raises(
        DataError, match=r"train/1\.5: the image is missing|line 2 '1\.5' .* is of none of the 1 classes"
    ):
        read(tmp_path, class_names=["1"])


@pytest.mark.parametrize("stated", ["C:/Users/me/b.jpg", "/home/me/b.jpg"])
def test_a_missing_image_of_another_machine_is_not_named_as_one_below_the_root(tmp_path: Path, stated: str) -> None:
    write(tmp_path, f"image,label,xmin,ymin,xmax,ymax\n{stated},cat,1,2,30,40\n")
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{stated}: the image is missing")


def test_rows_of_an_image_are_joined_whatever_the_separator(tmp_path: Path) -> None:
    write(tmp_path, "image,label,xmin,ymin,xmax,ymax\nsub\\a.jpg,x,1,2,3,4\nsub/a.jpg,x,5,6,7,8\n", images="train/sub")
    assert [(record.image_id, len(record.labels)) for record in read(tmp_path).annotations] == [("sub/a", 2)]


@pytest.mark.parametrize("descriptions", [{"0": "banana"}, {0: "banana"}, "names.csv"])
def test_codes_get_their_names(tmp_path: Path, descriptions: Any) -> None:
    write(tmp_path, "img_name,label,xmin,ymin,xmax,ymax\na.jpg,0,104,20,143,58\n", "bananas_train/label.csv")
    (tmp_path / "train").rename(tmp_path / "bananas_train/images")
    (tmp_path / "names.csv").write_text("code,name\n0,banana\n")
    dataset = read(tmp_path, "bananas_train", class_descriptions=descriptions)
    assert dataset.class_names == ("banana",)
    assert dataset.annotations[0].boxes_xyxy_px.tolist() == [[104, 20, 143, 58]]


def test_descriptions_are_text(tmp_path: Path) -> None:
    write(tmp_path, "img_name,label,xmin,ymin,xmax,ymax\na.jpg,0,104,20,143,58\n")
    with pytest.raises(DataError, match="class_descriptions has False for 0, which is not text"):
        read(tmp_path, class_descriptions={0: False})


def test_the_bananas_configuration_reads_d2ls_files(tmp_path: Path) -> None:
    for split in ("bananas_train", "bananas_val"):
        write(
            tmp_path,
            "img_name,label,xmin,ymin,xmax,ymax\na.jpg,0,104,20,143,58\n",
            f"{split}/label.csv",
            f"{split}/images",
        )
    overrides = ["data=bananas", f"data.root={tmp_path}", "data.val_fraction=0", "data.num_workers=0"]
    module = instantiate(compose_config("train", overrides).data.module, _convert_="all")
    module.prepare_data()
    assert module.class_names == ("banana",)
    assert len(module.dataset("train")) == len(module.dataset("test")) == 1


def write_splits(root: Path, column: str, splits: Sequence[str], folders: Sequence[str] = ("photos",) * 4) -> None:
    text = f"{column},image,label,xmin,ymin,xmax,ymax\n"
    for name, label, split, folder in zip("abcd", "xyzx", splits, folders, strict=True):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (200, 100)).save(root / folder / f"{name}.jpg")
        text += f"{split},{name}.jpg,{label},1,2,3,4\n"
    (root / "boxes.csv").write_text(text)


@pytest.mark.parametrize("data", ["auto", "csv_folder"])
@pytest.mark.parametrize(
    ("column", "splits", "folders"),
    [
        ("split", ("train", "val", "test", "train"), ("photos",) * 4),
        ("Set", ("training", "valid", "testing", ""), ("photos",) * 4),
        ("subset", ("Train ", "dev", "test", "train"), ("train", "dev", "test", "train")),
        ("split", ("train2017", "val2017", "test2017", "train2017"), ("train2017", "val2017", "test2017", "train2017")),
        (
            "ML_USE",
            ("TRAIN", "VALIDATION", "TEST", "UNASSIGNED"),
            ("images/train", "images/val", "images/test", "images/train"),
        ),
    ],
)
def test_a_column_names_the_splits(
    data: str, column: str, splits: Sequence[str], folders: Sequence[str], tmp_path: Path
) -> None:
    write_splits(tmp_path, column, splits, folders)
    config = compose_config("train", [f"data={data}", f"data.root={tmp_path}", "data.class_names=[x,y,z]"])
    module = instantiate(config.data.module, _convert_="all")
    ids = {stage: list(module.dataset(stage).annotations.image_ids) for stage in ("train", "val", "test")}
    assert ids == {"train": ["a", "d"], "val": ["b"], "test": ["c"]}
    assert module.stages.split_names["train"] == ["train"]
    (dropped,) = read(tmp_path, "VALIDATION", class_names=["z"], on_error="skip").dropped
    assert dropped.item == "line 3 'y' of b.jpg"


def test_rows_of_a_split_column_are_read_with_the_whole_file_and_told_apart(tmp_path: Path) -> None:
    write_splits(tmp_path, "split", ("train", "val", "extra", "train"))
    assert len(read(tmp_path, "boxes.csv")) == 4
    files = {split: set(CSV().files(tmp_path, split)) for split in ("train", "val", "extra", "boxes.csv")}
    assert files["boxes.csv"] == files["train"] | files["val"] | files["extra"]
    assert files["train"].isdisjoint(files["val"])
    with pytest.raises(DataError, match=r"boxes.csv: there is no split 'test'; there is extra, train, val"):
        read(tmp_path, "test")
    (tmp_path / "more.csv").write_text((tmp_path / "boxes.csv").read_text())
    with pytest.raises(DataError, match=r"'val'.*boxes.csv.*more.csv"):
        read(tmp_path, "val")


def test_a_column_that_names_no_split_changes_nothing(tmp_path: Path) -> None:
    write_splits(tmp_path, "set", ("night", "day", "", "night"))
    (tmp_path / "boxes.csv").rename(tmp_path / "train.csv")
    assert len(read(tmp_path)) == 4


def test_the_file_of_a_split_may_hold_others_too(tmp_path: Path) -> None:
    write_splits(tmp_path, "split", ("train", "val", "test", "train"))
    (tmp_path / "boxes.csv").rename(tmp_path / "train.csv")
    assert [len(read(tmp_path, split)) for split in ("train", "val", "test")] == [2, 1, 1]


def test_automl_files_without_header(tmp_path: Path) -> None:
    rows = ["TRAIN,gs://bucket/a.jpg,cat,0.1,0.2,,,0.5,0.6,,", "VALIDATION,gs://bucket/b.jpg,,,,,,,,,"]
    write(tmp_path, "\n".join(rows), "salads.csv", "photos")
    Image.new("RGB", (200, 100)).save(tmp_path / "photos/b.jpg")
    (found,) = read(tmp_path).annotations
    assert found.boxes_xyxy_px.round(3).tolist() == [[20, 20, 100, 60]]
    (empty,) = read(tmp_path, "val", class_names=["cat"]).annotations
    assert len(empty.labels) == 0


@pytest.mark.parametrize("row", ["a.jpg,20,20,100,60,object,200,100", "object,20,20,80,40,a.jpg,200,100"])
def test_files_of_tools_without_header(tmp_path: Path, caplog: pytest.LogCaptureFixture, row: str) -> None:
    caplog.set_level("INFO")
    write(tmp_path, f"{row}\n{row}\n", "labels.csv", "photos")
    found = Auto().read(tmp_path, ".")
    assert list(found.names) == ["object"]
    assert found.columns.boxes_xyxy_px.tolist() == [[20, 20, 100, 60]] * 2
    assert any("labels.csv" in line and "image_width" in line for line in caplog.messages)


def test_a_class_that_never_has_a_box_stands_for_images_without_objects(tmp_path: Path) -> None:
    rows = ["b.jpg,No finding,,,,", "a.jpg,nodule,1,2,3,4", "c.jpg,No finding,,,,"]
    write(tmp_path, "image,label,xmin,ymin,xmax,ymax\n" + "\n".join(rows))
    for name in "bc":
        Image.new("RGB", (200, 100)).save(tmp_path / f"train/{name}.jpg")
    found = CSV().read(tmp_path, "train")
    assert list(found.names) == ["nodule"]
    assert np.diff(found.columns.starts).tolist() == [0, 1, 0]
    (note,) = found.notes
    assert "train.csv" in note
    assert "'No finding'" in note
    write(tmp_path, "image,label,xmin,ymin,xmax,ymax\na.jpg,nodule,,,,\na.jpg,nodule,1,2,3,4\n")  # here it has one
    with pytest.raises(DataError, match=r"train.csv: line 2 'nodule' of a.jpg"):
        read(tmp_path)


def test_a_class_with_boxes_in_another_split_stands_for_no_empty_image(tmp_path: Path) -> None:
    rows = ["a.jpg,dog,1,2,3,4,train", "b.jpg,dog,,,,,val", "b.jpg,cat,1,2,3,4,val"]
    write(tmp_path, "image,label,xmin,ymin,xmax,ymax,split\n" + "\n".join(rows))
    Image.new("RGB", (200, 100)).save(tmp_path / "train/b.jpg")
    (problem,) = CSV(images="train").read(tmp_path, "val").problems
    assert "line 3 'dog' of b.jpg" in str(problem)


@pytest.mark.parametrize("label", ["nan", "NaN", "<NA>", ""])
def test_a_box_of_a_missing_class_is_reported(tmp_path: Path, label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssd_lightning.data.formats.csv_blocks.LEAST_BYTES", 0)
    write(tmp_path, f"image,label,xmin,ymin,xmax,ymax\na.jpg,{label},1,2,3,4\na.jpg,none,1,2,3,4\n")
    with pytest.raises(DataError, match=r"train.csv: line 2 '' of a.jpg"):
        read(tmp_path)


def test_blanks_around_a_class_are_dropped(tmp_path: Path) -> None:
    write(tmp_path, "image,label,xmin,ymin,xmax,ymax\na.jpg,St. Bernard ,1,2,3,4\na.jpg, St. Bernard,1,2,3,4\n")
    assert list(CSV().read(tmp_path, "train").names) == ["St. Bernard"]


def test_names_of_classes_come_before_their_numbers(tmp_path: Path) -> None:
    write(tmp_path, "image,label,class_name,xmin,ymin,xmax,ymax\na.jpg,0,cat,1,2,3,4\n")
    assert list(CSV().read(tmp_path, "train").names) == ["cat"]


def test_a_long_field(tmp_path: Path) -> None:
    write(tmp_path, f"image,label,xmin,ymin,xmax,ymax,mask\na.jpg,cat,1,2,3,4,{'1 2 ' * 100_000}\n")
    assert len(CSV().read(tmp_path, "train").columns.labels) == 1


def test_fiftyones_copy_of_openimages(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        rows = "ImageID,LabelName,XMin,XMax,YMin,YMax\na,/m/01yrx,0.1,0.5,0.1,0.5\n"
        write(tmp_path, rows, f"{split}/labels/detections.csv", f"{split}/data")
        (tmp_path / split / "metadata").mkdir()
        (tmp_path / split / "metadata/classes.csv").write_text("/m/01yrx,Cat\n/m/0bt9lr,Dog\n")
    assert dict(detect_format(tmp_path).splits) == {"train": "train", "val": "validation"}
    for found in (Auto().read(tmp_path, "val"), CSV().read(tmp_path, "validation")):
        assert list(found.names) == ["Cat"]
        assert list(found.columns.image_paths) == [str(tmp_path / "validation/data/a.jpg")]
    renamed = CSV(class_descriptions={"/m/01yrx": "Katze"}).read(tmp_path, "train")
    assert list(renamed.names) == ["Katze"]


def test_boxes_without_a_column_for_the_class(tmp_path: Path) -> None:
    write(tmp_path, "image,xmin,ymin,xmax,ymax\na.jpg,1,2,3,4\n")
    found = Auto().read(tmp_path, "train")
    assert list(found.names) == ["object"]
    assert any("train.csv" in note and "'object'" in note for note in found.notes)
    write(tmp_path, "image,xmin,ymin,xmax,ymax,species\na.jpg,1,2,3,4,cat\n")  # this may be the class
    with pytest.raises(DataError, match=r"train.csv: there is no column for the class .*species"):
        CSV().read(tmp_path, "train")


def test_tab_separated_files(tmp_path: Path) -> None:
    write(tmp_path, "image\tlabel\txmin\tymin\txmax\tymax\na.jpg\tcat\t1\t2\t3\t4\n", "labels.tsv", "photos")
    for found in (Auto().read(tmp_path, "train"), CSV().read(tmp_path, "labels.tsv"), CSV().read(tmp_path, "labels")):
        assert list(found.names) == ["cat"]
        assert len(found.columns.labels) == 1


def test_images_without_a_row_are_counted(tmp_path: Path) -> None:
    header = "image,label,xmin,ymin,xmax,ymax\n"
    write(tmp_path, f"{header}a.jpg,x,1,2,3,4\n", images="photos")
    assert not CSV().read(tmp_path, "train").notes
    for name in ("b.jpg", "c.JPG"):
        Image.new("RGB", (20, 30)).save(tmp_path / "photos" / name)
    (note,) = CSV().read(tmp_path, "train").notes
    assert all(part in note for part in (f"{tmp_path}/photos: 2 images", "train.csv", "b.jpg"))
    (tmp_path / "val.csv").write_text(f"{header}b,x,1,2,3,4\nc.jpg,x,1,2,3,4\n")  # of another split
    assert not CSV().read(tmp_path, "train").notes


def test_images_without_a_row_in_a_large_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssd_lightning.data.formats.csv_boxes.MOST_COMPARED", 1)
    write(tmp_path, "image,label,xmin,ymin,xmax,ymax\na.jpg,x,1,2,3,4\n")
    Image.new("RGB", (20, 30)).save(tmp_path / "train/b.jpg")
    (note,) = CSV().read(tmp_path, "train").notes
    assert f"{tmp_path}/train: 1 of 2 images" in note


def test_images_of_other_splits_in_a_column_have_rows(tmp_path: Path) -> None:
    write_splits(tmp_path, "split", ("train", "val", "test", "train"))
    assert not CSV().read(tmp_path, "train").notes
