"""COCO's object annotations: one JSON file of a split, and a folder of its images."""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ssd_lightning.data.annotation_checks import BoxNotation, box_numbers, id_of, number_of, stated_size_px
from ssd_lightning.data.formats.builder import TableBuilder
from ssd_lightning.data.formats.files import read_bytes, read_json
from ssd_lightning.data.formats.found import read_object
from ssd_lightning.data.formats.image_files import ImageFinder
from ssd_lightning.data.formats.shapes import bounds
from ssd_lightning.data.formats.single_file import SingleFileFormat
from ssd_lightning.data.split_annotations import Annotations
from ssd_lightning.errors import DataError

log = logging.getLogger(__name__)

CORNERS_ADVICE = "write width and height in place of xmax and ymax, or correct the box if these are sizes"
OUTLINE = re.compile(rb'("segmentation"\s*:\s*\[)[][\s\d.,eE+-]*(])')
"""An outline, which is lists of numbers."""


@dataclass(frozen=True, kw_only=True)
class COCO(SingleFileFormat):
    """Reads COCO annotations.

    A split is the name in `annotations/instances_NAME.json` (or another entry of `locations`), or the path of the JSON
    file below the root. Crowds (`iscrowd`) count as difficult: the metric ignores them. So does an object with
    `difficult`, a key that is not COCO's own. An object with an outline alone has its bounding box.
    """

    choice = "coco_folder"
    locations = (
        "annotations/instances_{split}.json",
        "annotations/{split}.json",
        "{split}/_annotations.coco.json",
        "{split}/annotations.json",
        "{split}/labels.json",
        "{split}.json",
    )

    def read(self, root: Path, split: str) -> Annotations:
        """Read a split. Raises `DataError` if there is no such split, or it cannot be read."""
        path = self.path(root, split)
        content = _parse(path)
        annotations = _entries(path, content, "annotations", needed=("image_id", "category_id"))
        names = _class_names(path, content, used={entry["category_id"] for entry in annotations})
        builder = TableBuilder(
            class_names=list(names.values()),
            is_listed=True,
            notation=BoxNotation(box_format="xywh"),
            item_format="annotation {item} '{name}' of {image}",
            corners_advice=CORNERS_ADVICE,
        )
        _name_files(content)
        listed = _entries(path, content, "images", needed=("id", "file_name"))
        if len({entry["id"] for entry in listed}) < len(listed):
            raise DataError(f"{path}: two of the {len(listed)} 'images' have the same id")
        file_names = [str(entry["file_name"]) for entry in listed]
        finder = ImageFinder(self.image_dir(root, path, file_names[:10]), file_names, root=root, stated_by=path)
        images: dict[Any, int | None] = {}
        for entry, name in zip(listed, file_names, strict=True):
            size_px = stated_size_px(entry.get("height"), entry.get("width"))
            images[entry["id"]] = builder.add_named_image(name, partial(finder, name), size_px=size_px, file=path)
        _add_objects(builder, path, annotations, images, names)
        builder.sources += [str(path), *finder.folders]
        return builder.finish(root)


def _add_objects(
    builder: TableBuilder,
    path: Path,
    annotations: Sequence[dict[str, Any]],
    images: Mapping[Any, int | None],
    names: Mapping[Any, str],
) -> None:
    for number, entry in enumerate(annotations, start=1):
        image = images.get(entry["image_id"], -1)
        if image is None:
            continue  # an image that cannot be used
        if image < 0:
            text = f"annotation {entry.get('id')} has image_id {entry['image_id']!r}, which is not in 'images'"
            builder.fail_file(path, text)
            continue
        category, item = entry["category_id"], entry.get("id", number)
        flags = [(key, entry[key]) for key in ("iscrowd", "difficult") if key in entry]
        read_box = partial(_read_box, entry.get("bbox"), entry.get("segmentation"))
        found = read_object(names.get(category, str(category)), item, read_box, flags=flags)
        if type(item) is not int or abs(item) >= 2**63:  # a table has whole numbers alone, a message has any
            found = found if isinstance(found.numbers, str) else found._replace(item=number)
        builder.add_object(image, found)


def _read_box(bbox: Any, outline: Any) -> tuple[list[float], bool]:
    """Return x, y, w, h of the box, or else of the outline; True says that it is the latter."""
    if _is_unset(bbox) and outline:
        return _mask_box(outline) if isinstance(outline, dict) else _outline_box(outline), True
    return box_numbers(bbox, "xywh"), False


def _is_unset(bbox: Any) -> bool:
    return not bbox or bbox == [0, 0, 0, 0]


def _outline_box(outline: Any) -> list[float]:
    if not isinstance(outline, list):
        raise DataError(f"has a segmentation that is neither points nor a mask: {outline!r:.80}")
    rings = outline if isinstance(outline[0], list) else [outline]
    points = [number_of(number, "segmentation") for ring in rings for number in ring]
    if len(points) < 4 or len(points) % 2:
        raise DataError(f"has a segmentation of {len(points)} numbers, which are no points")
    left, top, right, bottom = bounds(points[0::2], points[1::2])
    return [left, top, right - left, bottom - top]


def _mask_box(mask: Mapping[str, Any]) -> list[float]:
    from faster_coco_eval import mask as mask_api

    try:
        height, width = mask["size"]
        if isinstance(mask["counts"], list):
            mask = mask_api.frPyObjects(mask, height, width)
        return [float(number) for number in mask_api.toBbox([mask])[0]]
    except Exception as error:  # the decoder raises nearly any type
        raise DataError(f"has a segmentation that is no readable mask: {error or type(error).__name__}") from error


def _class_names(path: Path, content: dict[str, Any], used: set[Any]) -> dict[Any, str]:
    categories = _entries(path, content, "categories", needed=("id", "name"))
    for category in categories:
        name = category["name"]  # some tools use whole numbers
        if isinstance(name, bool) or not str(name).strip():
            text = f"category {category['id']!r} has the name {json.dumps(name)}"
            raise DataError(f"{path}: {text}; names have to be text in quotes, and not empty")
    categories.sort(key=lambda category: (isinstance(category["id"], str), category["id"]))
    categories = _without_unused_root(path, categories, used)
    ids, names = ([category[key] for category in categories] for key in ("id", "name"))
    for key, values in (("id", ids), ("name", names)):
        if len(set(values)) < len(values):
            shown = ", ".join(map(str, values))
            raise DataError(f"{path}: two of the {len(values)} 'categories' have the same {key} ({shown})")
    return dict(zip(ids, map(str, names), strict=True))


def _without_unused_root(path: Path, categories: list[dict[str, Any]], used: set[Any]) -> list[dict[str, Any]]:
    """Drop the category that Roboflow adds above all classes, often with the name of one of them."""
    for root in categories:
        others = [category for category in categories if category is not root]
        groups_all = others and all(other.get("supercategory") == root["name"] for other in others)
        if groups_all and root.get("supercategory") != root["name"] and root["id"] not in used:
            what = "is not a class: it has no objects and only groups the others"
            log.info("%s: category %r '%s' %s", path, root["id"], root["name"], what)
            return others
    return categories


def _parse(path: Path) -> dict[str, Any]:
    """Read the file without its outlines, which are nine tenths of it in time and memory, unless one is needed."""
    try:
        content = json.loads(OUTLINE.sub(rb"\1\2", read_bytes(path)))
        has_boxes = not any(_is_unset(entry.get("bbox")) for entry in content["annotations"])
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        has_boxes = False  # what is wrong is found below
    if not has_boxes:
        content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: the JSON is a {type(content).__name__}, not an object with images and annotations")
    return content


def _name_files(content: Mapping[str, Any]) -> None:
    """Name images by their address where there is no file name: LVIS has `coco_url` alone."""
    listed = content.get("images")
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict) and "file_name" not in entry and isinstance(url := entry.get("coco_url"), str):
            entry["file_name"] = "/".join(url.rsplit("/", 2)[-2:])


def _entries(path: Path, content: dict[str, Any], key: str, needed: Sequence[str]) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DataError(f"{path}: the JSON has no list '{key}'; it has {', '.join(map(repr, content)) or 'nothing'}")
    for number, entry in enumerate(entries, start=1):
        for name in needed:
            value = entry.get(name) if isinstance(entry, dict) else None
            if type(value) is int:
                continue  # nearly all
            if not isinstance(value, str | int | float):
                raise DataError(f"{path}: entry {number} of '{key}' has no '{name}'")
            if name.endswith("id"):
                value = entry[name] = id_of(value)
            if isinstance(value, float) and key != "annotations":  # annotations are checked one by one
                text = f"entry {number} of '{key}' has the {name} {value}, which is not a whole number"
                raise DataError(f"{path}: {text}")
    return entries
