"""One small data set in every annotation format, written by hand here: all readers say the same about it."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Literal
from unicodedata import normalize

import numpy as np
import pytest
import yaml
from PIL import Image

from helpers.annotation_tools import Spec, write_cvat, write_label_studio_min, write_labelme
from helpers.datasets import open_coco, open_csv, open_splits, open_voc, open_yolo, opener
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.formats import CVAT, LabelMe, LabelStudio
from ssd_lightning.data.image_io import as_rgb
from ssd_lightning.data.writers import FORMATS
from ssd_lightning.errors import DataError

CLASSES = ("cat", "dog")


@dataclass(frozen=True)
class Thing:
    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False


@dataclass(frozen=True)
class ImageSpec:
    name: str
    size_px: tuple[int, int]
    things: tuple[Thing, ...] = ()


IMAGES = (
    ImageSpec("a", (100, 200), (Thing("dog", (10, 20, 100, 80)), Thing("cat", (0, 0, 29.5, 40.25)))),
    ImageSpec("b", (80, 120), (Thing("cat", (5, 6, 50, 70), difficult=True), Thing("cat", (3, 4, 120, 80)))),
    ImageSpec("c", (60, 60)),
    ImageSpec("d.v2", (50, 90), (Thing("dog", (1, 1, 89, 49)),)),
)


def paint(folder: Path, images: Sequence[ImageSpec], suffix: str = ".jpg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        height, width = image.size_px
        path = on_disk(folder, f"{image.name}{suffix}")
        Image.new("RGB", (width, height), "teal").save(path)


def on_disk(folder: Path, name: str) -> Path:
    """Where a file lies that annotations may name with the separators of another system."""
    path = folder / name.replace("\\", "/")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def voc_xml(image: ImageSpec) -> str:
    objects = "".join(
        f"<object><name>{thing.name}</name><difficult>{int(thing.difficult)}</difficult><bndbox>"
        + "".join(
            f"<{tag}>{edge + 1}</{tag}>" for tag, edge in zip(["xmin", "ymin", "xmax", "ymax"], thing.box, strict=True)
        )
        + "</bndbox></object>"
        for thing in image.things
    )
    size = f"<size><width>{image.size_px[1]}</width><height>{image.size_px[0]}</height></size>"
    return f"<annotation>{size}{objects}</annotation>"


def hand_write_voc(root: Path, split: str, images: Sequence[ImageSpec]) -> None:
    paint(root / "JPEGImages", images)
    (root / "Annotations").mkdir(exist_ok=True)
    (root / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(image.name for image in images))
    for image in images:
        on_disk(root / "Annotations", f"{image.name}.xml").write_text(voc_xml(image))


def hand_write_labelimg(root: Path, split: str, images: Sequence[ImageSpec]) -> None:
    paint(root / split, images)
    for image in images:
        on_disk(root / split, f"{image.name}.xml").write_text(voc_xml(image))


def hand_write_coco(root: Path, split: str, images: Sequence[ImageSpec]) -> None:
    paint(root / split, images)
    ids = {"cat": 17, "dog": 18}
    listed = [
        {"id": 1000 - i, "file_name": f"{p.name}.jpg", "height": p.size_px[0], "width": p.size_px[1]}
        for i, p in enumerate(images)
    ]
    annotations = [
        {
            "id": 10 * i + j,
            "image_id": 1000 - i,
            "category_id": ids.get(thing.name, 99),
            "bbox": [thing.box[0], thing.box[1], thing.box[2] - thing.box[0], thing.box[3] - thing.box[1]],
            "iscrowd": int(thing.difficult),
            "segmentation": [[1, 2, 3, 4]],
        }
        for i, image in enumerate(images)
        for j, thing in enumerate(image.things)
    ]
    categories = [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}]
    (root / "annotations").mkdir(exist_ok=True)
    content = {"images": listed, "annotations": annotations[::-1], "categories": categories}
    content["annotations"].sort(key=lambda entry: entry["id"])
    (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))


def yolo_lines(image: ImageSpec) -> str:
    height, width = image.size_px
    numbers = {"cat": 0, "dog": 1}
    return "".join(
        f"{numbers.get(thing.name, 7)} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} "
        f"{(y2 - y1) / height}\n"
        for thing in image.things
        for x1, y1, x2, y2 in [thing.box]
    )


def hand_write_yolo(root: Path, split: str, images: Sequence[ImageSpec], place: str = "images/{split}") -> None:
    paint(root / "images" / split, images)
    (root / "labels" / split).mkdir(parents=True)
    for image in images:
        if image.things:  # none for an image without objects
            on_disk(root / "labels" / split, f"{image.name}.txt").write_text(yolo_lines(image))
    lines = "".join(f"{other}: {place.format(split=other)}\n" for other in ("train", "test"))
    (root / "data.yaml").write_text(f"path: /nowhere/on/this/machine\n{lines}names:\n  0: cat\n  1: dog\n")


def hand_write_yolo_list(root: Path, split: str, images: Sequence[ImageSpec]) -> None:
    hand_write_yolo(root, split, images, place="{split}.txt")
    names = [f"./images/{split}/{image.name}.jpg" for image in images]
    (root / f"{split}.txt").write_text("\n".join(names) + "\n")


def hand_write_csv(root: Path, split: str, images: Sequence[ImageSpec]) -> None:
    paint(root / "images", images, ".png")
    rows = ["filename;class;difficult;xmin;xmax;ymin;ymax".replace(";", ",")]
    for image in images:
        rows += [
            f"{image.name}.png,{t.name},{int(t.difficult)},{t.box[0]},{t.box[2]},{t.box[1]},{t.box[3]}"
            for t in image.things
        ] or [f"{image.name}.png,,,,,,"]
    (root / f"{split}.csv").write_text("\n".join(rows) + "\n")


def hand_write_openimages(root: Path, split: str, images: Sequence[ImageSpec]) -> None:
    paint(root / split, images)
    codes = {"cat": "/m/01yrx", "dog": "/m/0bt9lr"}
    (root / "descriptions.csv").write_text("/m/01yrx,cat\n/m/0bt9lr,dog\n/m/04rky,Mammal\n")
    rows = ["ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf"]
    for image in images:
        height, width = image.size_px
        rows += [
            f"{image.name},xclick,{codes.get(thing.name, thing.name)},1,{x1 / width},{x2 / width},{y1 / height},"
            f"{y2 / height},-1,{1 if thing.difficult else -1}"
            for thing in image.things
            for x1, y1, x2, y2 in [thing.box]
        ] or [f"{image.name},,,,,,,,,"]
    (root / f"{split}-annotations-bbox.csv").write_text("\n".join(rows) + "\n")


def hand_write_bananas(root: Path, split: str, images: Sequence[ImageSpec]) -> None:
    paint(root / split / "images", images, ".png")
    rows = ["img_name,label,xmin,ymin,xmax,ymax"]
    for image in images:
        rows += [f"{image.name}.png,{thing.name},{','.join(map(str, thing.box))}" for thing in image.things] or [
            f"{image.name}.png,,,,,"
        ]
    (root / split / "label.csv").write_text("\n".join(rows) + "\n")


def specs(images: Sequence[ImageSpec]) -> list[Spec]:
    return [Spec(f"{one.name}.jpg", one.size_px, tuple((t.name, t.box) for t in one.things)) for one in images]


def hand_write_labelme(root: Path, split: str, images: Sequence[ImageSpec]) -> None:
    write_labelme(root / split, specs(images))


def hand_write_cvat(root: Path, split: str, images: Sequence[ImageSpec]) -> None:
    write_cvat(root / split, specs(images))


def hand_write_label_studio(root: Path, split: str, images: Sequence[ImageSpec]) -> None:
    write_label_studio_min(root, specs(images)).rename(root / f"{split}.json")


@dataclass(frozen=True)
class Format:
    dataset: partial[DetectionDataset]
    write: Callable[[Path, str, Sequence[ImageSpec]], None]
    in_fractions: bool = False
    has_difficult: bool = True
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def files(self) -> Callable[[Mapping[str, Any]], frozenset[str]]:
        return opener(self.dataset.args[0]).files

    def open(self, root: Path, images: Sequence[ImageSpec] = IMAGES, **settings: Any) -> DetectionDataset:
        root.mkdir(exist_ok=True)
        self.write(root, "train", images)
        return self.reopen(root, **settings)

    def reopen(self, root: Path, **settings: Any) -> DetectionDataset:
        return self.dataset(
            splits=[{"root": str(root), "split": "train"}],
            **{"class_names": CLASSES, **dict(self.settings), **settings},
        )


ALL = {
    "voc": Format(open_voc, hand_write_voc),
    "labelimg": Format(open_voc, hand_write_labelimg),
    "coco": Format(open_coco, hand_write_coco),
    "yolo": Format(open_yolo, hand_write_yolo, in_fractions=True, has_difficult=False),
    "yolo list": Format(open_yolo, hand_write_yolo_list, in_fractions=True, has_difficult=False),
    "csv": Format(open_csv, hand_write_csv),
    "openimages": Format(
        open_csv, hand_write_openimages, in_fractions=True, settings=(("class_descriptions", "descriptions.csv"),)
    ),
    "bananas": Format(open_csv, hand_write_bananas, has_difficult=False),
}
every_format = pytest.mark.parametrize("form", ALL.values(), ids=list(ALL))
WITHOUT_DIFFICULT = {
    "labelme": Format(partial(open_splits, LabelMe), hand_write_labelme, has_difficult=False),
    "cvat": Format(partial(open_splits, CVAT), hand_write_cvat, has_difficult=False),
    "label studio": Format(
        partial(open_splits, LabelStudio), hand_write_label_studio, in_fractions=True, has_difficult=False
    ),
}
every_reader = pytest.mark.parametrize(
    "form", [*ALL.values(), *WITHOUT_DIFFICULT.values()], ids=[*ALL, *WITHOUT_DIFFICULT]
)


def with_extra(*things: Thing) -> tuple[ImageSpec, ...]:
    """Add objects to the first image."""
    return (replace(IMAGES[0], things=(*IMAGES[0].things, *things)), *IMAGES[1:])


def summary(dataset: DetectionDataset) -> list[tuple[str, tuple[int, int], list[tuple[str, list[float]]]]]:
    """Names instead of numbers, and boxes to a hundredth of a pixel."""
    return [
        (
            record.image_id,
            record.size_px,
            [
                (dataset.class_names[label - 1], np.round(box, 2).tolist())
                for label, box in zip(record.labels.tolist(), record.boxes_xyxy_px, strict=True)
            ],
        )
        for record in dataset.annotations
    ]


EXPECTED = [(p.name, p.size_px, [(thing.name, list(thing.box)) for thing in p.things]) for p in IMAGES]


@every_reader
def test_the_same_images_boxes_and_labels(tmp_path: Path, form: Format) -> None:
    dataset = form.open(tmp_path)

    assert summary(dataset) == EXPECTED
    assert [record.labels.tolist() for record in dataset.annotations] == [[2, 1], [1, 1], [], [2]]
    difficult = [record.difficult.tolist() for record in dataset.annotations]
    assert difficult == [[False, False], [form.has_difficult, False], [], [False]]
    for record in dataset.annotations:
        assert (record.boxes_xyxy_px.dtype, record.labels.dtype, record.difficult.dtype) == (np.float32, np.int64, bool)
        assert record.boxes_xyxy_px.shape == (len(record.labels), 4)


@every_reader
def test_class_names_are_discovered(tmp_path: Path, form: Format) -> None:
    assert form.open(tmp_path, class_names=None).class_names == CLASSES


@every_reader
def test_labels_follow_the_class_list(tmp_path: Path, form: Format) -> None:
    assert form.open(tmp_path, class_names=("bird", "dog", "cat")).annotations[0].labels.tolist() == [2, 3]


@every_format
def test_difficult_objects_may_be_dropped(tmp_path: Path, form: Format) -> None:
    if form.dataset is open_yolo:
        pytest.skip("YOLO has no difficult objects")
    dataset = form.open(tmp_path, keep_difficult=False)

    assert len(dataset.annotations[1].labels) == (1 if form.has_difficult else 2)
    assert dataset.dropped == []
    told = "1 crowds or difficult objects are skipped; data.train_difficult=true keeps them"
    assert dataset.skipped == (told if form.has_difficult else "")
    assert form.open(tmp_path).skipped == ""


@every_format
def test_parts_are_complementary_and_the_same_in_every_format(tmp_path: Path, form: Format) -> None:
    form.open(tmp_path)
    parts = {
        part: [record.image_id for record in form.reopen(tmp_path, part=part, val_fraction=0.4).annotations]
        for part in ("train", "val")
    }

    assert sorted(parts["train"] + parts["val"]) == [image.name for image in IMAGES]
    assert parts["train"]
    voc = ALL["voc"].open(tmp_path / "voc", part="val", val_fraction=0.4)
    assert parts["val"] == [record.image_id for record in voc.annotations]
    assert len(form.reopen(tmp_path, max_images=2)) == 2


BAD_THINGS = {
    "is inverted: xmin": Thing("dog", (50, 1, 20, 9)),
    "has no area: xmin is": Thing("dog", (50, 1, 50, 9)),
    "nan": Thing("dog", (1, 1, float("nan"), 9)),
    "inf": Thing("dog", (1, 1, 9, float("inf"))),
    "reaches out of the image: xmax is 21": Thing("dog", (1, 1, 210, 9)),
    "reaches out of the image: xmin is -": Thing("dog", (-5, 1, 20, 9)),
}


@every_reader
def test_bad_boxes_are_named_or_skipped(tmp_path: Path, form: Format) -> None:
    bad = dict(BAD_THINGS)
    if form.write is hand_write_labelme:
        del bad["is inverted: xmin"]  # labelme's corners have no order
    with pytest.raises(DataError) as caught:
        form.open(tmp_path, with_extra(*bad.values()))

    dataset = form.reopen(tmp_path, on_error="skip")
    assert summary(dataset) == EXPECTED
    messages = list(map(str, dataset.dropped))
    assert str(caught.value).startswith(messages[0])
    for message, said in zip(messages, bad, strict=True):
        assert message.startswith(str(tmp_path))
        assert "'dog'" in message
        assert said in message
        assert "\n" not in message


@every_reader
def test_an_unknown_class_is_named_or_skipped(tmp_path: Path, form: Format) -> None:
    with pytest.raises(DataError, match=r"'(dgo|99|7)'.* is of none of the 2 classes"):
        form.open(tmp_path, with_extra(Thing("dgo", (1, 2, 30, 40))))
    dataset = form.reopen(tmp_path, on_error="skip")
    assert summary(dataset) == EXPECTED
    assert len(dataset.dropped) == 1


@every_reader
def test_boxes_in_the_wrong_unit_are_named(tmp_path: Path, form: Format) -> None:
    # Two hundred times too large where fractions belong, two hundred times too small where pixels belong.
    box = (20.0, 10.0, 160.0, 70.0)
    wrong = tuple(edge * 200 for edge in box) if form.in_fractions else tuple(edge / 200 for edge in box)
    if form.dataset is open_voc:
        wrong = tuple(edge - 1 for edge in wrong)  # the file then has the fractions themselves
    unit, other = ("pixels", "fractions") if form.in_fractions else ("fractions", "pixels")

    with pytest.raises(DataError, match=rf"'dog'.* has the box \(.*\), which looks like {unit}.* {other}.* expected"):
        form.open(tmp_path, with_extra(Thing("dog", wrong)))  # type: ignore[arg-type]


@every_reader
def test_a_tiny_box_in_the_corner_is_no_wrong_unit(tmp_path: Path, form: Format) -> None:
    dataset = form.open(tmp_path, with_extra(Thing("dog", (0, 0, 1, 1)), Thing("dog", (0.5, 0.5, 3.5, 2.5))))

    np.testing.assert_allclose(
        dataset.annotations[0].boxes_xyxy_px[2:], [[0, 0, 1, 1], [0.5, 0.5, 3.5, 2.5]], atol=1e-4
    )


@every_reader
def test_a_missing_image_is_named_or_skipped(tmp_path: Path, form: Format) -> None:
    form.open(tmp_path)
    (gone,) = (path for path in tmp_path.rglob("b.*") if path.suffix in (".jpg", ".png"))
    gone.unlink()
    with pytest.raises(DataError, match=r"b\S*: the image is missing"):
        form.reopen(tmp_path)
    dataset = form.reopen(tmp_path, on_error="skip")
    assert [record.image_id for record in dataset.annotations] == ["a", "c", "d.v2"]
    assert len(dataset.dropped) == 1


@pytest.mark.parametrize(
    ("form", "stated", "folder"),
    [
        *(("coco", "absolute", "train"), ("coco", "upwards", "images")),
        *(("csv", "absolute", "images"), ("csv", "upwards", "train")),
    ],
)
def test_images_inside_the_root_come_before_those_outside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, form: str, stated: str, folder: str
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside/a.jpg"
    paint(root / folder, IMAGES[:1])
    paint(outside.parent, IMAGES[:1])
    name = str(outside) if stated == "absolute" else "../../outside/a.jpg"
    content = {"images": [{"id": 1, "file_name": name}], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (root / "train.json").write_text(json.dumps(content))
    (root / "train.csv").write_text(f"image,label,xmin,ymin,xmax,ymax\n{name},cat,1,2,30,40\n")
    reader = {"coco": open_coco, "csv": open_csv}[form]
    splits = [{"root": str(root), "split": "train"}]

    assert reader(splits=splits).annotations[0].image_path == root / folder / "a.jpg"
    assert not caplog.records

    (root / folder / "a.jpg").unlink()
    assert reader(splits=splits).annotations[0].image_path.samefile(outside)
    assert f"1 of the 1 images lie outside of {root}; the first: {outside}" in caplog.text


@pytest.mark.parametrize("form", ["coco", "csv", "voc"])
@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_a_letter_with_an_accent_is_one_or_two_characters(
    tmp_path: Path, form: str, stored: Literal["NFC", "NFD"]
) -> None:
    image = replace(IMAGES[0], name="größe한")
    ALL[form].open(tmp_path, [image])
    (path,) = (path for path in tmp_path.rglob("gr*") if path.suffix in (".jpg", ".png"))
    path.rename(path.with_name(normalize(stored, path.name)))
    (record,) = ALL[form].reopen(tmp_path).annotations
    assert record.image_path.name == normalize(stored, path.name)


CAMERAS = tuple(
    ImageSpec(name, (60, 80), (Thing("cat", (1, 2, 20 + place, 40)),))
    for place, name in enumerate(("cam1/f1", "cam2/f1", "f1", "night/cam1/f1"))
)


@every_format
def test_images_of_one_name_in_several_folders(tmp_path: Path, form: Format, caplog: pytest.LogCaptureFixture) -> None:
    images = [replace(CAMERAS[0], name="cam1\\f1"), *CAMERAS[1:3], replace(CAMERAS[3], name="night\\cam1\\f1")]

    dataset = form.open(tmp_path, images)

    found = {record.image_id: record for record in dataset.annotations}
    assert set(found) == {image.name for image in CAMERAS}
    for image in CAMERAS:
        assert found[image.name].image_path.with_suffix("").as_posix().endswith(f"/{image.name}")
        assert found[image.name].boxes_xyxy_px[0].round(2).tolist() == list(image.things[0].box)
    assert len({record.image_path for record in dataset.annotations}) == len(CAMERAS)
    assert not caplog.records

    found["cam2/f1"].image_path.unlink()
    with pytest.raises(DataError, match=r"cam2[/\\]f1\S*: the image is missing"):
        form.reopen(tmp_path)
    assert len(form.reopen(tmp_path, on_error="skip")) == len(CAMERAS) - 1


@pytest.mark.parametrize(
    ("form", "orientation"),
    [*((form, 6) for form in ALL.values()), (ALL["coco"], 3), (ALL["yolo"], 3)],  # 3 keeps the size
    ids=[*ALL, "coco 3", "yolo 3"],
)
def test_boxes_are_of_the_upright_image_that_is_predicted_on(tmp_path: Path, form: Format, orientation: int) -> None:
    form.open(tmp_path)
    (path,) = (path for path in tmp_path.rglob("a.*") if path.suffix in (".jpg", ".png"))
    stored_px = (100, 200) if orientation == 3 else (200, 100)
    ramp = np.arange(stored_px[0] * stored_px[1]).reshape(stored_px) * 255 // (stored_px[0] * stored_px[1])
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(ramp.astype(np.uint8)).save(path, exif=exif)

    dataset = form.reopen(tmp_path)

    assert summary(dataset) == EXPECTED
    np.testing.assert_array_equal(dataset[0][0].permute(1, 2, 0), as_rgb(path))


@pytest.mark.parametrize("form", [ALL[name] for name in ("voc", "labelimg", "coco", "csv", "bananas")])
def test_boxes_of_an_image_that_exif_turns_fit_it_or_it_is_named(tmp_path: Path, form: Format) -> None:
    # The size is stated, or assumed, as 100 x 200 px; the boxes are those of 200 x 100 px.
    things = (Thing("dog", (10, 20, 150, 80)), Thing("cat", (1, 2, 30, 40)))
    form.open(tmp_path, (ImageSpec("t", (200, 100), ()), *IMAGES[1:]))
    (path,) = (path for path in tmp_path.rglob("t.*") if path.suffix in (".jpg", ".png"))
    form.write(tmp_path, "train", (ImageSpec("t", (200, 100), things), *IMAGES[1:]))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 100)).save(path, exif=exif)

    said = r"t\.\w+: its EXIF tag turns the image from 200 x 100 to 100 x 200 px, and its boxes fit 200 x 100 px alone"
    with pytest.raises(DataError, match=said):
        form.reopen(tmp_path)
    dataset = form.reopen(tmp_path, on_error="skip")
    assert summary(dataset) == EXPECTED[1:]
    assert len(dataset.dropped) == 1


@pytest.mark.parametrize(
    ("form", "suffix"), [("voc", ".jfif"), ("labelimg", ".Tif"), ("yolo", ".Tif"), ("openimages", ".jfif")]
)
def test_an_image_without_a_stated_suffix_may_have_any_that_is_read(tmp_path: Path, form: str, suffix: str) -> None:
    ALL[form].open(tmp_path)
    (path,) = tmp_path.rglob("b.jpg")
    with Image.open(path) as image:
        image.save(path.with_suffix(suffix))
    path.unlink()
    dataset = ALL[form].reopen(tmp_path)
    assert summary(dataset) == EXPECTED
    assert dataset[1][0].shape == (3, 80, 120)


@pytest.mark.parametrize(("form", "encoding"), zip(ALL.values(), cycle(["utf-16", "utf-8-sig"])), ids=list(ALL))
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, form: Format, encoding: str) -> None:
    form.open(tmp_path)
    for path in tmp_path.rglob("*.*"):
        if path.is_file() and path.suffix not in (".jpg", ".png"):
            path.write_text(path.read_text(), encoding=encoding)
    assert summary(form.reopen(tmp_path)) == EXPECTED


@every_format
def test_letter_case_of_a_suffix_makes_no_difference(tmp_path: Path, form: Format) -> None:
    form.open(tmp_path)
    (path,) = (path for path in tmp_path.rglob("b.*") if path.suffix in (".jpg", ".png"))
    path.rename(path.with_suffix(path.suffix.title()))
    assert summary(form.reopen(tmp_path)) == EXPECTED


@pytest.mark.parametrize("reader", [open_coco, open_csv])
def test_a_stated_image_of_a_format_that_is_not_read_is_named(
    tmp_path: Path, reader: Callable[..., DetectionDataset]
) -> None:
    entries = [{"id": 1, "file_name": "b.dng", "width": 20, "height": 20}]
    content = {"images": entries, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "train.json").write_text(json.dumps(content))
    (tmp_path / "train.csv").write_text("image,width,height,label,xmin,ymin,xmax,ymax\nb.dng,20,20,,,,,\n")
    (tmp_path / "train").mkdir()
    (tmp_path / "train/b.dng").touch()
    with pytest.raises(DataError, match=r"train/b\.dng: cannot read the image: \.dng is not read; convert it"):
        reader(splits=[{"root": str(tmp_path), "split": "train"}], class_names=CLASSES)


@pytest.mark.parametrize("form", [ALL[name] for name in ("voc", "labelimg", "yolo", "openimages")])
def test_an_image_of_a_format_that_is_not_read_is_named(
    tmp_path: Path, form: Format, caplog: pytest.LogCaptureFixture
) -> None:
    form.open(tmp_path)
    (path,) = tmp_path.rglob("b.jpg")
    path.rename(path.with_suffix(".DNG"))
    with pytest.raises(DataError, match=r"b\.DNG: cannot read the image: \.DNG is not read; convert it"):
        form.reopen(tmp_path)
    assert summary(form.reopen(tmp_path, on_error="skip")) == [EXPECTED[0], *EXPECTED[2:]]
    assert "b.DNG" in caplog.text


@every_reader
def test_a_missing_split_or_root_is_answered_with_what_there_is(tmp_path: Path, form: Format) -> None:
    form.open(tmp_path)
    with pytest.raises(DataError, match=r"there is no split 'valley'; there is .*train"):
        form.dataset(splits=[{"root": str(tmp_path), "split": "valley"}], class_names=CLASSES)
    with pytest.raises(DataError, match="there is no such folder"):
        form.dataset(splits=[{"root": str(tmp_path / "nowhere"), "split": "train"}], class_names=CLASSES)


@every_reader
def test_two_roots_keep_their_images_apart(tmp_path: Path, form: Format) -> None:
    for name in ("one", "two"):
        form.open(tmp_path / name)
    splits = [{"root": str(tmp_path / name), "split": "train"} for name in ("one", "two")]

    dataset = form.dataset(splits=splits, class_names=CLASSES, **dict(form.settings))

    assert [record.image_id for record in dataset.annotations] == [
        f"{n}/{p.name}" for n in ("one", "two") for p in IMAGES
    ]


# What the writers leave

READERS = {"voc": open_voc, "coco": open_coco, "yolo": open_yolo, "csv": open_csv}


def write(form: str, root: Path, dataset: DetectionDataset) -> None:
    folder = root / FORMATS[form].image_folder.format(split="train")
    folder.mkdir(parents=True)
    placed = []
    for record in dataset.annotations:
        path = folder / record.image_path.name
        path.write_bytes(record.image_path.read_bytes())
        placed.append(replace(record, image_path=path))
    FORMATS[form].write(root, {"train": placed}, dataset.class_names)


@pytest.mark.parametrize(("source", "target"), zip(READERS, [*list(READERS)[1:], "voc"], strict=True))
def test_any_format_comes_back_from_any_other(tmp_path: Path, source: str, target: str) -> None:
    rng = np.random.default_rng(0)
    things = tuple(
        Thing("cat" if number % 2 else "dog", (*corner, *(corner + side)))
        for number, (corner, side) in enumerate(
            zip(rng.uniform(0, 1000, (50, 2)).round(3), rng.uniform(2, 300, (50, 2)).round(3), strict=True)
        )
    )
    whole = tuple(Thing("dog", tuple(np.round(thing.box))) for thing in things)  # type: ignore[arg-type]
    images = (*IMAGES, ImageSpec("e", (1333, 1501), things), ImageSpec("f", (1333, 1501), whole))
    before = ALL[source].open(tmp_path / "source", images)

    write(target, tmp_path / "target", before)
    middle = ALL[target].reopen(tmp_path / "target", class_names=None)
    write(source, tmp_path / "back", middle)
    after = ALL[source].reopen(tmp_path / "back", class_names=None)

    for dataset in (middle, after):
        assert dataset.class_names == CLASSES
        for old, new in zip(before.annotations, dataset.annotations, strict=True):
            assert (old.image_id, old.size_px, old.labels.tolist()) == (new.image_id, new.size_px, new.labels.tolist())
            np.testing.assert_allclose(old.boxes_xyxy_px, new.boxes_xyxy_px, rtol=0, atol=0.002)
            if {source, target} <= {"voc", "coco", "csv"}:
                assert old.difficult.tolist() == new.difficult.tolist()
        assert dataset.annotations[5].boxes_xyxy_px.tolist() == [list(thing.box) for thing in whole]


NAMES = ("no", "010", "08", "1e3", "null", "~", "a: b # c", "'\"\\", "Größe 猫🐦", "2001-01-01", "x" * 200 + " y")


def test_a_yaml_file_keeps_every_class_name(tmp_path: Path) -> None:
    dataset = ALL["voc"].open(tmp_path / "source")
    dataset.class_names = NAMES
    write("yolo", tmp_path / "yolo", dataset)
    assert ALL["yolo"].reopen(tmp_path / "yolo", class_names=None).class_names == NAMES
    text = (tmp_path / "yolo/data.yaml").read_text()
    assert tuple(yaml.safe_load(text)["names"]) == NAMES
    assert all(line.startswith('- "') for line in text.partition("names:\n")[2].splitlines())  # for other readers too


def test_an_independent_reading_of_what_is_written(tmp_path: Path) -> None:
    dataset = ALL["voc"].open(tmp_path / "source")
    for form in READERS:
        write(form, tmp_path / form, dataset)

    content = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    files = {image["id"]: image["file_name"] for image in content["images"]}
    from_coco = {
        (
            files[e["image_id"]],
            names[e["category_id"]],
            *e["bbox"][:2],
            e["bbox"][0] + e["bbox"][2],
            e["bbox"][1] + e["bbox"][3],
        )
        for e in content["annotations"]
    }
    with (tmp_path / "csv/train.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["label"]]
    from_csv = {
        (row["image"], row["label"], *(float(row[edge]) for edge in ("xmin", "ymin", "xmax", "ymax"))) for row in rows
    }
    expected = {(f"{p.name}.jpg", thing.name, *thing.box) for p in IMAGES for thing in p.things}
    assert from_coco == from_csv == expected
    assert (
        [e["difficult"] for e in content["annotations"]] == [int(row["difficult"]) for row in rows] == [0, 0, 1, 0, 0]
    )
    lines = (tmp_path / "yolo/labels/train/a.txt").read_text().splitlines()
    np.testing.assert_allclose([float(text) for text in lines[0].split()], [1, 0.275, 0.5, 0.45, 0.6], atol=1e-9)
    assert (tmp_path / "yolo/labels/train/c.txt").read_text() == ""
    xml = (tmp_path / "voc/Annotations/a.xml").read_text()
    assert "<xmin>11</xmin><ymin>21</ymin><xmax>101</xmax><ymax>81</ymax>" in xml
    assert "<xmin>1</xmin><ymin>1</ymin><xmax>30.5</xmax><ymax>41.25</ymax>" in xml
