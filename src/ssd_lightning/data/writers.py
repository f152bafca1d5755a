"""Write annotations to files, with one writer per format. The reader of each format restores them.

Writers do not handle images: a record's `image_path` tells where its image is or will be.
"""

import csv
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import yaml

from ssd_lightning.data.annotations import ImageAnnotation
from ssd_lightning.data.image_suffixes import IMAGE_SUFFIXES
from ssd_lightning.errors import DataError

log = logging.getLogger(__name__)

DECIMALS = 4
"""In pixels: the finest step of float32 in an image of a thousand pixels."""
FRACTION_DECIMALS = 10
"""As a fraction: a millionth of a pixel in the largest images, so that whole pixels are read back exactly."""

ULTRALYTICS_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp")
"""The supported image suffixes that ultralytics reads; it ignores all others."""

Write = Callable[[Path, Mapping[str, Sequence[ImageAnnotation]], Sequence[str]], None]
"""Arguments: the existing root; split -> records; names of the classes 1..C."""


@dataclass(frozen=True)
class Format:
    """How to write a data set of one format."""

    image_folder: str
    """Image folder of a split below the root."""
    write: Write
    keeps_difficult: bool = True
    states_size: bool = True
    keeps_class_order: bool = True
    """Whether the files list the classes. Otherwise readers sort the names that occur."""
    unwritable_class: str = r"[\ud800-\udfff]"
    """Regular expression of characters that a class name must not contain; UTF-8 has no lone surrogates."""
    image_suffixes: tuple[str, ...] = IMAGE_SUFFIXES
    """Suffixes that readers of the format accept as images."""


def write_coco(root: Path, splits: Mapping[str, Sequence[ImageAnnotation]], class_names: Sequence[str]) -> None:
    """Write `annotations/instances_SPLIT.json`; difficult is an extra key next to `iscrowd`."""
    (root / "annotations").mkdir(exist_ok=True)
    categories = [{"id": label, "name": name, "supercategory": ""} for label, name in enumerate(class_names, start=1)]
    for split, records in splits.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for image_id, record in enumerate(records, start=1):
            height, width = record.size_px
            images.append({"id": image_id, "file_name": record.image_path.name, "width": width, "height": height})
            for (x1, y1, x2, y2), label, difficult in _objects(record):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": label,
                        "bbox": [round(number, DECIMALS) for number in (x1, y1, x2 - x1, y2 - y1)],
                        "area": round((x2 - x1) * (y2 - y1), DECIMALS),
                        "segmentation": [],
                        "iscrowd": 0,
                        "difficult": int(difficult),
                    }
                )
        content = {"images": images, "annotations": annotations, "categories": categories}
        path = root / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def write_yolo(root: Path, splits: Mapping[str, Sequence[ImageAnnotation]], class_names: Sequence[str]) -> None:
    """Write `data.yaml` and `labels/SPLIT/*.txt`; classes count from 0, and difficult is lost."""
    for split, records in splits.items():
        folder = root / "labels" / split
        folder.mkdir(parents=True)
        for record in records:
            lines = [_yolo_line(label - 1, box, record.size_px) for box, label, _ in _objects(record)]
            (folder / f"{record.image_path.stem}.txt").write_text("".join(lines))
    (root / "data.yaml").write_text(_yolo_settings(tuple(splits), class_names), encoding="utf-8")


def _yolo_settings(splits: Sequence[str], class_names: Sequence[str]) -> str:
    # Ultralytics resolves a relative `path` in its own folder; without `path` it uses the folder of data.yaml. It
    # rejects a file without train and val.
    lines = []
    for key, stand_ins in {"train": ("val", "test"), "val": ("test", "train"), "test": ()}.items():
        split = next((split for split in (key, *stand_ins) if split in splits), None)
        if split is None:
            continue
        if split != key:
            sentence = (
                f"there is no {key} split: {key} is the {split} split, since ultralytics refuses a file without it"
            )
            log.warning("data.yaml: %s", sentence)
            lines.append(f"# {sentence}")
        lines.append(f"{key}: images/{split}")
    # With quotes, names such as no and 010 stay text in all versions of YAML.
    names = yaml.safe_dump(list(class_names), default_style='"', allow_unicode=True, width=float("inf"))
    return "\n".join([*lines, f"nc: {len(class_names)}", "names:", names])


def write_csv(root: Path, splits: Mapping[str, Sequence[ImageAnnotation]], class_names: Sequence[str]) -> None:
    """Write `SPLIT.csv` in pixels, with the images' sizes; an image without objects has a row without class."""
    for split, records in splits.items():
        with (root / f"{split}.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["image", "width", "height", "label", "xmin", "ymin", "xmax", "ymax", "difficult"])
            for record in records:
                height, width = record.size_px
                image = [record.image_path.name, width, height]
                if not len(record.labels):
                    writer.writerow([*image, *[""] * 6])
                for box, label, difficult in _objects(record):
                    writer.writerow([*image, class_names[label - 1], *map(_pixels, box), int(difficult)])


def write_voc(root: Path, splits: Mapping[str, Sequence[ImageAnnotation]], class_names: Sequence[str]) -> None:
    """Write `Annotations/*.xml` and `ImageSets/Main/SPLIT.txt`; pixels count from 1, as readers expect."""
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, records in splits.items():
        names = [record.image_path.stem for record in records]
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), "utf-8")
        for name, record in zip(names, records, strict=True):
            (root / "Annotations" / f"{name}.xml").write_text(_voc_xml(record, class_names), encoding="utf-8")


FORMATS: Mapping[str, Format] = {
    "coco": Format(image_folder="{split}", write=write_coco),
    "csv": Format(
        image_folder="{split}",
        write=write_csv,
        keeps_class_order=False,
        # Tables of numbers write 1 as 1.0, and a missing class as in `csv_rows.NO_LABEL`.
        unwritable_class=r"[\0\ud800-\udfff]|^-?\d+\.0$|^(?i:nan|<na>)$",
    ),
    "voc": Format(
        image_folder="JPEGImages",
        write=write_voc,
        keeps_class_order=False,
        unwritable_class=r"[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]",  # not in XML, which also turns \r into \n
    ),
    "yolo": Format(
        image_folder="images/{split}",
        write=write_yolo,
        keeps_difficult=False,
        states_size=False,
        image_suffixes=ULTRALYTICS_SUFFIXES,
    ),
}


def written_class_names(class_names: Sequence[str], to: str) -> tuple[str, ...]:
    """Return the class names as written in one of `FORMATS`: without surrounding blanks, which most readers drop.

    Raises `DataError` if a name has characters that the format cannot store, is empty, or two become equal.
    """
    owners: dict[str, str] = {}
    for name in class_names:
        written = name.strip()
        if not written or re.search(FORMATS[to].unwritable_class, written):
            why = "it has a character or form that does not read back" if written else "it is empty"
            raise DataError(f"class {name!r} cannot be written as {to}: {why}; rename it")
        if written in owners:
            raise DataError(
                f"the classes {owners[written]!r} and {name!r} become one, since names are written without the blanks "
                "around them; rename one"
            )
        owners[written] = name
    return tuple(owners)


def _objects(record: ImageAnnotation) -> Iterator[tuple[list[float], int, bool]]:
    return zip(record.boxes_xyxy_px.tolist(), record.labels.tolist(), record.difficult.tolist(), strict=True)


def _pixels(number: float) -> str:
    return f"{number:.{DECIMALS}f}".rstrip("0").rstrip(".")


def _yolo_line(number: int, box_xyxy_px: Sequence[float], size_px: tuple[int, int]) -> str:
    (x1, y1, x2, y2), (height, width) = box_xyxy_px, size_px
    fractions = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return f"{number} {' '.join(f'{fraction:.{FRACTION_DECIMALS}f}' for fraction in fractions)}\n"


def _voc_xml(record: ImageAnnotation, class_names: Sequence[str]) -> str:
    height, width = record.size_px
    objects = [
        f"  <object>\n    <name>{escape(class_names[label - 1])}</name>\n    <difficult>{difficult:d}</difficult>\n"
        f"    <bndbox>{_voc_corners(box)}</bndbox>\n  </object>\n"
        for box, label, difficult in _objects(record)
    ]
    return (
        f"<annotation>\n  <filename>{escape(record.image_path.name)}</filename>\n"
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
        f"{''.join(objects)}</annotation>\n"
    )


def _voc_corners(box_xyxy_px: Sequence[float]) -> str:
    edges = zip(("xmin", "ymin", "xmax", "ymax"), box_xyxy_px, strict=True)
    return "".join(f"<{tag}>{_pixels(edge + 1)}</{tag}>" for tag, edge in edges)
