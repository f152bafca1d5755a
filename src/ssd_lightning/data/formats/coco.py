"""COCO's object annotations: one JSON file of a split, and a folder of its images."""

import json
import logging
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ssd_lightning.data.annotation_checks import flag_of, id_of, number_of, stated_size_px
from ssd_lightning.data.annotations import Annotations
from ssd_lightning.data.formats.builder import TableBuilder
from ssd_lightning.data.formats.files import (
    FileError,
    ImageFinder,
    find_file,
    find_image_dir,
    read_json,
    unique_image_id,
)
from ssd_lightning.errors import DataError

log = logging.getLogger(__name__)

FLAGS = frozenset({"iscrowd", "difficult"})
BOX = ("x", "y", "w", "h")
ANNOTATION_FILES = (
    "annotations/instances_{split}.json",
    "annotations/{split}.json",
    "{split}/_annotations.coco.json",
    "{split}/annotations.json",
    "{split}.json",
)


@dataclass(frozen=True, kw_only=True)
class COCO:
    """Reads COCO annotations.

    A split is the name in `annotations/instances_NAME.json` (or another entry of `ANNOTATION_FILES`), or the path of
    the JSON file below the root. Crowds (`iscrowd`) count as difficult: the metric ignores them. So does an object with
    `difficult`, a key that is not COCO's own. An object with an outline alone has its bounding box.

    Args:
        images: folder of the images below the root; None searches the usual folders.
    """

    images: str | None = None

    def read(self, root: Path, split: str) -> Annotations:
        """Read a split.

        Raises:
            DataError: there is no such split, or it cannot be read.
        """
        path = find_file(root, split, ANNOTATION_FILES, ".json")
        content = _parse(path)
        categories = _entries(path, content, "categories", needed=("id", "name"))
        categories.sort(key=lambda category: (isinstance(category["id"], str), category["id"]))
        annotations = _entries(path, content, "annotations", needed=("image_id", "category_id"))
        categories = _without_unused_root(path, categories, {entry["category_id"] for entry in annotations})
        names = [str(category["name"]) for category in categories]
        if len(set(names)) < len(names):
            raise DataError(f"{path}: two of the {len(names)} 'categories' have the same name ({', '.join(names)})")
        builder = TableBuilder(
            class_names=names, is_listed=True, box_format="xywh", item_format="annotation {item} '{name}' of {image}"
        )
        listed = _entries(path, content, "images", needed=("id", "file_name"))
        if len({entry["id"] for entry in listed}) < len(listed):
            raise DataError(f"{path}: two of the {len(listed)} 'images' have the same id")
        file_names = [str(entry["file_name"]) for entry in listed]
        image_dir = find_image_dir(root, path, self.images, samples=file_names[:10])
        finder = ImageFinder(image_dir, file_names, root=root, stated_by=path)
        seen: set[str] = set()
        images: dict[Any, int | None] = {}
        for entry, file_name in zip(listed, file_names, strict=True):
            image_id = unique_image_id(file_name, seen)
            try:
                found = finder(file_name)
            except FileError as error:
                builder.fail_image(error, image_id=image_id)
                images[entry["id"]] = None
            else:
                size_px = stated_size_px(entry.get("height"), entry.get("width"))
                images[entry["id"]] = builder.add_image(image_id=image_id, path=found, size_px=size_px, file=path)
        names_of = {category["id"]: name for category, name in zip(categories, names, strict=True)}
        _add_objects(builder, path, annotations, images, names_of)
        builder.sources += [str(path), *finder.folders]
        return builder.finish(roots=[root])

    def files(self, root: Path, split: str) -> Iterable[str]:
        """Return the JSON file of a split. Raises `DataError` if there is no such split."""
        return [str(find_file(root, split, ANNOTATION_FILES, ".json"))]


def _add_objects(
    builder: TableBuilder,
    path: Path,
    annotations: Sequence[dict[str, Any]],
    images: Mapping[Any, int | None],
    names: Mapping[Any, str],
) -> None:
    is_plain, num_outlines = _are_plain(annotations), 0
    boxes: list[list[float]] = []
    image_column, label_column, items, difficult_column = array("q"), array("q"), array("q"), array("b")
    labels = {category: builder.label(name) for category, name in names.items()}
    for number, entry in enumerate(annotations, start=1):
        image = images.get(entry["image_id"], -1)
        if image is None:
            continue  # an image that cannot be used
        if image < 0:
            text = f"annotation {entry.get('id')} has image_id {entry['image_id']!r}, which is not in 'images'"
            builder.fail_file(path, text)
            continue
        category, bbox, item = entry["category_id"], entry.get("bbox"), entry.get("id", number)
        name = names.get(category, str(category))
        label = labels.get(category) or builder.label(name)
        difficult = False
        try:
            for key in FLAGS.intersection(entry):
                flag = entry[key]
                difficult |= bool(flag) if type(flag) is int and flag in (0, 1) else flag_of(flag, key)
            if not (is_plain and type(bbox) is list and len(bbox) == 4):
                num_outlines += not bbox and bool(entry.get("segmentation"))
                bbox = _read_box(entry)
        except DataError as error:
            builder.fail_object(image, name=name, item=item, text=str(error), difficult=bool(difficult))
            continue
        boxes.append(bbox)
        image_column.append(image)
        label_column.append(label)
        difficult_column.append(bool(difficult))
        items.append(item if type(item) is int and abs(item) < 2**63 else number)
    if num_outlines:
        builder.notes.append(f"{path}: of {num_outlines} outlines without a box the bounding box is read")
    builder.add_objects(
        np.array(image_column, np.int64),
        labels=np.array(label_column, np.int64),
        numbers=np.array(boxes, np.float64).reshape(-1, 4),
        items=np.array(items, np.int64),
        difficult=np.array(difficult_column, bool),
    )


def _are_plain(annotations: Sequence[dict[str, Any]]) -> bool:
    """Tell whether all boxes are lists of finite numbers, which need no look at each."""
    boxes = [entry.get("bbox") for entry in annotations]
    if not all(type(box) is list and len(box) == 4 for box in boxes):
        return False
    numbers = list(chain.from_iterable(boxes))  # type: ignore[arg-type]
    return {int, float} >= set(map(type, numbers)) and bool(np.isfinite(np.array(numbers, np.float64)).all())


def _read_box(entry: Mapping[str, Any]) -> list[float]:
    """Read a box in an unusual notation, or the bounding box of the outline of an object that has no box.

    Raises:
        DataError: it has neither.
    """
    bbox = entry.get("bbox")
    if not bbox and entry.get("segmentation"):
        return _outline_box(entry["segmentation"])
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise DataError(f"has the bbox {bbox!r}, not four numbers")
    return [number_of(value, key) for value, key in zip(bbox, BOX, strict=True)]


def _outline_box(outline: Any) -> list[float]:
    if isinstance(outline, dict):
        return _mask_box(outline)
    rings = outline if isinstance(outline[0], list) else [outline]
    points = [number_of(number, "segmentation") for ring in rings for number in ring]
    if len(points) < 4 or len(points) % 2:
        raise DataError(f"has a segmentation of {len(points)} numbers, which are no points")
    xs, ys = points[0::2], points[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _mask_box(mask: Mapping[str, Any]) -> list[float]:
    """Return the bounding box of a run-length encoded mask."""
    from faster_coco_eval import mask as mask_api

    try:
        height, width = mask["size"]
        if isinstance(mask["counts"], list):
            mask = mask_api.frPyObjects(mask, height, width)
        return [float(number) for number in mask_api.toBbox([mask])[0]]
    except Exception as error:  # the decoder raises nearly any type
        raise DataError(f"has a segmentation that is no readable mask: {error or type(error).__name__}") from error


def _without_unused_root(path: Path, categories: list[dict[str, Any]], used: set[Any]) -> list[dict[str, Any]]:
    """Drop the category that Roboflow adds above all classes, often with the name of one of them."""
    for root in categories:
        others = [category for category in categories if category is not root]
        groups_all = others and all(other.get("supercategory") == root["name"] for other in others)
        if groups_all and root.get("supercategory") != root["name"] and root["id"] not in used:
            log.info(
                "%s: category %r '%s' is not a class: it has no objects and only groups the others",
                path,
                root["id"],
                root["name"],
            )
            return others
    return categories


def _parse(path: Path, *, with_outlines: bool = False) -> dict[str, Any]:
    content = read_json(path, edit=None if with_outlines else _without_outlines)
    if not isinstance(content, dict):
        raise DataError(f"{path}: the JSON is a {type(content).__name__}, not an object with images and annotations")
    found = content.get("annotations")
    entries = found if isinstance(found, list) and not with_outlines else []
    if any(isinstance(entry, dict) and not entry.get("bbox") for entry in entries):
        return _parse(path, with_outlines=True)  # an object may have an outline alone
    return content


def _without_outlines(content: bytes) -> bytes:
    """Empty the lists of all outlines: they are nine tenths of COCO's files, in time and memory."""
    key = b'"segmentation"'
    first, *pieces = content.split(key)
    for index, piece in enumerate(pieces):
        end = piece.find(b'"')
        end = piece.find(b"}", 0, end) if b"}" in piece[:end] else end
        start, last = piece.find(b"[", 0, end), piece.rfind(b"]", 0, end)
        if 0 <= start < last:
            pieces[index] = piece[: start + 1] + piece[last:]
    return key.join([first, *pieces])


def _entries(path: Path, content: dict[str, Any], key: str, needed: Sequence[str]) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DataError(f"{path}: the JSON has no list '{key}'; it has {', '.join(map(repr, content)) or 'nothing'}")
    for number, entry in enumerate(entries, start=1):
        for name in needed:
            value = entry.get(name) if isinstance(entry, dict) else None
            if name == "name" and name in entry:
                _check_category_name(path, entry)
            if type(value) is int and name != "name":
                continue  # nearly all
            if not isinstance(value, str | int | float):
                raise DataError(f"{path}: entry {number} of '{key}' has no '{name}'")
            if name.endswith("id"):
                value = entry[name] = id_of(value)
            if isinstance(value, float) and key != "annotations":  # annotations are checked one by one
                raise DataError(
                    f"{path}: entry {number} of '{key}' has the {name} {value}, which is not a whole number"
                )
    return entries


def _check_category_name(path: Path, category: dict[str, Any]) -> None:
    name = category["name"]
    is_number = isinstance(name, int) and not isinstance(name, bool)  # some tools use numbers as class names
    if not is_number and not (isinstance(name, str) and name.strip()):
        raise DataError(
            f"{path}: category {category.get('id')!r} has the name {json.dumps(name)}; names have to be text in "
            "quotes, and not empty"
        )
