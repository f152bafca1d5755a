"""Small data sets in four formats, whole or with one fault of each kind planted, and where each fault is."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from helpers import annotation_tools
from helpers.annotation_tools import Box, Spec, coco_json, put, rows_of, voc_xml, write_rows, yolo_text

CLASSES = ("cat", "dog", "bird")
SIZE_PX = (120, 160)
CORNERS = tuple((x, y) for x in (10.0, 50.0, 90.0) for y in (7.5, 37.5, 67.5))
SIDES = (40.0, 30.0)


@dataclass(frozen=True)
class Thing:
    name: str
    box: Box
    """xyxy in pixels that count from 0."""
    written: Box | None = None
    """The numbers as they are written, where the box is not in the format's unit."""

    def of_form(self, form: str) -> annotation_tools.Thing:
        """Return the thing with the box in pixels that the format writes as the numbers."""
        if self.written is None:
            return annotation_tools.Thing(self.name, self.box)
        (a, b, c, d), (height, width) = self.written, SIZE_PX
        boxes = {
            "voc": (a - 1, b - 1, c - 1, d - 1),
            "coco": (a, b, a + c, b + d),
            "csv": self.written,
            "yolo": ((a - c / 2) * width, (b - d / 2) * height, (a + c / 2) * width, (b + d / 2) * height),
        }
        return annotation_tools.Thing(self.name, boxes[form])


SOUND = tuple(Thing(CLASSES[i % 3], (x, y, x + SIDES[0], y + SIDES[1])) for i, (x, y) in enumerate(CORNERS))


@dataclass(frozen=True)
class ImageSpec:
    name: str
    split: str = "train"
    things: tuple[Thing, ...] = SOUND
    pixels: str | None = None
    """Name of the image whose pixels it has; None for its own."""
    stated_size_px: tuple[int, int] = SIZE_PX
    file: str = "whole"
    """`whole`, `truncated`, `text` or `missing`."""
    has_broken_annotation: bool = False
    times_listed: int = 1
    """How often the list of its split names it; YOLO's folders cannot."""

    def spec(self, form: str) -> Spec:
        return Spec(f"{self.name}.jpg", self.stated_size_px, tuple(thing.of_form(form) for thing in self.things))


CLEAN = tuple(ImageSpec(f"{split}{i}", split) for split, count in (("train", 6), ("test", 3)) for i in range(count))


def with_thing(name: str, thing: Thing) -> ImageSpec:
    return ImageSpec(name, things=(*SOUND, thing))


def planted(form: str) -> tuple[tuple[ImageSpec, ...], set[tuple[str, str, str]]]:
    """A data set with every fault that a format can have, and (kind, split, part of the sentence) of each."""
    in_fractions = form == "yolo"
    wrong_unit = (40.0, 30.0, 30.0, 20.0) if in_fractions else (0.25, 0.25, 0.5, 0.75)
    boxes: dict[str, Thing] = {
        "inverted": Thing("dog", (60, 20, 30, 50)),
        "outside": Thing("dog", (100, 20, 300, 60)),
        "no_area": Thing("dog", (50, 20, 50, 60)),
        "tiny": Thing("dog", (20, 20, 23, 60)),
        "pixels" if in_fractions else "fractions": Thing("dog", (0, 0, 1, 1), written=wrong_unit),
        "unknown_class": Thing("dgo", (20, 20, 60, 60)),
    }
    images = [with_thing(f"bad_{kind}", thing) for kind, thing in boxes.items()]
    expected = {(kind, "train", f"bad_{kind}") for kind in boxes}
    images += [
        ImageSpec("torn", file="truncated"),
        ImageSpec("prose", file="text"),
        ImageSpec("gone", file="missing"),
        ImageSpec("twin", pixels="train0"),
        ImageSpec("leak", "test", pixels="train1"),
        ImageSpec("broken", has_broken_annotation=True),
    ]
    expected |= {
        ("image", "train", "torn"),
        ("image", "train", "prose"),
        ("missing", "train", "gone"),
        ("within", "train", "twin"),
        ("across", "train, test", "leak"),
        ("annotation", "train", "broken" if form != "coco" else "has image_id 'nowhere', which is not in 'images'"),
        ("unused_class", "train", "'Dogs'"),
        ("similar_classes", "train", "'Dogs'"),
    }
    if not in_fractions:  # YOLO states no size, and its folders name nothing twice
        # Boxes lie outside the second, and are tiny in the third; in the image they are neither.
        for name, stated_size_px in (("resized", (240, 320)), ("shrunk", (60, 80)), ("swollen", (1200, 1600))):
            images.append(ImageSpec(name, stated_size_px=stated_size_px))
            expected.add(("image_size", "train", name))
        images.append(ImageSpec("again", times_listed=2))
        expected.add(("repeated", "train", "again"))
    return (*CLEAN, *images), expected


def write(form: str, root: Path, images: Sequence[ImageSpec], class_names: Sequence[str] = CLASSES) -> None:
    """Write images and annotation of one format. `test` and `train` are the splits."""
    for split in ("train", "test"):
        of_split = [image for image in images if image.split == split]
        folder = root / IMAGE_FOLDERS[form].format(split=split)
        folder.mkdir(parents=True, exist_ok=True)
        for image in of_split:
            _paint(folder / f"{image.name}.jpg", image)
        WRITERS[form](root, split, of_split, class_names)


def _paint(path: Path, image: ImageSpec) -> None:
    if image.file == "missing":
        return
    if image.file == "text":
        path.write_text("this was an image once")
        return
    name = image.pixels or image.name
    rng = np.random.default_rng(list(name.encode()))
    pixels = rng.integers(0, 256, (*SIZE_PX, 3), dtype=np.uint8)
    # A double has other metadata, so that the files differ.
    Image.fromarray(pixels).save(path, quality=90, comment=image.name.encode())
    if image.file == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _write_voc(
    root: Path, split: str, images: Sequence[ImageSpec], class_names: Sequence[str], offset: int = 1
) -> None:
    put(root / f"ImageSets/Main/{split}.txt", "".join(f"{image.name}\n" * image.times_listed for image in images))
    for image in images:
        xml = voc_xml(image.spec("voc"), offset)
        put(root / f"Annotations/{image.name}.xml", xml[:-30] if image.has_broken_annotation else xml)


def _write_coco(root: Path, split: str, images: Sequence[ImageSpec], class_names: Sequence[str]) -> None:
    listed = [image.spec("coco") for image in images for _ in range(image.times_listed)]
    content = json.loads(coco_json(listed, {name: number for number, name in enumerate(class_names, start=1)}))
    broken = {"image_id": "nowhere", "category_id": 1, "bbox": [1, 2, 3, 4]}
    content["annotations"] += [broken for image in images if image.has_broken_annotation]
    put(root / f"annotations/instances_{split}.json", json.dumps(content))


def _write_yolo(root: Path, split: str, images: Sequence[ImageSpec], class_names: Sequence[str]) -> None:
    for image in images:
        broken = "0 .1 .1 .2\n" * image.has_broken_annotation
        put(root / f"labels/{split}/{image.name}.txt", yolo_text(image.spec("yolo"), class_names) + broken)
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(class_names))
    put(root / "data.yaml", f"train: images/train\ntest: images/test\nnames:\n{names}")


def _write_csv(root: Path, split: str, images: Sequence[ImageSpec], class_names: Sequence[str]) -> None:
    rows = []
    for image in images:
        for suffix in (".jpg", "")[: image.times_listed]:
            start = [f"{image.name}{suffix}", *image.stated_size_px[::-1]]
            rows += rows_of([image.spec("csv")], 5, lambda _, thing: [thing.name, *thing.box], lambda _, of=start: of)
        if image.has_broken_annotation:
            rows.append([*start, "broken", 1, 2, "three", 4])
    write_rows(root / f"{split}.csv", ["image", "width", "height", "label", "xmin", "ymin", "xmax", "ymax"], *rows)


IMAGE_FOLDERS = {"voc": "JPEGImages", "coco": "{split}", "yolo": "images/{split}", "csv": "{split}"}

WRITERS = {"voc": _write_voc, "coco": _write_coco, "yolo": _write_yolo, "csv": _write_csv}


def write_voc_from(offset: int, root: Path) -> None:
    """A VOC data set whose tool counts pixels from `offset`, with boxes at the left edge."""
    at_edge = Thing("dog", (0, 37.5, 30, 67.5))
    images = [replace(image, things=(*SOUND[3:], at_edge)) for image in CLEAN]
    write("voc", root, images)
    for split in ("train", "test"):
        _write_voc(root, split, [image for image in images if image.split == split], CLASSES, offset)
