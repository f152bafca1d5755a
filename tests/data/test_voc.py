"""The VOC layout: what is read, and what is said about each thing that can be wrong with it."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from helpers.annotation_tools import Spec, check_messages, make, paint, put
from helpers.datasets import open_voc
from helpers.pixels import save_turned
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.formats.detect import Auto
from ssd_lightning.data.formats.voc import VOC
from ssd_lightning.errors import ConfigurationError, DataError

CLASSES = ("cat", "dog")
SIZE_XML = "<size><width>200</width><height>100</height><depth>3</depth></size>"


def bndbox(xmin: object, ymin: object, xmax: object, ymax: object) -> str:
    # As in some files of VOC 2012, the tags are in another order than x, y, x, y.
    return f"<bndbox><xmax>{xmax}</xmax><xmin>{xmin}</xmin><ymax>{ymax}</ymax><ymin>{ymin}</ymin></bndbox>"


def voc_object(name: str = "dog", box: str = bndbox(11, 21, 101, 81), extra: str = "") -> str:
    return f"<object><name>{name}</name>{extra}{box}</object>"


SOUND = voc_object("cat", bndbox(1, 2, 30, 40))


def annotation(*objects: str, size: str = SIZE_XML, filename: str = "") -> str:
    return f"<annotation><filename>{filename}</filename>{size}{''.join(objects)}</annotation>"


def write_voc(
    root: Path, xmls: dict[str, str], split: str = "train", lines: Sequence[str] | None = None
) -> dict[str, str]:
    for name, xml in xmls.items():
        paint(root / "JPEGImages", [Spec(f"{name}.jpg", (100, 200))])
        put(root / f"Annotations/{name}.xml", xml)
    put(root / f"ImageSets/Main/{split}.txt", "\n".join(lines or xmls) + "\n")
    return {"root": str(root), "split": split}


def dataset_of(root: Path, *objects: str, size: str = SIZE_XML, **settings: object) -> DetectionDataset:
    split = write_voc(root, {"a": annotation(*objects, size=size)})
    return open_voc(splits=[split], class_names=CLASSES, **settings)  # type: ignore[arg-type]


def boxes_px(dataset: DetectionDataset, index: int = 0) -> list[list[float]]:
    return dataset.annotations[index].boxes_xyxy_px.tolist()


def ids(root: Path, *splits: str) -> list[str]:
    places = [{"root": str(root), "split": split} for split in splits]
    return list(open_voc(splits=places, class_names=CLASSES).annotations.image_ids)


# What is read


@pytest.mark.parametrize(("xml_offset", "expected"), [(1, [10, 20, 100, 80]), (0, [11, 21, 101, 81])])
def test_the_offset_is_taken_from_all_four_coordinates(tmp_path: Path, xml_offset: int, expected: list[float]) -> None:
    dataset = dataset_of(tmp_path, voc_object(), xml_offset=xml_offset)
    assert boxes_px(dataset) == [expected]
    image, target = dataset[0]
    assert image.shape == (3, 100, 200)
    np.testing.assert_allclose(target["boxes"][0], np.array(expected) / [200, 100, 200, 100], rtol=1e-6)
    assert (target["labels"].tolist(), target["size_px"], target["image_id"]) == ([2], (100, 200), "a")


YES = ("1", " True ", "yes", "Y", "1.0")
NO = ("0", "false", "No", "n", "Unspecified", "", "0.0", "-1", "nan")
ATTRIBUTE = "<attributes><attribute><name>{}</name><value>{}</value></attribute></attributes>"
FLAGS = {
    **{f"<difficult>{word}</difficult>": word in YES for word in YES + NO},
    "<difficult/>": False,
    "<Difficult>1</Difficult>": True,
    "<DIFFICULT>Yes</DIFFICULT>": True,
    "<isDifficult>1</isDifficult>": True,
    "<isDifficult>0</isDifficult>": False,
    ATTRIBUTE.format("occluded", "false") + ATTRIBUTE.format("difficult", "true"): True,
    ATTRIBUTE.format("occluded", "true") + ATTRIBUTE.format("difficult", "false"): False,
}


def test_what_tools_write_differently(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, *(voc_object(extra=flag) for flag in FLAGS))
    assert dict(zip(FLAGS, dataset.annotations[0].difficult.tolist(), strict=True)) == FLAGS
    # The boxes of parts are not those of the object; a coordinate may be a fraction.
    head = f"<part><name>head</name>{bndbox(1, 1, 5, 5)}</part>"
    objects = [voc_object(extra=head), voc_object(box=bndbox("10.5", " 20.25 ", "1e2", "80"))]
    assert boxes_px(dataset_of(tmp_path, *objects)) == [[10, 20, 100, 80], [9.5, 19.25, 99, 79]]
    xml = annotation(voc_object()).replace("xmin", "Xmin").replace("object>", "Object>").replace("size>", "Size>")
    split = write_voc(tmp_path, {"a": xml.replace("annotation>", "Annotation>")})
    assert boxes_px(open_voc(splits=[split], class_names=CLASSES)) == [[10, 20, 100, 80]]
    for size in ("", "<size><width>0</width><height>0</height></size>", "<size><width/><height>n/a</height></size>"):
        assert dataset_of(tmp_path, SOUND, size=size).annotations[0].size_px == (100, 200)


@pytest.mark.parametrize("annotated", ["as stored", "as seen"])
def test_boxes_agree_with_the_pixels_of_a_image_that_exif_turns(tmp_path: Path, annotated: str) -> None:
    seen = np.zeros((200, 100, 3), dtype=np.uint8)
    seen[150:180, 10:40] = 255
    stored = np.rot90(seen)  # a quarter clockwise (orientation 6) makes it upright again
    rows, columns = np.nonzero((stored if annotated == "as stored" else seen)[..., 0])
    box = bndbox(columns.min() + 1, rows.min() + 1, columns.max() + 2, rows.max() + 2)
    size = SIZE_XML if annotated == "as stored" else "<size><width>100</width><height>200</height></size>"
    split = write_voc(tmp_path, {"a": annotation(voc_object(box=box), size=size)})
    save_turned(tmp_path / "JPEGImages/a.jpg", stored, 6, quality=95)

    image, target = open_voc(splits=[split], class_names=CLASSES)[0]

    height, width = target["size_px"]
    assert image.shape == (3, height, width)
    x1, y1, x2, y2 = (target["boxes"][0] * target["boxes"].new_tensor([width, height] * 2)).round().int().tolist()
    assert (x2 - x1, y2 - y1) == (30, 30)
    assert image[:, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].min() > 240
    assert image.float().mean() == pytest.approx(255 * 900 / 20_000, rel=0.05)


def test_the_image_may_be_the_one_that_the_xml_states(tmp_path: Path) -> None:
    files = {"a": "../photo.jpg", "b": "c.jpg", "c": ""}
    xmls = {name: annotation(SOUND, filename=filename) for name, filename in files.items()}
    split = write_voc(tmp_path, xmls)
    (tmp_path / "JPEGImages/a.jpg").rename(tmp_path / "JPEGImages/photo.jpg")
    records = open_voc(splits=[split], class_names=CLASSES).annotations
    names = [(one.image_id, one.image_path.name) for one in records]
    assert names == [("a", "photo.jpg"), ("b", "b.jpg"), ("c", "c.jpg")]  # b.jpg wins over the stale name


# Splits and names


@pytest.mark.parametrize(
    ("lines", "there", "expected"),
    [
        (["\ufeff000001 -1\r", "000002  1\r", "\r", "my dog 3.v2\r"], [], ["000001", "000002", "my dog 3.v2"]),
        # A name that ends as a flag is a name if a file has it.
        (["cat 1", "cat 2 -1", "cat 0", "cat"], ["Annotations/cat 1.xml"], ["cat 1", "cat 2", "cat"]),
        (["# first", "#1 1", "# a", "a"], ["JPEGImages/#1.jpg"], ["#1", "a"]),
        (["cam1\\f1 1", "cam2/f1\t-1"], [], ["cam1/f1", "cam2/f1"]),
        (
            ["a.jpg", "b.png 1", "JPEGImages/c.JPG -1", "d 1.jpg", "gone.jpg"],
            [f"Annotations/{name}.xml" for name in ("a", "b.png", "c", "d 1")],
            ["a", "b.png", "c", "d 1", "gone"],
        ),
    ],
)
def test_lines_of_a_list(tmp_path: Path, lines: list[str], there: list[str], expected: list[str]) -> None:
    write_voc(tmp_path, dict.fromkeys(("cat", "cat 2"), annotation(SOUND)), lines=lines)
    for place in there:
        put(tmp_path / place, "")
    paths = VOC().files(tmp_path, "train")
    assert [str(Path(path).relative_to(tmp_path / "Annotations")).removesuffix(".xml") for path in paths] == expected


def test_an_image_in_a_folder_of_its_own_is_never_one_of_another_folder(tmp_path: Path) -> None:
    filenames = {"cam1/f1": "D:\\x\\first.jpg", "cam2/f1": "C:/export/other/second.jpg", "cam2/f2": "first.jpg"}
    split = write_voc(tmp_path, {name: annotation(SOUND, filename=filename) for name, filename in filenames.items()})
    (tmp_path / "JPEGImages/other").mkdir()
    for name, place in {"cam1/f1": "cam1/first", "cam2/f1": "other/second", "cam2/f2": "first"}.items():
        (tmp_path / f"JPEGImages/{name}.jpg").rename(tmp_path / f"JPEGImages/{place}.jpg")

    with pytest.raises(DataError, match=r"cam2/f2\.jpg: the image is missing"):
        open_voc(splits=[split], class_names=CLASSES)
    dataset = open_voc(splits=[split], class_names=CLASSES, on_error="skip")
    images = [record.image_path.relative_to(tmp_path / "JPEGImages") for record in dataset.annotations]
    assert images == [Path("cam1/first.jpg"), Path("other/second.jpg")]


def test_lists_may_lie_in_imagesets_itself_and_come_before_folders(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": annotation(SOUND)})
    make(tmp_path, "train/b.{jpg,xml}")
    (tmp_path / "ImageSets/Main/train.txt").rename(tmp_path / "ImageSets/train.txt")
    assert ids(tmp_path, "train") == ["a"]


def test_roots_of_the_same_name_are_distinguished_and_splits_of_one_united(tmp_path: Path) -> None:
    xmls = {name: annotation(SOUND) for name in "abc"}
    splits = [write_voc(tmp_path / part / "VOC", {"a": annotation()}) for part in ("one", "two")]
    found = open_voc(splits=splits, class_names=CLASSES).annotations
    assert list(found.image_ids) == ["one/VOC/a", "two/VOC/a"]
    for split, lines in (("train", "ab"), ("trainval", "bca")):
        write_voc(tmp_path, xmls, split, lines=lines)
    united = open_voc(splits=[{"root": str(tmp_path), "split": split} for split in ("train", "trainval")]).annotations
    assert (list(united.image_ids), united.counts.tolist()) == (["a", "b", "c"], [1, 1, 1])


@pytest.mark.parametrize(
    ("class_names", "said"),
    [
        (None, r"no object in .* has a class name"),
        ((), "at least one name"),
        ("dog", "'dog'; it has to be a list"),
        ({"dog": 1}, "{'dog': 1}; it has to be a list"),
        (("dog", "cat", "dog"), "'dog' more than once"),
        (("dog", False), r"class_names has False, which is not text; .* 'data\.class_names=\[\"no\",\"010\"\]'"),
        (("dog", " "), "class_names has ' ', which is an empty name"),
    ],
)
def test_a_class_list_that_cannot_be(tmp_path: Path, class_names: Sequence[str] | None, said: str) -> None:
    with pytest.raises(DataError, match=said):
        open_voc(splits=[write_voc(tmp_path, {"a": annotation()})], class_names=class_names)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("{split}.txt", "{name}.jpg"),
        ("Annotations/{split}.txt", "{name}"),
        ("{split}_list.txt", "./JPEGImages/{name}.jpg ./Annotations/{name}.xml"),  # PaddleDetection
        ("{split}_list.txt", "data/mine/JPEGImages/{name}.jpg data/mine/Annotations/{name}.xml"),
    ],
)
def test_lists_in_the_root_are_splits(tmp_path: Path, name: str, line: str) -> None:
    write_voc(tmp_path, dict.fromkeys(("a", "b"), annotation(SOUND)))
    shutil.rmtree(tmp_path / "ImageSets")
    put(tmp_path / "labels.txt", "cat\n")
    (tmp_path / "._train.txt").write_bytes(b"\0\5")
    lists = {"train": "a", "val": "b"}
    for split, image in lists.items():
        put(tmp_path / name.format(split=split), line.format(name=image) + "\n")
    for found in (VOC(), Auto()):
        assert {split: "".join(found.read(tmp_path, split).columns.image_ids) for split in lists} == lists
    with pytest.raises(DataError, match=r"there is train, val$"):
        VOC().read(tmp_path, "test")
    for split in lists:  # these name no XML file
        put(tmp_path / name.format(split=split), "to do: more images\n")
    (tmp_path / name.format(split="val")).write_bytes(b"\xff\0\xff")
    assert ids(tmp_path, ".") == ["a", "b"]


# Folders without ImageSets


def test_one_folder_is_read_whole_but_for_splits_and_hidden_files_in_it(tmp_path: Path) -> None:
    make(tmp_path, "{.,cam1,Test,valid,.ipynb_checkpoints}/a.{JPG,xml}")
    (tmp_path / "._a.xml").write_bytes(b"\0\5\26\7")  # as macOS leaves them on other file systems
    assert ids(tmp_path, ".") == ["a", "cam1/a"]
    assert ids(tmp_path, "valid", "Test") == ["valid/a", "Test/a"]


@pytest.mark.parametrize(
    ("xml", "images", "more", "split"),
    [
        ("Annotations", "JPEGImages", [], "."),
        ("train/Annotations", "train/JPEGImages", [], "train"),
        ("annotations", "images", [], "."),
        ("annotations/train", "images", ["annotations/test/c.xml", "images/c.jpg"], "train"),
        ("images/train", "images/train", [], "train"),
        # Images in a folder of any name are found by their names.
        ("labels_my-project_2024", "images", [], "."),  # makesense.ai
        ("annotations/xmls", "images", ["annotations/trimaps/a.png"], "."),  # Oxford-IIIT Pet
        ("train/xml", "train/pictures", [], "train"),
        ("xml/train", "pictures/train", [], "xml/train"),
    ],
)
def test_where_images_and_annotations_may_be(
    tmp_path: Path, xml: str, images: str, more: Sequence[str], split: str
) -> None:
    make(tmp_path, f"{xml}/{{a,b}}.xml", f"{images}/{{a,b}}.jpg", *more)
    for found in (VOC().read(tmp_path, split), Auto().read(tmp_path, "train")):
        assert (list(found.problems), list(found.notes)) == ([], [])
        assert [Path(path) for path in found.columns.image_paths] == [
            tmp_path / images / f"{name}.jpg" for name in "ab"
        ]


def test_an_image_of_another_split_or_one_of_several_of_a_name_is_not_taken(tmp_path: Path) -> None:
    make(tmp_path, "xml/{a,b}.xml", "{one,two}/b.jpg", "{test,._x}/a.jpg")
    assert [problem.kind for problem in VOC().read(tmp_path, ".").problems] == ["missing", "missing"]


def test_folders_of_validation_or_test_in_a_split_are_named(tmp_path: Path) -> None:
    make(tmp_path, "{train_set,Validation Set,contest,cam/test1}/a.{jpg,xml}")
    (note,) = VOC().read(tmp_path, ".").notes
    assert "the folders Validation Set, cam/test1 are read" in note
    assert VOC().read(tmp_path, "train_set").notes == []


def test_images_without_an_xml_file_are_counted_and_skipped(tmp_path: Path) -> None:
    make(tmp_path, "train/{a,photo}.jpg", "train/a.xml")
    put(tmp_path / "train/b.xml", annotation(SOUND, filename="/home/me/photo.jpg"))
    assert VOC().read(tmp_path, "train").notes == []
    for name in ("c.png", "d.JPG", "e.heic", "readme.txt", "s2/a.jpg"):  # s2/a.xml would be another file than a.xml
        put(tmp_path / "train" / name, "")
    found = VOC().read(tmp_path, "train")
    assert [Path(path).name for path in found.columns.image_paths] == ["a.jpg", "photo.jpg"]
    assert found.notes == [f"{tmp_path}/train: 4 images have no XML file and are skipped; the first is c.png"]
    assert found.problems == []


def test_a_missing_folder_is_answered_with_those_that_have_xml_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a VOC folder: it has neither ImageSets/Main nor XML files"):
        ids(tmp_path, "train")
    with pytest.raises(ConfigurationError, match="no split to open"):
        ids(tmp_path)
    make(tmp_path, "{.,train,valid}/a.{jpg,xml}", "empty/readme.txt")
    with pytest.raises(DataError, match=r"no split 'test'; there is \., train, valid$"):
        ids(tmp_path, "test")


@pytest.mark.parametrize("split", ["trainval", ".", "VOC2007", "kit"])
def test_lists_in_folders_below_are_not_ignored(tmp_path: Path, split: str) -> None:
    write_voc(tmp_path / ("kit/VOC2007" if split == "kit" else "VOC2007"), {"a": annotation(SOUND)})
    with pytest.raises(DataError, match=r"lists of splits in ImageSets of .*VOC2007; set data\.root="):
        ids(tmp_path, split)


# Bad objects and files

BAD_OBJECTS = {
    "'dog' has no <bndbox>": voc_object(box=""),
    "'dog' has a <bndbox> without <ymin>": voc_object(box="<bndbox><xmin>1</xmin></bndbox>"),
    "has xmin '', which is not a number": voc_object(box=bndbox("", 1, 2, 2)),
    "has no area: xmin is 0 and xmax 1": voc_object(box=bndbox(0, 1, 1, 9)),
    "'Dog' is of none of the 2 classes; the nearest is 'dog'": voc_object("Dog"),
    "'xylophone' is of none of the 2 classes: cat, dog": voc_object("xylophone"),
    "'' is of none of the 2 classes": voc_object(""),
    "has difficult 'maybe'": voc_object(extra="<difficult>maybe</difficult>"),
}


def test_a_bad_object_is_named_or_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    objects = [*BAD_OBJECTS.values(), SOUND, voc_object()]
    dataset = dataset_of(tmp_path, *objects, on_error="skip")
    assert boxes_px(dataset) == [[0, 1, 29, 39], [10, 20, 100, 80]]
    assert dataset.annotations[0].labels.tolist() == [1, 2]
    file = f"{tmp_path}/Annotations/a.xml"
    check_messages(dataset.dropped, {f"{file}: object {item} '": said for item, said in enumerate(BAD_OBJECTS, 1)})
    (warning,) = caplog.messages
    assert "skipped 8 objects" in warning
    assert all(str(problem) in warning for problem in dataset.dropped)
    with pytest.raises(DataError, match=re.escape(str(dataset.dropped[0]))):
        dataset_of(tmp_path, *objects)


BOMB = """<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>
<annotation><filename>&b;</filename></annotation>"""
BAD_FILES = {
    "entity bomb in UTF-16": (BOMB.encode("utf-16"), "entities, which is refused"),
    "utf-7": (b'<?xml version="1.0" encoding="utf-7"?>+ADwAIQ-ENTITY x>', "declares entities"),
    "cut off": (annotation(SOUND).encode()[:-20], "not well-formed XML"),
    "empty": (b"", "not well-formed XML"),
    "unknown encoding": (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "not well-formed XML"),
    "a byte of no letter": (b'<?xml version="1.0" encoding="gbk"?><annotation>\xff</annotation>', "0xff"),
    "no encoding of text": (b'<?xml version="1.0" encoding="hex"?><annotation/>', "hex"),
    "HTML": (b"<html><body>404</body></html>", "begins with <html>, not with <annotation>"),
    "missing": (None, "the annotation is missing"),
}


def test_a_bad_file_drops_its_image(tmp_path: Path) -> None:
    split = write_voc(tmp_path, dict.fromkeys(["a", *BAD_FILES, "z"], annotation(SOUND)))
    for name, (content, _) in BAD_FILES.items():
        path = tmp_path / f"Annotations/{name}.xml"
        path.unlink() if content is None else path.write_bytes(content)
    dataset = open_voc(splits=[split], class_names=None, on_error="skip")
    assert list(dataset.annotations.image_ids) == ["a", "z"]
    check_messages(
        dataset.dropped, {f"{tmp_path}/Annotations/{name}.xml: ": said for name, (_, said) in BAD_FILES.items()}
    )


ENCODINGS = {
    "GB2312": "镕",  # in GBK alone, as Windows writes it
    "gbk": "猫",
    "big5": "貓",
    "Shift_JIS": "①猫",
    "euc-kr": "고양이",
    "windows-1251": "кошка",
    "utf-16": "狗",
}


def test_xml_in_the_encoding_that_it_declares(tmp_path: Path) -> None:
    make(tmp_path, *(f"{encoding}.jpg" for encoding in ENCODINGS))
    for encoding, name in ENCODINGS.items():
        text = f'<?xml version="1.0" encoding="{encoding}"?>{annotation(voc_object(name))}'
        codec = {"GB2312": "gbk", "Shift_JIS": "cp932"}.get(encoding, encoding)
        (tmp_path / f"{encoding}.xml").write_bytes(text.encode(codec))
    found = Auto().read(tmp_path, "train")
    assert (sorted(found.names), list(found.problems)) == (sorted(ENCODINGS.values()), [])
