"""What readers find in the files, before it is checked."""

import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from ssd_lightning.data.annotation_checks import BoxNotation, Problem, ProblemKind, flag_of
from ssd_lightning.data.formats.files import FileError, attempt
from ssd_lightning.data.formats.image_files import portable_path, without_parents
from ssd_lightning.data.image_suffixes import IMAGE_SUFFIXES, is_unreadable_image_name
from ssd_lightning.errors import DataError

ONLY_CLASS = "object"
"""Class of all objects in a file that has no column or attribute for it."""


class FoundObject(NamedTuple):
    """An object as its file has it."""

    name: str
    """Its class."""
    numbers: Sequence[float] | str
    """The four finite numbers of its box, or what is wrong with it."""
    item: int | str
    """Its number in the file."""
    difficult: bool = False
    is_outline: bool = False
    """The box is the bounding box of another shape."""


class FoundImage(NamedTuple):
    """An image as its annotation has it."""

    path: str | Path
    size_px: tuple[int, int] | None
    """(height, width); None if it is not stated: then the image is asked."""
    file: str | Path
    """The annotation file."""
    objects: Sequence[FoundObject] = ()


def read_object(
    name: str,
    item: int | str,
    read_box: Callable[[], tuple[Sequence[float], bool]],
    *,
    flags: Iterable[tuple[str, object]] = (),
) -> FoundObject:
    """Read an object; what is wrong with it takes the place of its box.

    `read_box` returns the numbers of the box, and whether it is that of another shape. One of the `flags`, each a
    key and its value, may say that the object is difficult.
    """
    difficult = False
    try:
        are_set = [flag_of(flag, key) for key, flag in flags]  # each is checked
        difficult = any(are_set)
        numbers, is_outline = read_box()
    except DataError as error:
        return FoundObject(name, str(error), item, difficult)
    return FoundObject(name, numbers, item, difficult, is_outline)


class ObjectColumns:
    """The numbers of objects: their image, label, number in the file, flag and box."""

    def __init__(self) -> None:
        self._columns: list[array[Any]] = [array(code) for code in "qiqbd"]

    def append(self, image: int, label: int, item: int, difficult: bool, box: Sequence[float]) -> None:
        """Add an object."""
        *columns, boxes = self._columns
        for column, number in zip(columns, (image, label, item, difficult), strict=True):
            column.append(number)
        boxes.extend(box)

    def extend(self, *arrays: np.ndarray) -> None:
        """Add objects, each array as in `arrays`."""
        for column, values in zip(self._columns, arrays, strict=True):
            column.frombytes(values.astype(column.typecode, copy=False).tobytes())

    def arrays(self) -> list[np.ndarray]:
        """Return images, labels, numbers in the file and flags, each `[T]`, and boxes, `[T, 4]`, as views."""
        *columns, boxes = (np.frombuffer(column, column.typecode) for column in self._columns)
        return [*columns, boxes.reshape(-1, 4)]


@dataclass(kw_only=True)
class FoundTable:
    """Collects the images and objects of a split. For the fields see `Annotations`.

    Objects may have other classes than `class_names`, those that the files declare. Without `is_listed`, every name
    that occurs is a class, and they are sorted at the end.
    """

    class_names: Sequence[str] = ()
    is_listed: bool = False
    is_numbered: bool = False
    item_format: str = "object {item} '{name}'"
    notation: BoxNotation = field(default_factory=BoxNotation)
    corners_advice: str = ""
    """What to do if boxes leave their images as x, y, w, h, but all fit as two corners; empty means no such test."""

    def __post_init__(self) -> None:
        self.ids: set[str] = set()
        self.notes: list[str] = []
        self.sources: list[str] = []
        self.paths: list[str] = []
        self.objects = ObjectColumns()
        self.num_outlines = 0
        self._first_outline = ""
        self._labels = {name: label for label, name in enumerate(self.class_names, start=1)}
        self._ids: list[str] = []
        self._files: list[str] = []
        self._sizes_px: list[tuple[int, int]] = []
        self._problems: list[tuple[int, int, Problem]] = []
        """Image and object of each. The image is -1 if it belongs to none, the object is -1 if it is the image."""

    def new_id(self, name: str) -> str:
        """Return an image's path without suffix as its id, or the whole path if an image has that id."""
        name = without_parents(portable_path(name))
        if "//" in name or "/./" in name:
            name = str(PurePosixPath(name))
        stem, suffix = os.path.splitext(name)
        spellings = chain(
            [stem if suffix.lower() in IMAGE_SUFFIXES else name, name], (f"{name} ({number})" for number in count(2))
        )
        image_id = next(one for one in spellings if one not in self.ids)
        self.ids.add(image_id)
        return image_id

    def label(self, name: str) -> int:
        """Return the label of a class name; a new one gets the next."""
        return self._labels.setdefault(name, len(self._labels) + 1)

    def add_image(self, image_id: str, found: FoundImage | FileError) -> int | None:
        """Add an image and its objects, and return its index; None if it cannot be used, which is reported."""
        if isinstance(found, FoundImage) and is_unreadable_image_name(found.path):
            text = f"cannot read the image: {Path(found.path).suffix} is not read; convert it to .jpg or .png"
            found = FileError(found.path, text, kind="image")
        if isinstance(found, FileError):
            problem = Problem(file=found.file, kind=found.kind, text=found.text, image_id=image_id)
            self._problems.append((len(self._ids), -1, problem))
            return None
        image = len(self._ids)
        self._ids.append(image_id)
        self.paths.append(str(found.path))
        self._files.append(str(found.file))
        self._sizes_px.append(found.size_px or (0, 0))
        for one in found.objects:
            self.add_object(image, one)
        return image

    def add_named_image(
        self,
        name: str,
        find: Callable[[], str],
        *,
        size_px: tuple[int, int] | None,
        file: Path,
        objects: Sequence[FoundObject] = (),
    ) -> int | None:
        """Add the image that a file calls `name`; `find` returns its path, or raises `FileError`."""
        return self.add_image(self.new_id(name), attempt(lambda: FoundImage(find(), size_px, file, objects)))

    def add_object(self, image: int, found: FoundObject) -> None:
        """Add an object of an image, or report what is wrong with it."""
        if isinstance(found.numbers, str):
            self._fail_object(image, found, text=found.numbers)
            return
        self.objects.append(image, self.label(found.name), int(found.item), found.difficult, found.numbers)
        if found.is_outline:
            self.num_outlines += 1
            self._first_outline = self._first_outline or f"{self._files[image]}: {self._describe(image, found)}"

    def fail_file(self, file: str | Path, text: str, *, kind: ProblemKind = "annotation") -> None:
        """Report a part of a file that belongs to no image."""
        self._problems.append((-1, 0, Problem(file=str(file), kind=kind, text=text)))

    def _fail_added_image(self, image: int, kind: ProblemKind, text: str) -> None:
        problem = Problem(file=self.paths[image], kind=kind, text=text, image_id=self._ids[image])
        self._problems.append((image, -1, problem))

    def _fail_object(self, image: int, found: FoundObject, *, text: str, **more: Any) -> None:
        problem = Problem(
            file=self._files[image],
            item=self._describe(image, found),
            text=text,
            image_id=self._ids[image],
            name=found.name,
            label=self._labels.get(found.name, 0),
            difficult=found.difficult,
            **{"kind": "annotation", **more},
        )
        self._problems.append((image, found.item if isinstance(found.item, int) else 0, problem))

    def _describe(self, image: int, found: FoundObject) -> str:
        return self.item_format.format(item=found.item, name=found.name, image=Path(self.paths[image]).name)
