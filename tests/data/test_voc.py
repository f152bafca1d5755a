"""The VOC layout: what is read, and what is said about each thing that can be wrong with it."""

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.datasets import open_voc
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.formats.detect import Auto
from ssd_lightning.data.formats.files import read_xml
from ssd_lightning.data.formats.voc import VOC, VOC_CLASSES
from ssd_lightning.errors import ConfigurationError, DataError

CLASSES = ("cat", "dog")
SIZE_XML = "<size><width>200</width><height>100</height><depth>3</depth></size>"


def bndbox(xmin: object, ymin: object, xmax: object, ymax: object) -> str:
    # As in some files of VOC 2012, the tags are in another order than x, y, x, y.
    return f"<bndbox><xmax>{xmax}</xmax><xmin>{xmin}</xmin><ymax>{ymax}</ymax><ymin>{ymin}</ymin></bndbox>"


def voc_object(name: str = "dog", box: str = bndbox(11, 21, 101, 81), extra: str = "") -> str:
    return f"<object><name>{name}</name>{extra}{box}</object>"


ATTRIBUTE = "<attributes><attribute><name>{}</name><value>{}</value></attribute></attributes>"
SOUND = voc_object("cat", bndbox(1, 2, 30, 40))


def annotation(*objects: str, size: str = SIZE_XML, filename: str = "") -> str:
    return f"<annotation><filename>{filename}</filename>{size}{''.join(objects)}</annotation>"


def write_voc(
    root: Path,
    xmls: dict[str, str],
    split: str = "train",
    suffix: str = ".jpg",
    lines: Sequence[str] | None = None,
) -> dict[str, str]:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, xml in xmls.items():
        Image.new("RGB", (200, 100)).save(root / "JPEGImages" / f"{name}{suffix}", "JPEG")
        (root / "Annotations" / f"{name}.xml").write_text(xml)
    (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(lines or xmls) + "\n")
    return {"root": str(root), "split": split}


def dataset_of(root: Path, *objects: str, **settings: object) -> DetectionDataset:
    split = write_voc(root, {"a": annotation(*objects)})
    return open_voc(splits=[split], class_names=CLASSES, **settings)  # type: ignore[arg-type]


def names_in(root: Path, split: str) -> list[str]:
    """The names that a list holds, whether their files exist or not."""
    return [str(Path(path).relative_to(root / "Annotations")).removesuffix(".xml") for path in VOC().files(root, split)]


def ids_in(splits: Sequence[dict[str, str]]) -> list[str]:
    return list(open_voc(splits=splits, class_names=CLASSES).annotations.image_ids)


def boxes_px(dataset: DetectionDataset, index: int = 0) -> list[list[float]]:
    return dataset.annotations[index].boxes_xyxy_px.tolist()


# What is read


@pytest.mark.parametrize(("xml_offset", "expected"), [(1, [10, 20, 100, 80]), (0, [11, 21, 101, 81])])
def test_the_offset_is_taken_from_all_four_coordinates(tmp_path: Path, xml_offset: int, expected: list[float]) -> None:
    dataset = dataset_of(tmp_path, voc_object(), xml_offset=xml_offset)

    assert boxes_px(dataset) == [expected]
    image, target = dataset[0]
    assert image.shape == (3, 100, 200)
    np.testing.assert_allclose(target["boxes"][0], np.array(expected) / [200, 100, 200, 100], rtol=1e-6)
    assert target["labels"].tolist() == [2]
    assert target["size_px"] == (100, 200)
    assert target["image_id"] == "a"


def test_a_coordinate_may_be_a_fraction(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, voc_object(box=bndbox("10.5", " 20.25 ", "1e2", "80")))

    assert boxes_px(dataset) == [[9.5, 19.25, 99, 79]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((f"<difficult>{word}</difficult>", True) for word in ("1", " True ", "yes", "Y", "1.0")),
        *(
            (f"<difficult>{word}</difficult>", False)
            for word in ("0", "false", "No", "n", "Unspecified", "", "0.0", "-1")
        ),
        ("<difficult/>", False),
        ("<Difficult>1</Difficult>", True),
        ("<DIFFICULT>Yes</DIFFICULT>", True),
        ("<isDifficult>1</isDifficult>", True),
        ("<isDifficult>0</isDifficult>", False),
        ("<difficult>nan</difficult>", False),
        (ATTRIBUTE.format("occluded", "false") + ATTRIBUTE.format("difficult", "true"), True),
        (ATTRIBUTE.format("occluded", "true") + ATTRIBUTE.format("difficult", "false"), False),
    ],
)
def test_difficult_is_read_as_tools_spell_it(tmp_path: Path, text: str, expected: bool) -> None:
    assert dataset_of(tmp_path, voc_object(extra=text)).annotations[0].difficult.tolist() == [expected]


def test_the_case_of_tags_makes_no_difference(tmp_path: Path) -> None:
    xml = annotation(voc_object()).replace("xmin", "Xmin").replace("object>", "Object>").replace("size>", "Size>")
    split = write_voc(tmp_path, {"a": xml.replace("annotation>", "Annotation>")})
    assert boxes_px(open_voc(splits=[split], class_names=CLASSES)) == [[10, 20, 100, 80]]


def test_the_boxes_of_parts_are_not_those_of_the_object(tmp_path: Path) -> None:
    head = f"<part><name>head</name>{bndbox(1, 1, 5, 5)}</part>"

    assert boxes_px(dataset_of(tmp_path, voc_object(extra=head))) == [[10, 20, 100, 80]]


@pytest.mark.parametrize(
    "size",
    ["", "<size><width>0</width><height>0</height></size>", "<size><width/><height>n/a</height></size>"],
)
def test_a_size_that_is_not_stated_is_the_images(tmp_path: Path, size: str) -> None:
    split = write_voc(tmp_path, {"a": annotation(SOUND, size=size)})

    assert open_voc(splits=[split], class_names=CLASSES).annotations[0].size_px == (100, 200)


@pytest.mark.parametrize("annotated", ["as stored", "as seen"])
def test_boxes_agree_with_the_pixels_of_a_image_that_exif_turns(tmp_path: Path, annotated: str) -> None:
    split = write_voc(tmp_path, {"a": ""})
    seen = np.zeros((200, 100, 3), dtype=np.uint8)
    seen[150:180, 10:40] = 255
    stored = np.rot90(seen)  # a quarter clockwise (orientation 6) makes it upright again
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "JPEGImages/a.jpg", exif=exif, quality=95)
    rows, columns = np.nonzero((stored if annotated == "as stored" else seen)[..., 0])
    box = bndbox(columns.min() + 1, rows.min() + 1, columns.max() + 2, rows.max() + 2)
    size = SIZE_XML if annotated == "as stored" else "<size><width>100</width><height>200</height></size>"
    (tmp_path / "Annotations/a.xml").write_text(annotation(voc_object(box=box), size=size))

    image, target = open_voc(splits=[split], class_names=CLASSES)[0]

    height, width = target["size_px"]
    assert image.shape == (3, height, width)
    x1, y1, x2, y2 = (target["boxes"][0] * target["boxes"].new_tensor([width, height] * 2)).round().int().tolist()
    assert (x2 - x1, y2 - y1) == (30, 30)
    assert image[:, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].min() > 240
    assert image.float().mean() == pytest.approx(255 * 900 / 20_000, rel=0.05)


@pytest.mark.parametrize("filename", ["photo.jpg", "C:\\data\\photo.jpg", "/home/me/photo.jpg", "../photo.jpg"])
def test_the_image_may_be_the_one_that_the_xml_states(tmp_path: Path, filename: str) -> None:
    split = write_voc(tmp_path, {"a": annotation(SOUND, filename=filename)})
    (tmp_path / "JPEGImages/a.jpg").rename(tmp_path / "JPEGImages/photo.jpg")

    record = open_voc(splits=[split], class_names=CLASSES).annotations[0]

    assert record.image_path == tmp_path / "JPEGImages/photo.jpg"
    assert record.image_id == "a"


def test_the_image_named_like_the_xml_wins_over_a_stale_filename(tmp_path: Path) -> None:
    split = write_voc(tmp_path, {"a": annotation(SOUND, filename="b.jpg"), "b": annotation(SOUND)})

    dataset = open_voc(splits=[split], class_names=CLASSES)

    assert [record.image_path.stem for record in dataset.annotations] == ["a", "b"]


def test_the_twenty_classes_are_in_their_canonical_order() -> None:
    assert len(VOC_CLASSES) == 20
    assert tuple(sorted(VOC_CLASSES)) == VOC_CLASSES
    assert (VOC_CLASSES[0], VOC_CLASSES[14], VOC_CLASSES[19]) == ("aeroplane", "person", "tvmonitor")


# Splits and names


def test_a_list_may_have_flags_blanks_a_byte_order_mark_and_crlf(tmp_path: Path) -> None:
    write_voc(tmp_path, {})
    (tmp_path / "ImageSets/Main/dog_train.txt").write_bytes(
        b"\xef\xbb\xbf000001 -1\r\n000002  1\r\n\r\nmy dog 3.v2\r\n"
    )

    assert names_in(tmp_path, "dog_train") == ["000001", "000002", "my dog 3.v2"]


@pytest.mark.parametrize("kept", ["Annotations/cat 1.xml", "JPEGImages/cat 1.png"])
def test_a_name_that_ends_as_a_flag_is_a_name_where_a_file_has_it(tmp_path: Path, kept: str) -> None:
    lines = ["cat 1", "cat 2 -1", "cat 0", "cat"]
    write_voc(tmp_path, dict.fromkeys(("cat", "cat 2"), annotation(SOUND)), lines=lines)
    (tmp_path / kept).write_bytes(b"")

    assert names_in(tmp_path, "train") == ["cat 1", "cat 2", "cat"]


def test_a_list_may_have_comments_and_names_that_look_like_them(tmp_path: Path) -> None:
    xmls = dict.fromkeys(("#1", "a"), annotation(SOUND))
    splits = [write_voc(tmp_path, xmls, lines=["# first", "#1 1", "# a", "a"])]
    assert [record.image_id for record in open_voc(splits=splits).annotations] == ["#1", "a"]


def test_a_list_may_name_images_in_folders_with_a_flag(tmp_path: Path) -> None:
    write_voc(tmp_path, {}, lines=["cam1\\f1 1", "cam2/f1\t-1"])
    assert names_in(tmp_path, "train") == ["cam1/f1", "cam2/f1"]


def test_an_image_in_a_folder_of_its_own_is_never_one_of_another_folder(tmp_path: Path) -> None:
    for folder in ("cam1", "cam2", "other"):
        (tmp_path / "JPEGImages" / folder).mkdir(parents=True)
        (tmp_path / "Annotations" / folder).mkdir(parents=True)
    filenames = {"cam1/f1": "D:\\x\\first.jpg", "cam2/f1": "C:/export/other/second.jpg", "cam2/f2": "first.jpg"}
    write_voc(tmp_path, {name: annotation(SOUND, filename=filename) for name, filename in filenames.items()})
    for name, place in {"cam1/f1": "cam1/first", "cam2/f1": "other/second", "cam2/f2": "first"}.items():
        (tmp_path / f"JPEGImages/{name}.jpg").rename(tmp_path / f"JPEGImages/{place}.jpg")

    splits = [{"root": str(tmp_path), "split": "train"}]
    with pytest.raises(DataError, match=r"cam2/f2\.jpg: the image is missing"):
        open_voc(splits=splits, class_names=CLASSES)
    dataset = open_voc(splits=splits, class_names=CLASSES, on_error="skip")

    images = tmp_path / "JPEGImages"
    assert [record.image_path for record in dataset.annotations] == [
        images / "cam1/first.jpg",
        images / "other/second.jpg",
    ]


def test_lists_may_lie_in_imagesets_itself(tmp_path: Path) -> None:
    split = write_voc(tmp_path, {"a": annotation(SOUND)})
    (tmp_path / "ImageSets/Main/train.txt").rename(tmp_path / "ImageSets/train.txt")
    (tmp_path / "ImageSets/Main").rmdir()

    assert len(open_voc(splits=[split], class_names=CLASSES)) == 1


def test_roots_of_the_same_name_are_distinguished(tmp_path: Path) -> None:
    splits = [write_voc(tmp_path / part / "VOC", {"a": annotation()}) for part in ("one", "two")]

    assert ids_in(splits) == ["one/VOC/a", "two/VOC/a"]


def test_splits_of_one_root_are_united(tmp_path: Path) -> None:
    xmls = {name: annotation() for name in "abc"}
    splits = [
        write_voc(tmp_path, xmls, "train", lines="ab"),
        write_voc(tmp_path, xmls, "trainval", lines="bca"),
    ]

    assert ids_in(splits) == ["a", "b", "c"]


def test_nothing_to_discover(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no object in .* has a class name"):
        open_voc(splits=[write_voc(tmp_path, {"a": annotation()})])
    with pytest.raises(ConfigurationError, match="no split to open"):
        open_voc(splits=[])


@pytest.mark.parametrize(
    ("class_names", "said"),
    [
        ((), "at least one name"),
        ("dog", "'dog'; it has to be a list"),
        (("dog", "cat", "dog"), "'dog' more than once"),
        (("dog", False), r"class_names has False, which is not text; .* 'data\.class_names=\[\"no\",\"010\"\]'"),
        (("dog", " "), "class_names has ' ', which is an empty name"),
        ((8, "dog"), "class_names has 8, which is not text"),
    ],
)
def test_a_class_list_that_cannot_be(tmp_path: Path, class_names: Sequence[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        open_voc(splits=[write_voc(tmp_path, {"a": annotation()})], class_names=class_names)


def test_names_in_a_list_may_have_a_suffix_and_a_folder(tmp_path: Path) -> None:
    xmls = dict.fromkeys(("a", "b.png", "c", "d 1"), annotation(SOUND))
    lines = ["a.jpg", "b.png 1", "JPEGImages/c.JPG -1", "d 1.jpg", "gone.jpg"]
    write_voc(tmp_path, xmls, lines=lines)
    assert names_in(tmp_path, "train") == ["a", "b.png", "c", "d 1", "gone"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("{split}.txt", "{name}"),
        ("{split}.txt", "{name}.jpg"),
        ("{split}_list.txt", "./JPEGImages/{name}.jpg ./Annotations/{name}.xml"),  # PaddleDetection
        ("{split}_list.txt", "data/mine/JPEGImages/{name}.jpg data/mine/Annotations/{name}.xml"),
    ],
)
@pytest.mark.parametrize("found", [VOC(), Auto()])
def test_lists_in_the_root_are_splits(tmp_path: Path, name: str, line: str, found: VOC | Auto) -> None:
    write_voc(tmp_path, dict.fromkeys(("a", "b"), annotation(SOUND)))
    shutil.rmtree(tmp_path / "ImageSets")
    (tmp_path / "labels.txt").write_text("cat\n")
    (tmp_path / "._train.txt").write_bytes(b"\0\5")
    for split, image in (("train", "a"), ("val", "b")):
        (tmp_path / name.format(split=split)).write_text(line.format(name=image) + "\n")
    for split, image in (("train", "a"), ("val", "b")):
        assert list(found.read(tmp_path, split).columns.image_ids) == [image]
    with pytest.raises(DataError, match=r"there is train, val$"):
        VOC().read(tmp_path, "test")


def test_a_text_file_in_the_root_that_names_no_xml_file_is_no_list(tmp_path: Path) -> None:
    write_folder(tmp_path, "a")
    for name in ("train", "test_notes"):
        (tmp_path / f"{name}.txt").write_text("to do: more images\n")
    (tmp_path / "val.txt").write_bytes(b"\xff\0\xff")
    assert ids(tmp_path, ".") == ["a"]


# Folders without ImageSets


def write_folder(folder: Path, *names: str, suffix: str = ".jpg", filename: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (200, 100)).save(folder / f"{name}{suffix}", "JPEG")
        (folder / f"{name}.xml").write_text(annotation(SOUND, filename=filename))


def ids(root: Path, *splits: str) -> list[str]:
    return ids_in([{"root": str(root), "split": split} for split in splits])


def test_folders_are_splits_and_their_images_stay_apart(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", "a", "b.rf.01", suffix=".JPG")
    write_folder(tmp_path / "test", "a")

    assert ids(tmp_path, "train") == ["a", "b.rf.01"]
    assert ids(tmp_path, "train", "test") == ["train/a", "train/b.rf.01", "test/a"]
    dataset = open_voc(splits=[{"root": str(tmp_path), "split": "train"}])
    assert [record.image_path.name for record in dataset.annotations] == ["a.JPG", "b.rf.01.JPG"]
    assert [record.boxes_xyxy_px.tolist() for record in dataset.annotations] == [[[0, 1, 29, 39]]] * 2


def test_one_folder_is_read_whole_but_for_splits_and_hidden_files_in_it(tmp_path: Path) -> None:
    for folder in (".", "cam1", "Test", "valid", ".ipynb_checkpoints"):
        write_folder(tmp_path / folder, "a")
    (tmp_path / "._a.xml").write_bytes(b"\0\5\26\7")  # as macOS leaves them on other file systems

    assert ids(tmp_path, ".") == ["a", "cam1/a"]
    assert ids(tmp_path, "Test") == ["a"]


@pytest.mark.parametrize(("annotations", "images"), [("Annotations", "JPEGImages"), ("annotations", "images")])
@pytest.mark.parametrize("split", [".", "train"])
def test_images_and_annotations_may_have_a_folder_each(
    tmp_path: Path, annotations: str, images: str, split: str
) -> None:
    write_folder(tmp_path / split / images, "a")
    (tmp_path / split / annotations).mkdir()
    (tmp_path / split / images / "a.xml").rename(tmp_path / split / annotations / "a.xml")

    dataset = open_voc(splits=[{"root": str(tmp_path), "split": split}])

    assert [record.image_path for record in dataset.annotations] == [tmp_path / split / images / "a.jpg"]
    with pytest.raises(DataError, match=rf"no split 'test'; there is {split if split == 'train' else '.'}$"):
        ids(tmp_path, "test")


@pytest.mark.parametrize(
    ("xml", "images"),
    [
        ("xml", "pictures"),
        ("labels_my-project_2024", "images"),  # makesense.ai
        ("annotations/xmls", "images"),  # Oxford-IIIT Pet
        ("train/xml", "train/pictures"),
        ("xml/train", "pictures/train"),
    ],
)
def test_images_in_a_folder_of_any_name_are_found_by_their_names(tmp_path: Path, xml: str, images: str) -> None:
    write_folder(tmp_path / images, "a", "b")
    if xml == "annotations/xmls":
        write_folder(tmp_path / "annotations/trimaps", "a", suffix=".png")
        (tmp_path / "annotations/trimaps/a.xml").unlink()
    (tmp_path / xml).mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / images / f"{name}.xml").rename(tmp_path / xml / f"{name}.xml")
    found = Auto().read(tmp_path, "train")
    assert not found.problems
    assert list(found.columns.image_paths) == [f"{tmp_path}/{images}/{name}.jpg" for name in ("a", "b")]


def test_an_image_of_another_split_or_one_of_several_of_a_name_is_not_taken(tmp_path: Path) -> None:
    for folder, name in (("xml", "a"), ("xml", "b"), ("one", "b"), ("two", "b"), ("test", "a"), ("._x", "a")):
        write_folder(tmp_path / folder, name)
    for path in [*tmp_path.glob("xml/*.jpg"), *tmp_path.glob("[!x]*/*.xml")]:
        path.unlink()
    assert [problem.kind for problem in VOC().read(tmp_path, ".").problems] == ["missing", "missing"]


@pytest.mark.parametrize("images", ["images", "images/{split}"])
def test_a_split_may_be_a_folder_of_the_annotations_or_of_the_images_alone(
    tmp_path: Path, images: str, caplog: pytest.LogCaptureFixture
) -> None:
    for split, name in (("train", "a"), ("test", "b")):
        write_folder(tmp_path / images.format(split=split), name)
        if images == "images":
            (tmp_path / "annotations" / split).mkdir(parents=True)
            (tmp_path / f"images/{name}.xml").rename(tmp_path / f"annotations/{split}/{name}.xml")

    for split, name in (("train", "a"), ("test", "b")):
        dataset = open_voc(splits=[{"root": str(tmp_path), "split": split}])
        assert [record.image_path.stem for record in dataset.annotations] == [name]
    assert not caplog.records


def test_folders_of_validation_or_test_in_a_split_are_named(tmp_path: Path) -> None:
    for folder in ("train_set", "Validation Set", "contest", "cam/test1"):
        write_folder(tmp_path / folder, "a")
    (note,) = VOC().read(tmp_path, ".").notes
    assert "the folders Validation Set, cam/test1 are read" in note
    assert VOC().read(tmp_path, "train_set").notes == []


def test_images_without_an_xml_file_are_counted_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path / "train", "a", "b", filename="/home/me/photo.jpg")
    (tmp_path / "train/b.jpg").rename(tmp_path / "train/photo.jpg")  # which b.xml states
    splits = [{"root": str(tmp_path), "split": "train"}]

    open_voc(splits=splits)
    assert not caplog.records

    for name in ("c.png", "d.JPG", "e.heic", "readme.txt"):
        (tmp_path / "train" / name).touch()
    dataset = open_voc(splits=splits)

    assert [record.image_path.name for record in dataset.annotations] == ["a.jpg", "photo.jpg"]
    assert caplog.messages == [f"{tmp_path}/train: 3 images have no XML file and are skipped; the first is c.png"]
    assert dataset.dropped == []


def test_a_missing_folder_is_answered_with_those_that_have_xml_files(tmp_path: Path) -> None:
    for folder in ("train", "valid"):
        write_folder(tmp_path / folder, "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no split 'test'; there is train, valid$"):
        ids(tmp_path, "test")
    write_folder(tmp_path, "b")
    with pytest.raises(DataError, match=r"no split 'test'; there is \., train, valid$"):
        ids(tmp_path, "test")


def test_lists_come_before_folders(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": annotation(SOUND)})
    write_folder(tmp_path / "train", "b")
    assert ids(tmp_path, "train") == ["a"]


# Bad objects

BAD_OBJECTS = {
    "without bndbox": (voc_object(box=""), "object 2 'dog' has no <bndbox>"),
    "without a coordinate": (
        voc_object(box="<bndbox><xmin>1</xmin></bndbox>"),
        "object 2 'dog' has a <bndbox> without <ymin>",
    ),
    "empty coordinate": (voc_object(box=bndbox("", 1, 2, 2)), "has xmin '', which is not a number"),
    "text": (voc_object(box=bndbox(1, "top", 2, 2)), "object 2 'dog' has ymin 'top', which is not a number"),
    "all beyond": (voc_object(box=bndbox(0, 1, 1, 9)), "has no area: xmin is 0 and xmax 1"),
    "too far left": (voc_object(box=bndbox(-1, 1, 9, 9)), "reaches out of the image: xmin is -1"),
    "too far down": (
        voc_object(box=bndbox(1, 1, 9, 140)),
        "reaches out of the image: ymax is 140 of 100 px",
    ),
    "unknown class": (voc_object("dgo"), "object 2 'dgo' is of none of the 2 classes; the nearest is 'dog'"),
    "class unlike any": (voc_object("xylophone"), "'xylophone' is of none of the 2 classes: cat, dog"),
    "class in another case": (voc_object("Dog"), "'Dog' is of none of the 2 classes; the nearest is 'dog'"),
    "without a name": (voc_object(""), "object 2 '' is of none of the 2 classes"),
    "odd flag": (voc_object(extra="<difficult>maybe</difficult>"), "has <difficult> 'maybe'"),
}


@pytest.mark.parametrize(("bad", "said"), BAD_OBJECTS.values(), ids=BAD_OBJECTS)
def test_a_bad_object_is_named_or_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, bad: str, said: str
) -> None:
    with pytest.raises(DataError) as caught:
        dataset_of(tmp_path, SOUND, bad, voc_object())
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/Annotations/a.xml: object 2 ")
    assert said in message
    assert "\n" not in message

    dataset = dataset_of(tmp_path, SOUND, bad, voc_object(), on_error="skip")
    assert boxes_px(dataset) == [[0, 1, 29, 39], [10, 20, 100, 80]]
    assert dataset.annotations[0].labels.tolist() == [1, 2]
    assert len(dataset.dropped) == 1
    assert said in str(dataset.dropped[0])
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "skipped 1 objects" in caplog.text
    assert said in caplog.text


@pytest.mark.parametrize("xml_offset", [0, 1])
def test_a_box_a_pixel_outside_is_clipped(tmp_path: Path, xml_offset: int) -> None:
    box = bndbox(xml_offset - 1, xml_offset - 1, 201, 101)

    dataset = dataset_of(tmp_path, voc_object(box=box), xml_offset=xml_offset)

    assert boxes_px(dataset) == [[0, 0, 200, 100]]
    assert dataset.dropped == []


# Bad files

BILLION_LAUGHS = """<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>
<annotation><filename>&b;</filename></annotation>"""
EXTERNAL = """<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<annotation><filename>&a;</filename></annotation>"""


def remove_image(root: Path) -> None:
    (root / "JPEGImages/b.jpg").unlink()


def overwrite(content: bytes) -> Callable[[Path], None]:
    return lambda root: (root / "Annotations/b.xml").write_bytes(content) and None


BAD_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "entity bomb": (overwrite(BILLION_LAUGHS.encode()), "entities, which is refused"),
    "entity bomb in UTF-16": (overwrite(BILLION_LAUGHS.encode("utf-16")), "entities, which is refused"),
    "external entity": (overwrite(EXTERNAL.encode()), "entities, which is refused"),
    "cut off": (overwrite(annotation(SOUND).encode()[:-20]), "not well-formed XML"),
    "empty": (overwrite(b""), "not well-formed XML"),
    "unknown encoding": (
        overwrite(b'<?xml version="1.0" encoding="klingon"?><annotation/>'),
        "not well-formed XML",
    ),
    "HTML": (overwrite(b"<html><body>404</body></html>"), "begins with <html>, not with <annotation>"),
    "missing": (lambda root: (root / "Annotations/b.xml").unlink(), "the annotation is missing"),
    "without its image": (remove_image, "the image is missing"),
}


@pytest.mark.parametrize(("spoil", "said"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_raises_or_drops_its_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None], said: str
) -> None:
    split = write_voc(tmp_path, {"a": annotation(SOUND), "b": annotation(SOUND), "c": annotation(SOUND)})
    spoil(tmp_path)

    with pytest.raises(DataError, match=said) as caught:
        open_voc(splits=[split], class_names=CLASSES)
    message = str(caught.value)
    assert message.startswith((f"{tmp_path}/Annotations/b.xml: ", f"{tmp_path}/JPEGImages/b.jpg: "))
    assert "\n" not in message

    dataset = open_voc(splits=[split], class_names=None, on_error="skip")
    assert [record.image_id for record in dataset.annotations] == ["a", "c"]
    assert list(map(str, dataset.dropped)) == [message]
    assert message in caplog.text


def test_a_long_list_is_shortened_in_the_log_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = dataset_of(tmp_path, *[voc_object(f"thing{i:02}") for i in range(25)], on_error="skip")

    assert len(dataset.dropped) == 25
    assert "skipped 25" in caplog.text
    assert "thing19" in caplog.text
    assert "thing20" not in caplog.text
    assert "and 5 more" in caplog.text


def test_a_folder_that_is_not_voc(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a VOC folder: it has neither ImageSets/Main nor XML files"):
        open_voc(splits=[{"root": str(tmp_path), "split": "train"}], class_names=CLASSES)


def test_reading_annotations_opens_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_voc(tmp_path, {"a": annotation(SOUND)})
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("an image was opened"))

    found = VOC().read(tmp_path, "train")

    assert found.columns.sizes_px.tolist() == [[100, 200]]
    assert found.problems == []


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("GB2312", "镕"),  # in GBK alone, as Windows writes it
        ("gbk", "猫"),
        ("big5", "貓"),
        ("Shift_JIS", "①猫"),
        ("euc-kr", "고양이"),
        ("windows-1251", "кошка"),
        ("utf-16", "猫"),
    ],
)
def test_xml_in_the_encoding_that_it_declares(tmp_path: Path, encoding: str, name: str) -> None:
    write_folder(tmp_path, "a")
    text = f'<?xml version="1.0" encoding="{encoding}"?>{annotation(voc_object(name))}'
    codec = {"GB2312": "gbk", "Shift_JIS": "cp932"}.get(encoding, encoding)
    (tmp_path / "a.xml").write_bytes(text.encode(codec))
    found = Auto().read(tmp_path, "train")
    assert (list(found.names), list(found.problems)) == ([name], [])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'<?xml version="1.0" encoding="utf-7"?>+ADwAIQ-ENTITY x>', "declares entities"),
        (b'<?xml version="1.0" encoding="gbk"?><annotation>\xff</annotation>', "not well-formed XML.*0xff"),
        (b'<?xml version="1.0" encoding="hex"?><annotation/>', "not well-formed XML.*hex"),
    ],
)
def test_xml_in_an_encoding_that_hides_something(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(DataError, match=f"{tmp_path}/a.xml: .*{said}"):
        read_xml(tmp_path / "a.xml")
