"""The format of labelme and its relatives: a JSON file for each image."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ssd_lightning.data.annotation_checks import stated_size_px
from ssd_lightning.data.formats.builder import TableBuilder
from ssd_lightning.data.formats.files import FileError, MissingSplitError, in_threads, is_within, list_files, read_json
from ssd_lightning.data.formats.found import FoundImage, FoundObject, read_object
from ssd_lightning.data.formats.image_files import find_image, image_with_suffix, note_unlabelled, portable_path
from ssd_lightning.data.formats.shapes import bounds, circle_bounds, points_of
from ssd_lightning.data.split_annotations import Annotations
from ssd_lightning.data.split_names import note_merged, other_splits
from ssd_lightning.errors import DataError


@dataclass(frozen=True, kw_only=True)
class LabelMe:
    """Reads labelme's JSON files.

    A split is a folder below the root, `.` for the root itself. The images are next to their JSON files, where
    `imagePath` says, or in `images`. Images without a JSON file are skipped, counted and logged. Polygons, circles and
    other shapes are read as their bounding boxes. Shapes of a file with the same label and `group_id` are one object.
    An object with the flag `difficult` is difficult.
    """

    def read(self, root: Path, split: str) -> Annotations:
        """Read a split. Raises `DataError` if there is no such split, or no JSON file in it is labelme's."""
        folder, names = _find_split(root, split)
        builder = TableBuilder()
        used, others = set(), []
        for name, found in in_threads(lambda name: _read_image(folder, name, root), names):
            if found is None:
                others.append(name)
                continue
            builder.add_image(name.removesuffix(".json"), found)
            if not isinstance(found, FileError):
                used.add(os.path.normpath(found.path))  # without the .. of imagePath
        if len(others) == len(names):
            raise DataError(f"{folder}: none of the {len(names)} JSON files has labelme's 'shapes', as {others[0]}")
        builder.notes += note_merged(folder, names, split=split)
        stems = (name.removesuffix(".json") for name in names)
        builder.notes += note_unlabelled(folder, used, stems, "JSON file", skipped=other_splits(split))
        if others:
            builder.notes.append(f"{folder}: {len(others)} JSON files without 'shapes' are skipped, as {others[0]}")
        paths = [str(folder / name) for name in names]
        builder.sources += paths + sorted({str(folder), *map(os.path.dirname, (*used, *paths))})
        return builder.finish(root)

    def files(self, root: Path, split: str) -> Iterable[str]:
        """List the JSON files of a split. Raises `DataError` if there is no such split."""
        folder, names = _find_split(root, split)
        return (str(folder / name) for name in names)


def _find_split(root: Path, split: str) -> tuple[Path, list[str]]:
    def names_in(split: str) -> list[str]:
        return [path.as_posix() for path in list_files(root / split, (".json",), skipped=other_splits(split))]

    if names := names_in(split):
        return root / split, names
    others = [folder.name for folder in root.iterdir() if folder.is_dir() and names_in(folder.name)]
    raise MissingSplitError(root / split, split, others + ["."] * bool(names_in(".")))


def _read_image(folder: Path, name: str, root: Path) -> FoundImage | None:
    """Read a JSON file; None if it is another tool's."""
    path = folder / name
    content = read_json(path)
    if not isinstance(content, dict) or not content.keys() & {"shapes", "imagePath"}:
        return None
    shapes = content.get("shapes")
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise FileError(path, f"the JSON has the 'shapes' {shapes!r:.80}, not a list of objects")
    return FoundImage(
        path=_find_image(folder, path, str(content.get("imagePath") or ""), bool(content.get("imageData")), root),
        size_px=stated_size_px(content.get("imageHeight"), content.get("imageWidth")),
        file=path,
        objects=_read_shapes(shapes),
    )


def _read_shapes(shapes: Sequence[Mapping[str, Any]]) -> list[FoundObject]:
    """Read the objects of a file. Shapes of one label and `group_id` are parts of one, as in labelme's labelme2coco."""
    objects: dict[Any, FoundObject] = {}
    for item, shape in enumerate(shapes, start=1):
        found, group = _read_shape(item, shape), shape.get("group_id")
        key = item if group is None else (found.name, str(group))
        objects[key] = _joined(objects[key], found) if key in objects else found
    return list(objects.values())


def _joined(first: FoundObject, second: FoundObject) -> FoundObject:
    """Join two parts of an object; one with a fault leaves the fault alone."""
    faults = [one.numbers for one in (first, second) if isinstance(one.numbers, str)]
    edges = (*first.numbers, *second.numbers)
    return first._replace(
        numbers=faults[0] if faults else bounds(edges[0::2], edges[1::2]),
        difficult=first.difficult or second.difficult,
        is_outline=first.is_outline or second.is_outline,
    )


def _read_shape(item: int, shape: Mapping[str, Any]) -> FoundObject:
    name, more = shape.get("label"), shape.get("flags")
    flags = [("difficult", one.get("difficult")) for one in (shape, more) if isinstance(one, dict)]
    return read_object("" if name is None else str(name).strip(), item, partial(_read_box, shape), flags=flags)


def _read_box(shape: Mapping[str, Any]) -> tuple[list[float], bool]:
    xs, ys = points_of(shape.get("points"))
    kind = shape.get("shape_type")
    return circle_bounds(xs, ys) if kind == "circle" else bounds(xs, ys), kind != "rectangle"


def _find_image(folder: Path, path: Path, stated: str, is_embedded: bool, root: Path) -> Path:
    """Find the image of a JSON file: as stated, by the name of the file, or by the last parts of what is stated."""
    stated = portable_path(stated)
    mirrored = root.joinpath("images", *path.parent.relative_to(root).parts[1:])
    places = (path.parent, path.parent.parent / "images", mirrored, folder / "images", folder)

    def candidates() -> Iterator[Path]:
        stated_places = places if stated else ()
        yield from (place / stated for place in stated_places if os.path.isfile(place / stated))
        yield from filter(None, (image_with_suffix(place / path.stem) for place in places[:3]))
        yield from filter(None, (find_image(place, stated, root=root) for place in stated_places))

    image = next((image for image in candidates() if is_within(root, image)), None) or next(candidates(), None)
    if image is None:
        text = f"the image is missing (stated by {path})"
        if is_embedded:
            text += "; it is only embedded as 'imageData': write it to a file of that name"
        raise FileError(path.parent / (stated or path.stem), text, kind="missing")
    return image
