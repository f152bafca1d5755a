"""What is CSV's alone: which column is what, in which unit, and rows that are too short."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate

from helpers.annotation_tools import Spec, paint, put
from helpers.datasets import open_csv
from ssd_lightning.config import compose_config
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.formats import CSV, Auto
from ssd_lightning.data.formats.detect import detect_format
from ssd_lightning.errors import ConfigurationError, DataError

HEADER = "image,label,xmin,ymin,xmax,ymax"


def add_images(folder: Path, *names: str) -> None:
    paint(folder, [Spec(name, (100, 200)) for name in names])


def write(root: Path, text: str, place: str = "train.csv", images: str = "train") -> None:
    put(root / place, text)
    add_images(root / images, "a.jpg")


def rows(root: Path, *lines: str, header: str = HEADER) -> None:
    write(root, "\n".join([header, *lines]) + "\n")


def read(root: Path, split: str = "train", **settings: Any) -> DetectionDataset:
    return open_csv(splits=[{"root": str(root), "split": split}], **settings)


# Columns


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("img_name,label,xmin,ymin,xmax,ymax", "a.jpg,cat,10,20,110,80"),
        ("ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf", "a,x,cat,1,0.05,0.55,0.2,0.8,1"),
        ("filename,width,height,class,xmin,ymin,xmax,ymax", "a.jpg,200,100,cat,10,20,110,80"),
        ("path,x1,y1,x2,y2,class_name", "a.jpg,10,20,110,80,cat"),
        ("image_id,width,height,bbox,source", 'a,200,100,"[10, 20, 100, 60]",x'),  # Kaggle
        ("image,label,xmin,ymin,width,height", "a.jpg,cat,10,20,100,60"),
        ("name,image_id,xmin,ymin,xmax,ymax,category", "x,a.jpg,10,20,110,80,cat"),
        ("image,x_center,y_center,width,height,class", "a.jpg,60,50,100,60,cat"),
        ("filename,x,y,w,h,label", "a.jpg,10,20,100,60,cat"),
        ("img,x0,y0,x1,y1,classname", "a.jpg,10,20,110,80,cat"),
        ("image,label,class_name,xmin,ymin,xmax,ymax", "a.jpg,0,cat,10,20,110,80"),  # a name comes before its number
        ("image;label;xmin;ymin;xmax;ymax;mask", f"a.jpg;cat;10;20;110;80;{'1 2 ' * 100_000}"),  # a long field
    ],
)
def test_columns_are_known_by_their_names(tmp_path: Path, header: str, row: str) -> None:
    write(tmp_path, f"\ufeff{header}\r\n{row}\r\n")
    found = CSV().read(tmp_path, "train")
    assert list(found.names) == ["object" if "bbox" in header else "cat"]
    assert found.columns.boxes_xyxy_px.round(3).tolist() == [[10, 20, 110, 80]]
    assert found.columns.sizes_px.tolist() == [[100, 200]]
    assert found.columns.difficult.tolist() == ["IsGroupOf" in header]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("img_name,label,xmin,ymin,width", "the box"),
        ("image,1,2,3,4", "the class"),
        ("image,id,label,annotator,annotation_id", "the box .*; Label Studio's export JSON"),
        ("", "the image"),
        ("image,xmin,ymin,xmax,ymax,species", "the class .*species"),  # which may be the class
    ],
)
def test_a_column_is_missing(tmp_path: Path, header: str, said: str) -> None:
    write(tmp_path, header + "\n")
    with pytest.raises(DataError, match=rf"train.csv: there is no column for {said}"):
        read(tmp_path)


def test_columns_without_a_header(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    first = "a.jpg,0,10,20,60,50"
    for lines in ([first, "a.jpg,1,20,30,80,3"], [first, "a.jpg,1,20,30,80,cat"], ["a.jpg,0.5,10,20,60,50"]):
        write(tmp_path, "\n".join(lines))  # 3 is no y2 below 30
        CSV().read(tmp_path, "train")
        assert all(
            part in caplog.text for part in (f"{tmp_path}/train.csv", "image,xmin,ymin,xmax,ymax,label", lines[0])
        )
    write(tmp_path, f"{first}\na.jpg,,,,,\na.jpg,1,20,30,80,90")  # in all rows the class may be second
    with pytest.raises(DataError, match=f"train.csv: .*image,xmin,ymin,xmax,ymax,label.*{first}"):
        CSV().read(tmp_path, "train")
    write(tmp_path, "a.jpg,,,,,")
    assert not CSV().read(tmp_path, "train").problems


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ("a.jpg,20,20,100,60,object,200,100", "image,xmin,ymin,xmax,ymax,label,image_width"),  # SKU-110K
        ("object,20,20,80,40,a.jpg,200,100", "label,x,y,w,h,image,image_width"),  # makesense.ai
        ("TRAIN,gs://bucket/a.jpg,object,0.1,0.2,,,0.5,0.6,,", "ml_use,image,label,xmin"),  # AutoML
    ],
)
def test_files_of_tools_without_header(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, row: str, columns: str
) -> None:
    caplog.set_level("INFO")
    write(tmp_path, f"{row}\n{row}\n", "labels.csv", "photos")
    found = Auto().read(tmp_path, "train")
    assert list(found.names) == ["object"]
    assert found.columns.boxes_xyxy_px.round(3).tolist() == [[20, 20, 100, 60]] * 2
    assert any("labels.csv" in line and columns in line for line in caplog.messages)


def test_boxes_of_other_columns_and_units(tmp_path: Path) -> None:
    boxes = ("10, 20, 90, 100", "110, 50, 190, 90")  # two corners in the column of corner and size
    rows(tmp_path, *(f'a.jpg,cat,"[{box}]"' for box in boxes), header="image,label,bbox")
    with pytest.raises(DataError, match=r"train.csv: line 2 'cat' of a.jpg .*xmin, ymin, xmax, ymax"):
        CSV().read(tmp_path, "train")
    rows(tmp_path, "a.jpg,x,.1,.2,.3,.4")
    with pytest.raises(DataError, match=r"line 2 'x' of a.jpg has the box \(0\.1, .*looks like fractions"):
        read(tmp_path)
    assert read(tmp_path, unit="fractions").annotations[0].boxes_xyxy_px.round(3).tolist() == [[20, 20, 60, 40]]
    with pytest.raises(ConfigurationError, match=r"data\.unit is 'metres'"):
        read(tmp_path, unit="metres")
    rows(tmp_path, "a.jpg,1,2,3,4", header="image,xmin,ymin,xmax,ymax")
    found = Auto().read(tmp_path, "train")
    assert list(found.names) == ["object"]
    assert any("train.csv" in note and "'object'" in note for note in found.notes)


# Rows


def test_rows_of_an_image_need_not_follow_each_other_nor_have_one_spelling(tmp_path: Path) -> None:
    add_images(tmp_path / "train", "b.jpg", "c.jpg", " c.jpg", "a.png", "sub/a.jpg")
    lines = ["a.jpg,x,1,2,3,4", "b.jpg,y,5,6,7,8", "", "a.jpg,y ,9,10,11,12", " a.jpg, x,5,6,7,8"]
    rows(tmp_path, *lines, "c.jpg,x,1,2,3,4", " c.jpg,x,1,2,3,4", "sub\\a.jpg,x,1,2,3,4", "sub/a.jpg,x,5,6,7,8")
    dataset = read(tmp_path)
    assert dataset.class_names == ("x", "y")
    found = [(record.image_path.name, record.labels.tolist()) for record in dataset.annotations]
    of_folder = ("a.jpg", [1, 1])
    assert found == [("a.jpg", [1, 2, 1]), ("b.jpg", [2]), ("c.jpg", [1]), (" c.jpg", [1]), of_folder]
    assert dataset.annotations[0].boxes_xyxy_px.tolist() == [[1, 2, 3, 4], [9, 10, 11, 12], [5, 6, 7, 8]]
    rows(tmp_path, "a.jpg,x,1,2,3,4", "a.png,x,1,2,3,4")
    assert list(read(tmp_path).annotations.image_ids) == ["a", "a.png"]


BAD_ROWS = [
    "a.jpg,x,1,2,3",
    "a.jpg,x,1,2,3,",
    "a.jpg,x,1,2,3,4e",
    "a.jpg,,1,2,3,4",
    "a.jpg,nan,1,2,3,4",
    "a.jpg,<NA>,1,2,3,4",
]


def test_a_bad_row(tmp_path: Path) -> None:
    minus = [f"a.jpg{f',{text}' * 5}" for text in ("-1", "-1.0")]
    rows(tmp_path, "a.jpg,x,1,2,3,4", *BAD_ROWS, *minus, "a.jpg,none,1,2,3,4")
    dataset = read(tmp_path, on_error="skip")
    assert dataset.class_names == ("none", "x")
    assert dataset.annotations[0].boxes_xyxy_px.tolist() == [[1, 2, 3, 4]] * 2
    messages = sorted(map(str, dataset.dropped), key=lambda text: int(text.partition(" line ")[2].split()[0]))
    assert [int(text.partition(" line ")[2].split()[0]) for text in messages] == list(range(3, 11))
    assert all(text.startswith(f"{tmp_path}/train.csv: line ") for text in messages)
    assert all("'' of a.jpg" in text for text in messages[3:6])
    assert all("has -1 for all four numbers of its box; an image without" in text for text in messages[-2:])
    with pytest.raises(DataError, match=r"train\.csv: line "):
        read(tmp_path)


def test_a_row_of_empty_fields_is_an_image_without_objects(tmp_path: Path) -> None:
    empties = ("", "nan", "NaN", "NA", " ", "None", "<NA>")
    add_images(tmp_path / "train", *(f"{number}.jpg" for number in range(len(empties))))
    lines = [f"{number}.jpg{f',{empty}' * 6}" for number, empty in enumerate(empties)]
    rows(tmp_path, *lines, "a.jpg,none,1,2,3,4,nan", header=f"{HEADER},difficult")
    dataset = read(tmp_path)
    assert dataset.class_names == ("none",)
    assert dataset.annotations.counts.tolist() == [0] * len(empties) + [1]
    assert dataset.annotations[-1:][0].difficult.tolist() == [False]
    add_images(tmp_path, "0.jpg", "a.jpg")  # the first row of a file without a header
    put(tmp_path / "bare.csv", "0.jpg,,,,,\na.jpg,-0.5,5,40.5,45,cat\n")
    assert read(tmp_path, "bare").annotations.counts.tolist() == [0, 1]


def test_a_class_that_never_has_a_box_stands_for_images_without_objects(tmp_path: Path) -> None:
    rows(tmp_path, "b.jpg,No finding,,,,", "a.jpg,nodule,1,2,3,4", "c.jpg,No finding,,,,")
    add_images(tmp_path / "train", "b.jpg", "c.jpg")
    found = CSV().read(tmp_path, "train")
    assert list(found.names) == ["nodule"]
    assert np.diff(found.columns.starts).tolist() == [0, 1, 0]
    (note,) = found.notes
    assert "train.csv" in note
    assert "'No finding'" in note
    rows(tmp_path, "a.jpg,nodule,,,,", "a.jpg,nodule,1,2,3,4")  # here it has one
    with pytest.raises(DataError, match=r"train.csv: line 2 'nodule' of a.jpg"):
        read(tmp_path)
    lines = ["a.jpg,dog,1,2,3,4,train", "b.jpg,dog,,,,,val", "b.jpg,cat,1,2,3,4,val"]  # and here in another split
    rows(tmp_path, *lines, header=f"{HEADER},split")
    (problem,) = CSV(images="train").read(tmp_path, "val").problems
    assert "line 3 'dog' of b.jpg" in str(problem)


def test_a_number_is_a_number_however_it_is_written(tmp_path: Path) -> None:
    header = "image_id,width,height,label,xmin,ymin,xmax,ymax"
    rows(tmp_path, "17.0,200.0,100.0,1.0,1.0,2,3,4", "17.0,200.0,100.0,1,5,6,7,8", header=header)
    (tmp_path / "train/a.jpg").rename(tmp_path / "train/17.jpg")
    dataset = read(tmp_path, class_descriptions={"1.0": "cat"})
    assert dataset.class_names == ("cat",)
    assert dataset.annotations[0].size_px == (100, 200)
    assert dataset.annotations[0].boxes_xyxy_px.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert read(tmp_path).class_names == ("1",)
    for row, said in (
        ("1.5,200,100,1,1,2,3,4", r"train/1\.5: the image is missing"),
        ("17,200,100,1.5,1,2,3,4", r"line 2 '1\.5' .* is of none of the 1 classes"),
    ):
        rows(tmp_path, row, header=header)
        with pytest.raises(DataError, match=said):
            read(tmp_path, class_names=["1"])


@pytest.mark.parametrize("stated", ["C:/Users/me/b.jpg", "/home/me/b.jpg"])
def test_a_missing_image_of_another_machine_is_not_named_as_one_below_the_root(tmp_path: Path, stated: str) -> None:
    rows(tmp_path, f"{stated},cat,1,2,30,40")
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{stated}: the image is missing")


def test_images_without_a_row_are_counted(tmp_path: Path) -> None:
    write(tmp_path, f"{HEADER}\na.jpg,x,1,2,3,4\n", images="photos")
    assert not CSV().read(tmp_path, "train").notes
    add_images(tmp_path / "photos", "b.jpg", "c.JPG")
    (note,) = CSV().read(tmp_path, "train").notes
    assert all(part in note for part in (f"{tmp_path}/photos: 2 images", "train.csv", "b.jpg"))
    put(tmp_path / "val.csv", f"{HEADER}\nb,x,1,2,3,4\nc.jpg,x,1,2,3,4\n")  # of another split
    assert not CSV().read(tmp_path, "train").notes


# Classes and splits


@pytest.mark.parametrize("descriptions", [{"0": "banana"}, {0: "banana"}, "names.csv"])
def test_codes_get_their_names(tmp_path: Path, descriptions: Any) -> None:
    rows(tmp_path, "a.jpg,0,104,20,143,58")
    put(tmp_path / "names.csv", "code,name\n0,banana\n")
    dataset = read(tmp_path, class_descriptions=descriptions)
    assert dataset.class_names == ("banana",)
    assert dataset.annotations[0].boxes_xyxy_px.tolist() == [[104, 20, 143, 58]]
    with pytest.raises(DataError, match="class_descriptions has False for 0, which is not text"):
        read(tmp_path, class_descriptions={0: False})


def test_the_bananas_configuration_reads_d2ls_files(tmp_path: Path) -> None:
    for split in ("bananas_train", "bananas_val"):
        text = "img_name,label,xmin,ymin,xmax,ymax\na.jpg,0,104,20,143,58\n"
        write(tmp_path, text, f"{split}/label.csv", f"{split}/images")
    overrides = ["data=bananas", f"data.root={tmp_path}", "data.val_fraction=0", "data.num_workers=0"]
    module = instantiate(compose_config("train", overrides).data.module, _convert_="all")
    module.prepare_data()
    assert module.class_names == ("banana",)
    assert len(module.dataset("train")) == len(module.dataset("test")) == 1


def write_splits(root: Path, column: str, splits: Sequence[str], folders: Sequence[str] = ("photos",) * 4) -> None:
    text = f"{column},{HEADER}\n"
    for name, label, split, folder in zip("abcd", "xyzx", splits, folders, strict=True):
        add_images(root / folder, f"{name}.jpg")
        text += f"{split},{name}.jpg,{label},1,2,3,4\n"
    put(root / "boxes.csv", text)


USUAL = ("train", "val", "test", "train")


@pytest.mark.parametrize(
    ("data", "column", "splits", "folders"),
    [
        ("csv_folder", "split", USUAL, ("photos",) * 4),
        ("auto", "Set", ("training", "valid", "testing", ""), ("photos",) * 4),
        ("auto", "subset", ("Train ", "dev", "test", "train"), ("train", "dev", "test", "train")),
        ("csv_folder", "split", *2 * [("train2017", "val2017", "test2017", "train2017")]),
        ("auto", "ML_USE", ("TRAIN", "VALIDATION", "TEST", "UNASSIGNED"), [f"images/{split}" for split in USUAL]),
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
    assert not CSV().read(tmp_path, "train").notes  # the images of other splits have rows


def test_rows_of_a_split_column_are_read_with_the_whole_file_and_told_apart(tmp_path: Path) -> None:
    write_splits(tmp_path, "split", ("train", "val", "extra", "train"))
    assert len(read(tmp_path, "boxes.csv")) == 4
    files = {split: set(CSV().files(tmp_path, split)) for split in ("train", "val", "extra", "boxes.csv")}
    assert files["boxes.csv"] == files["train"] | files["val"] | files["extra"]
    assert files["train"].isdisjoint(files["val"])
    with pytest.raises(DataError, match=r"boxes.csv: there is no split 'test'; there is extra, train, val"):
        read(tmp_path, "test")
    put(tmp_path / "more.csv", (tmp_path / "boxes.csv").read_text())
    with pytest.raises(DataError, match=r"'val'.*boxes.csv.*more.csv"):
        read(tmp_path, "val")


def test_the_file_of_a_split_with_a_column(tmp_path: Path) -> None:
    for column, splits, counts in (("set", ("night", "day", "", "night"), [4]), ("split", USUAL, [2, 1, 1])):
        write_splits(tmp_path, column, splits)  # a column may name no split
        (tmp_path / "boxes.csv").rename(tmp_path / "train.csv")
        found = [len(read(tmp_path, split)) for split in ("train", "val", "test")[: len(counts)]]
        assert found == counts


def test_fiftyones_copy_of_openimages(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        text = "ImageID,LabelName,XMin,XMax,YMin,YMax\na,/m/01yrx,0.1,0.5,0.1,0.5\n"
        write(tmp_path, text, f"{split}/labels/detections.csv", f"{split}/data")
        put(tmp_path / split / "metadata/classes.csv", "/m/01yrx,Cat\n/m/0bt9lr,Dog\n")
    assert dict(detect_format(tmp_path).splits) == {"train": "train", "val": "validation"}
    for found in (Auto().read(tmp_path, "val"), CSV().read(tmp_path, "validation")):
        assert list(found.names) == ["Cat"]
        assert list(found.columns.image_paths) == [str(tmp_path / "validation/data/a.jpg")]
    renamed = CSV(class_descriptions={"/m/01yrx": "Katze"}).read(tmp_path, "train")
    assert list(renamed.names) == ["Katze"]


def test_tab_separated_files(tmp_path: Path) -> None:
    write(tmp_path, f"{HEADER}\na.jpg,cat,1,2,3,4\n".replace(",", "\t"), "labels.tsv", "photos")
    for found in (Auto().read(tmp_path, "train"), CSV().read(tmp_path, "labels.tsv"), CSV().read(tmp_path, "labels")):
        assert list(found.names) == ["cat"]
        assert len(found.columns.labels) == 1
