"""COCO's object annotations: one JSON file of a split, and a folder of its images."""

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ssd_lightning.data.annotation import (
    Objects,
    check_class_names,
    checked_box,
    flag_of,
    id_of,
    label_of,
    number_classes,
    number_of,
    refuse_fractions,
    whole_number,
)
from ssd_lightning.data.dataset import ImageAnnotation, OnError, Subset, Transform
from ssd_lightning.data.images import image_size_px
from ssd_lightning.data.split_dataset import ReadImage, SplitDataset
from ssd_lightning.data.splits import (
    absolute_roots,
    find_file,
    find_image_dir,
    open_splits,
    parts_to_keep,
    require_image,
    unique_image_id,
)
from ssd_lightning.errors import DataError

log = logging.getLogger(__name__)

ANNOTATION_FILES = (
    "annotations/instances_{split}.json",
    "annotations/{split}.json",
    "{split}/_annotations.coco.json",
    "{split}/annotations.json",
    "{split}.json",
)


class COCODataset(SplitDataset):
    """Images with COCO annotations, from one or more splits.

    Crowds (`iscrowd`) count as difficult: the metric ignores them. So does an object with `difficult`, a key
    that is not COCO's own.

    Args:
        splits: each a `root` and a `split`: the name in `annotations/instances_NAME.json` (or another entry of
            `ANNOTATION_FILES`), or the path of the JSON file below the root.
        images: folder of the images below the root; None searches the usual folders.
        class_names: names of the classes 1..C; None takes all categories in the order of their ids.
        keep_difficult: False drops crowds and difficult objects.
        on_error: `raise` stops at the first bad object or image; `skip` drops and lists them.
        transform, seed, part, val_fraction, max_images: see `SplitDataset`.

    Raises:
        DataError: a root, split, image or annotation is missing or unusable; class names are empty or
            repeated; no image is left.
    """

    def __init__(
        self,
        *,
        splits: Sequence[Mapping[str, str]],
        images: str | None = None,
        class_names: Sequence[str] | None = None,
        transform: Transform | None = None,
        seed: int = 0,
        keep_difficult: bool = True,
        on_error: OnError = "raise",
        part: Subset = "all",
        val_fraction: float = 0.0,
        max_images: int | None = None,
    ) -> None:
        files = [_read_file(*opened, images) for opened in open_splits(splits)]
        if class_names is None:
            class_names = list(dict.fromkeys(name for file in files for name in file.category_names.values()))
        check_class_names(class_names)
        labels = number_classes(class_names)
        super().__init__(
            roots=absolute_roots(splits),
            images=(image for file in files for image in _images(file, labels, keep_difficult)),
            problems=[problem for file in files for problem in file.problems],
            class_names=class_names,
            transform=transform,
            seed=seed,
            on_error=on_error,
            part=part,
            val_fraction=val_fraction,
            max_images=max_images,
        )

    @staticmethod
    def split_sources(root: Path, split: str) -> Iterable[str]:
        """Return the JSON file of a split. Raises `DataError` if there is no such split."""
        return [str(find_file(root, split, ANNOTATION_FILES, ".json"))]


@dataclass(frozen=True)
class _File:
    path: Path
    root: Path
    prefix: str
    image_dir: Path
    category_names: dict[Any, str]
    """Category id -> name, in ascending order of ids."""
    images: list[dict[str, Any]]
    annotations: Mapping[Any, list[dict[str, Any]]]
    """Image id -> its annotations."""
    problems: list[str]


def _read_file(prefix: str, root: Path, split: str, images: str | None) -> _File:
    path = find_file(root, split, ANNOTATION_FILES, ".json")
    content = _parse(path)
    categories = _entries(path, content, "categories", needed=("id", "name"))
    categories.sort(key=lambda category: (isinstance(category["id"], str), category["id"]))
    entries = _entries(path, content, "annotations", needed=("image_id", "category_id"))
    categories = _without_unused_root(path, categories, {entry["category_id"] for entry in entries})
    names = [str(category["name"]) for category in categories]
    if len(set(names)) < len(names):
        raise DataError(f"{path}: two of the {len(names)} 'categories' have the same name ({', '.join(names)})")
    listed = _entries(path, content, "images", needed=("id", "file_name"))
    annotations: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    known = {entry["id"] for entry in listed}
    if len(known) < len(listed):
        raise DataError(f"{path}: two of the {len(listed)} 'images' have the same id")
    problems = []
    for entry in entries:
        if entry["image_id"] in known:
            annotations[entry["image_id"]].append(entry)
        else:
            problems.append(
                f"{path}: annotation {entry.get('id')} has image_id {entry['image_id']!r}, which is not in 'images'"
            )
    return _File(
        path=path,
        root=root,
        prefix=prefix,
        image_dir=find_image_dir(root, path, images, samples=[str(entry["file_name"]) for entry in listed[:10]]),
        category_names={category["id"]: name for category, name in zip(categories, names, strict=True)},
        images=listed,
        annotations=annotations,
        problems=problems,
    )


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


def _parse(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            # Outlines are nine tenths of COCO's files. Dropping them while parsing saves memory.
            content = json.load(file, object_hook=_without_outline)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: this is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: the JSON is a {type(content).__name__}, not an object with images and annotations")
    return content


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    entry.pop("segmentation", None)
    return entry


def _entries(path: Path, content: dict[str, Any], key: str, needed: Sequence[str]) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DataError(f"{path}: the JSON has no list '{key}'; it has {', '.join(map(repr, content)) or 'nothing'}")
    for number, entry in enumerate(entries, start=1):
        for name in needed:
            value = entry.get(name) if isinstance(entry, dict) else None
            if name == "name" and name in entry:
                _check_category_name(path, entry)
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


def _images(file: _File, labels: Mapping[str, int], keep_difficult: bool) -> Iterator[tuple[str, ReadImage]]:
    seen: set[str] = set()
    keep = parts_to_keep([str(entry["file_name"]) for entry in file.images])
    for entry in file.images:
        name = str(entry["file_name"])
        image_id = file.prefix + unique_image_id(name, seen)
        find = partial(require_image, file.image_dir, name, root=file.root, keep=keep.get(name, 1), stated_by=file.path)
        yield image_id, partial(_read_image, file, entry, find, image_id, labels, keep_difficult)


def _read_image(
    file: _File,
    entry: dict[str, Any],
    find: Callable[[], Path],
    image_id: str,
    labels: Mapping[str, int],
    keep_difficult: bool,
) -> tuple[ImageAnnotation, list[str]]:
    image_path = find()
    size_px = _stated_size_px(entry) or image_size_px(image_path)
    objects = Objects(keep_difficult=keep_difficult)
    for number, annotation in enumerate(file.annotations.get(entry["id"], ()), start=1):
        category = annotation["category_id"]
        name = file.category_names.get(category, str(category))
        with objects.judging(f"{file.path}: annotation {annotation.get('id', number)} '{name}' of {image_path.name}"):
            difficult = any(flag_of(annotation.get(key, 0), key) for key in ("iscrowd", "difficult"))
            if objects.wants(difficult=difficult):
                label = label_of(name, labels)
                bbox = annotation.get("bbox")
                if not isinstance(bbox, list) or len(bbox) != 4:
                    raise DataError(f"has the bbox {bbox!r}, not four numbers")
                x, y, w, h = (number_of(value, key) for value, key in zip(bbox, ("x", "y", "w", "h"), strict=True))
                refuse_fractions((x, y, w, h), size_px)
                box = checked_box((x, y, x + w, y + h), size_px)
                objects.add(label=label, box_xyxy_px=box, difficult=difficult)
    return objects.record(image_id=image_id, image_path=image_path, size_px=size_px), objects.problems


def _stated_size_px(entry: dict[str, Any]) -> tuple[int, int] | None:
    height, width = (whole_number(entry.get(side)) or 0 for side in ("height", "width"))
    return (height, width) if height > 0 and width > 0 else None
