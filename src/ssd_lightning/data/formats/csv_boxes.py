"""CSV files with one object per row: the columns of OpenImages, RetinaNet, Kaggle, TensorFlow and most other tools."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from itertools import chain, islice
from math import isfinite
from operator import itemgetter
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ssd_lightning.data.annotation_checks import (
    BOX_PROBLEMS,
    BoxFormat,
    Unit,
    flag_of,
    id_of,
    number_of,
    stated_size_px,
)
from ssd_lightning.data.annotations import Annotations
from ssd_lightning.data.formats.builder import TableBuilder
from ssd_lightning.data.formats.csv_columns import (
    SPLIT_WORDS,
    WITHOUT_HEADER,
    Columns,
    column_splits,
    files_with_splits,
    open_rows,
    read_columns,
    split_word,
)
from ssd_lightning.data.formats.files import MissingSplitError
from ssd_lightning.data.formats.found import FoundObject, ObjectColumns
from ssd_lightning.data.formats.image_files import IMAGE_FOLDERS, ImageFinder, find_image, folder_with, portable_path
from ssd_lightning.data.formats.single_file import SingleFileFormat
from ssd_lightning.errors import ConfigurationError, DataError

log = logging.getLogger(__name__)

EMPTY = ("", "nan", "na", "n/a", "<na>", "none", "null", "[]")
"""Notations for an empty field, in any case."""
BOX_KEYS = {"xyxy": ("xmin", "ymin", "xmax", "ymax"), "cxcywh": ("cx", "cy", "w", "h"), "xywh": ("x", "y", "w", "h")}
NOTHING = [-1.0, -1.0, -1.0, -1.0]
ONLY_CLASS = "object"
"""Class of all objects in a file without a column for it."""
MAX_CLASSES = 1000
"""A column with larger numbers is not taken for class numbers."""
ROWS_AT_ONCE = 256
"""Rows that are added together if none needs a closer look, which takes two thirds of the time."""


@dataclass(frozen=True, kw_only=True)
class CSV(SingleFileFormat):
    """Reads boxes from CSV files.

    A split is the name in `NAME.csv`, `NAME/label.csv` or another entry of `locations`, or the path of the CSV file
    below the root. In a file with a column for it (`SPLIT`), a split is its rows. Commas, semicolons or tabs separate
    the values. The header names the columns; without one they are those of `WITHOUT_HEADER` or `AUTOML`. Rows of the
    same image are merged. A row with empty class and box stands for an image without objects.

    Args:
        images: see `SingleFileFormat`.
        unit: unit of the boxes; None means fractions for files with OpenImages' columns, else pixels.
        class_descriptions: names for codes such as /m/0k4j or 0: a mapping, or a file of (code, name) rows below the
            root; None keeps the codes.

    Raises:
        ConfigurationError: `unit` is unknown.
    """

    locations = (
        "{split}.csv",
        "annotations/{split}.csv",
        "{split}/label.csv",
        "{split}/labels.csv",
        "{split}/annotations.csv",
        "{split}/_annotations.csv",
        "{split}-annotations-bbox.csv",
        "oidv6-{split}-annotations-bbox.csv",
        "{split}_labels.csv",
    )

    unit: Unit | None = None
    class_descriptions: str | Mapping[Any, str] | None = None

    def __post_init__(self) -> None:
        if self.unit is not None and self.unit not in get_args(Unit):
            raise ConfigurationError(f"unit={self.unit!r}: it is one of {get_args(Unit)}, or null to go by the columns")

    def read(self, root: Path, split: str) -> Annotations:
        """Read a split. Raises `DataError` if there is no such split, or it cannot be read."""
        path, word = self._find_split(root, split)
        rows = _Rows(path, _read_descriptions(root, self.class_descriptions), split=word)
        columns = rows.read()
        samples = [sample for name in [*rows.images][:10] for sample in dict.fromkeys((name, name.strip()))]
        image_dir = self._image_dir_of(word, root, samples) if word else None
        image_dir = image_dir or self.image_dir(root, path, samples)

        def table(box_format: BoxFormat) -> Annotations:
            item_format = "line {item} '{name}' of {image}"
            builder = TableBuilder(item_format=item_format, box_format=box_format, unit=self.unit or columns.unit)
            rows.fill(builder, image_dir, root)
            if columns.label is None:
                builder.notes.append(f"{path}: there is no column for the class; all objects are '{ONLY_CLASS}'")
            builder.sources.append(str(path))
            if isinstance(self.class_descriptions, str):
                builder.sources.append(str(root / self.class_descriptions))
            return builder.finish(root)

        found = table(columns.box_format)
        if len(columns.box) == 1:
            _refuse_corners(found, lambda: table("xyxy"))
        return found

    def files(self, root: Path, split: str) -> Iterable[str]:
        """Return the file of a split, or a path for each split in it. Raises `DataError` if there is no such split."""
        path, word = self._find_split(root, split)
        file = os.path.realpath(path)
        return [f"{file}/{one}" for one in ([word] if word else column_splits(path))] or [file]

    def _image_dir_of(self, word: str, root: Path, samples: Sequence[str]) -> Path | None:
        """Find the folder of the images of one split in a file."""
        names = [word, *(name for name, meant in SPLIT_WORDS.items() if meant == word)]
        usual = [root / pattern.format(name=name) for name in names for pattern in IMAGE_FOLDERS]
        return folder_with(usual, samples, root=root) if self.images is None else None

    def _find_split(self, root: Path, split: str) -> tuple[Path, str | None]:
        """Return the file of a split, and what its column calls the split; None for all rows."""
        word = split_word(split)
        try:
            path = self.path(root, split)
        except MissingSplitError:
            tables = files_with_splits(root)
            if not tables:
                raise
            paths = [path for path, splits in tables.items() if word in splits]
            if not paths:
                raise MissingSplitError(next(iter(tables)), split, frozenset().union(*tables.values())) from None
            if len(paths) > 1:
                text = f"the split '{split}' is in {len(paths)} files: {', '.join(map(str, paths))}; keep one of them"
                raise DataError(f"{root}: {text}") from None
            return paths[0], word
        is_part = not split.endswith(".csv") and word in column_splits(path)
        return path, word if is_part else None


_size_px = lru_cache(stated_size_px)  # most images of a file have one of a few sizes


class _Rows:
    """The rows of a file, before its images are known.

    Args:
        path: the file.
        descriptions: code of a class -> its name.
        split: only the rows of this split are read; None reads all.
    """

    def __init__(self, path: Path, descriptions: Mapping[str, str], *, split: str | None) -> None:
        self.path = path
        self._split = split
        self.images: dict[str, int] = {}
        """Name of an image -> its number, in the order of the file."""
        self._sizes_px: list[tuple[int, int] | None] = []
        self._labels: dict[str, int] = {}
        self._objects = ObjectColumns()
        self._faults: list[tuple[int, FoundObject]] = []
        self._short: list[str] = []
        self._name_of = cache(lambda code: descriptions.get(_code(code), _code(code)))
        self._is_difficult = cache(lambda text: flag_of(text, "difficult"))

    def read(self) -> Columns:
        with open_rows(self.path) as reader:
            columns, rows = read_columns(reader, self.path)
            if (index := columns.split) is not None and self._split is not None:
                rows = (row for row in rows if len(row) <= index or split_word(row[index]) == self._split)
            while chunk := [(reader.line_num, row) for row in islice(rows, ROWS_AT_ONCE)]:
                if not self._add_plain(chunk, columns):
                    for line, row in chunk:
                        self._add(line, row, columns)
        if columns.assumed:
            text = f"{self.path}: there is no header, so the columns are {','.join(columns.assumed)}; the first row is"
            text += f" {','.join(columns.first_row)}"
            if columns.assumed == WITHOUT_HEADER and self._has_class_second():
                seems = "in all rows the second column may be the class, and the next four the box"
                raise DataError(f"{text}; {seems}; add a header that names the columns")
            log.info("%s", text)
        return columns

    def _has_class_second(self) -> bool:
        """Tell whether all rows can be image, class number, x1, y1, x2, y2 instead of `WITHOUT_HEADER`."""
        try:
            last_of = np.array([float(name) for name in self._labels])
        except ValueError:
            return False
        second, x1, y1, x2 = np.frombuffer(self._objects.box, np.float64).reshape(-1, 4).T
        y2 = last_of[np.frombuffer(self._objects.label, np.int32)] if len(second) else second
        may_be_classes = (second >= 0) & (second < MAX_CLASSES) & (second == np.floor(second))
        are_few = 0 < len(np.unique(second)) <= len(last_of)
        return are_few and bool((may_be_classes & (x1 < x2) & (y1 < y2)).all())

    def _add(self, line: int, row: Sequence[str], columns: Columns) -> None:
        if not row:
            return
        if len(row) < columns.fewest:
            self._short.append(f"line {line} has {len(row)} values, not {columns.fewest}")
            return
        image = self._image(row, columns)
        name = self._name_of(ONLY_CLASS if columns.label is None else row[columns.label])
        texts = [row[index] for index in columns.box] if len(columns.box) == 4 else _split(row[columns.box[0]])
        difficult = False
        try:
            difficult = columns.difficult is not None and self._is_difficult(row[columns.difficult])
            numbers = _box(texts, columns.box_format)
        except DataError as error:
            is_empty = all(text.strip().lower() in EMPTY for text in texts)
            if not (is_empty and (columns.label is None or name.strip().lower() in EMPTY)):
                self._faults.append((image, FoundObject(name, str(error), line, difficult)))
            return
        self._objects.append(image, self._labels.setdefault(name, len(self._labels)), line, difficult, numbers)

    def _image(self, row: Sequence[str], columns: Columns) -> int:
        image = self.images.setdefault(row[columns.image], len(self.images))
        if image == len(self._sizes_px):
            self._sizes_px.append(None)
        if columns.size is not None and self._sizes_px[image] is None:
            self._sizes_px[image] = _size_px(*(row[index] for index in columns.size))
        return image

    def _add_plain(self, chunk: Sequence[tuple[int, list[str]]], columns: Columns) -> bool:
        """Add (line, row)s that all have an object with a usable box; False, and nothing is added, if one has not."""
        lines, rows = zip(*chunk, strict=True)
        if len(columns.box) < 4 or min(map(len, rows)) < columns.fewest:
            return False
        try:
            numbers = np.fromiter(map(float, chain.from_iterable(map(itemgetter(*columns.box), rows))), np.float64)
            difficult = [columns.difficult is not None and self._is_difficult(row[columns.difficult]) for row in rows]
        except (ValueError, DataError):
            return False
        if not np.isfinite(numbers).all() or (numbers.reshape(-1, 4) == NOTHING).all(1).any():
            return False
        labels, objects = self._labels, self._objects
        names = [self._name_of(ONLY_CLASS if columns.label is None else row[columns.label]) for row in rows]
        objects.image.extend([self._image(row, columns) for row in rows])
        objects.label.extend([labels.setdefault(name, len(labels)) for name in names])
        objects.item.extend(lines)
        objects.difficult.extend(difficult)
        objects.box.frombytes(numbers.tobytes())
        return True

    def fill(self, builder: TableBuilder, image_dir: Path, root: Path) -> None:
        for text in self._short:
            builder.fail_file(self.path, text)
        names = [_stripped(stated, image_dir, root) for stated in self.images]
        finder = ImageFinder(image_dir, set(names), root=root, stated_by=self.path)
        indices: dict[str, int] = {}
        for name, size_px in zip(names, self._sizes_px, strict=True):
            if name not in indices:
                index = builder.add_named_image(name, partial(finder, name), size_px=size_px, file=self.path)
                indices[name] = -1 if index is None else index
        index_of = np.array([indices[name] for name in names], np.int64)
        for number, fault in self._faults:
            if index_of[number] >= 0:
                builder.add_object(int(index_of[number]), fault)
        labels = np.array([builder.label(name) for name in self._labels], np.int64)
        builder.objects.extend(self._objects, images=index_of, labels=labels)
        builder.sources += finder.folders


def _refuse_corners(found: Annotations, as_corners: Callable[[], Annotations]) -> None:
    """Raise `DataError` if boxes of x, y, width, height leave their images, but all boxes fit as two corners."""
    first = next((problem for problem in found.problems if problem.kind == "outside"), None)
    if first is None or any(problem.kind in BOX_PROBLEMS for problem in as_corners().problems):
        return
    raise DataError(
        f"{first}; its column is read as x, y, width, height, but all boxes of the file fit as two corners; write them "
        "in four columns, xmin, ymin, xmax, ymax, or x, y, w, h if they are sizes"
    )


def _stripped(stated: str, image_dir: Path, root: Path) -> str:
    """Strip blanks around an image's name, unless the file's name contains them."""
    name = portable_path(stated)
    stripped = name.strip()
    return name if stripped != name and find_image(image_dir, name, root=root) else stripped


def _box(texts: Sequence[str], box_format: BoxFormat) -> list[float]:
    """Read the four numbers of a box. Raises `DataError` if they are not finite, or all are -1."""
    if len(texts) != 4:
        raise DataError(f"has the box {' '.join(texts)!r}, not four numbers")
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        numbers = []
    if not numbers or not isfinite(sum(numbers)):
        numbers = [number_of(text, key) for text, key in zip(texts, BOX_KEYS[box_format], strict=True)]
    if numbers == NOTHING:
        raise DataError(
            "has -1 for all four numbers of its box; an image without objects is written with class and box empty"
        )
    return numbers


def _split(text: str) -> list[str]:
    """Split the four numbers of one column: `[1, 2, 3, 4]` or `1 2 3 4`."""
    return text.strip().strip("[]()").replace(",", " ").split() or [""]


def _code(text: str) -> str:
    """Read a class code. Tables of numbers write 1 as 1.0."""
    return str(id_of(text)) if "." in text else text.strip()


def _read_descriptions(root: Path, class_descriptions: str | Mapping[Any, str] | None) -> dict[str, str]:
    if isinstance(class_descriptions, str):
        with open_rows(root / class_descriptions) as rows:
            return {_code(row[0]): row[1].strip() for row in rows if len(row) >= 2}
    for code, name in (class_descriptions or {}).items():
        if not isinstance(name, str):
            raise DataError(f"class_descriptions has {name!r} for {code}, which is not text; write it in quotes")
    return {_code(str(code)): name for code, name in (class_descriptions or {}).items()}
