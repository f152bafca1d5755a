"""Annotations from Python objects: for any data that no reader knows."""

import hashlib
import os
import pickle
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ssd_lightning.data.annotation_checks import box_numbers, stated_size_px
from ssd_lightning.data.formats.builder import TableBuilder
from ssd_lightning.data.formats.files import FileError, MissingSplitError, attempt
from ssd_lightning.data.formats.found import FoundImage, FoundObject, read_object
from ssd_lightning.data.split_annotations import Annotations
from ssd_lightning.errors import DataError

KEYS = {"image", "boxes", "labels", "difficult", "image_id", "size_px"}


class Records:
    """An annotation format whose splits are lists in memory.

    A record is a mapping with `image`, the path of the image; `boxes`, (xmin, ymin, xmax, ymax) of each object in
    pixels from 0; `labels`, the class names of the objects; and optionally `difficult`, a flag for each object,
    `image_id`, and `size_px`, (height, width) of the image.

    Args:
        splits: name of each split -> its records. Relative paths of images start at the root.

    Example:
        ```python
        records = [{"image": "a.jpg", "boxes": [[10, 20, 60, 80]], "labels": ["cat"]}]
        open_splits = DatasetOpener(format=Records(train=records))
        dataset = open_splits(splits=[{"root": "photos", "split": "train"}])
        ```
    """

    def __init__(self, **splits: Iterable[Mapping[str, Any]]) -> None:
        self._splits = {name: list(records) for name, records in splits.items()}

    def __repr__(self) -> str:
        """Return a text that changes with the records, since caches go by it."""
        content = hashlib.sha256(pickle.dumps(self._splits)).hexdigest()
        return f"{type(self).__name__}({', '.join(self._splits)}, content={content})"

    def read(self, root: Path, split: str) -> Annotations:
        """Read a split. Raises `DataError` if there is none of that name."""
        return annotations_from_records(self._records(root, split), root=root)

    def files(self, root: Path, split: str) -> Iterable[str]:
        """List the images of a split. Raises `DataError` if there is no such split."""
        return (str(root / str(record.get("image"))) for record in self._records(root, split))

    def _records(self, root: Path, split: str) -> list[Mapping[str, Any]]:
        if split not in self._splits:
            raise MissingSplitError(root, split, self._splits)
        return self._splits[split]


def annotations_from_records(records: Iterable[Mapping[str, Any]], *, root: Path = Path()) -> Annotations:
    """Check records, one for each image, and put them into a table; for their keys see `Records`.

    Relative paths of images start at the root. Raises `DataError` if a record has an unknown key.
    """
    builder = TableBuilder()
    for number, record in enumerate(records, start=1):
        file = f"record {number}"
        unknown = [key for key in record if key not in KEYS]
        if unknown:
            raise DataError(f"{file} has the key {unknown[0]!r}; the keys are {', '.join(sorted(KEYS))}")
        stated = record.get("image_id")
        image_id = builder.new_id(str(record.get("image", file))) if stated is None else str(stated)
        if stated is not None and image_id in builder.ids:
            builder.add_image(image_id, FileError(file, f"the image_id {image_id!r} is that of an earlier record"))
        else:
            builder.add_image(image_id, attempt(partial(_read_record, record, file, root)))
        builder.ids.add(image_id)
    return builder.finish(root)


def _read_record(record: Mapping[str, Any], file: str, root: Path) -> FoundImage:
    if "image" not in record:
        raise FileError(file, "the key 'image' is missing")
    path = root / str(record["image"])
    if not os.path.isfile(path):
        raise FileError(path, f"the image is missing (stated by {file})", kind="missing")
    boxes, labels = (_list_of(record, key, file) for key in ("boxes", "labels"))
    if len(boxes) == 4 and not any(map(_is_list, boxes)):
        raise FileError(file, f"'boxes' is {record['boxes']!r}, a single box and not a list of boxes")
    flags = _list_of(record, "difficult", file) if record.get("difficult") is not None else [False] * len(boxes)
    if not len(boxes) == len(labels) == len(flags):
        text = f"there are {len(boxes)} boxes, {len(labels)} labels and {len(flags)} flags 'difficult'"
        raise FileError(file, text)
    size_px, sides = None, record.get("size_px")
    if sides is not None:
        size_px = stated_size_px(*sides) if len([*sides]) == 2 else None
        if size_px is None:
            raise FileError(file, f"size_px is {sides!r}, not (height, width)")
    objects = [_read_object(item, *found) for item, found in enumerate(zip(boxes, labels, flags, strict=True), start=1)]
    return FoundImage(path, size_px, file, objects)


def _list_of(record: Mapping[str, Any], key: str, file: str) -> list[Any]:
    value = record.get(key)
    if value is None:
        return []
    if not _is_list(value):
        raise FileError(file, f"{key!r} is {value!r}, not a list with an entry for each object")
    return [*value]


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str) and getattr(value, "ndim", 1) > 0


def _read_object(item: int, box: Any, label: Any, flag: Any) -> FoundObject:
    if not isinstance(label, str):
        return FoundObject(str(label), f"has the label {label!r}, which is not a class name", item)
    corners = [*box] if isinstance(box, Iterable) else box
    return read_object(label, item, lambda: (box_numbers(corners), False), flags=[("difficult", flag)])
