"""The columns of CSV files: what they are called, and which is what."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from math import isfinite
from pathlib import Path, PurePath
from typing import Any, Literal

from ssd_lightning.data.annotation_checks import BoxFormat, Unit, id_of
from ssd_lightning.data.formats.files import encoding_of, files_near
from ssd_lightning.data.image_suffixes import is_image_name
from ssd_lightning.data.special_files import GIT_LFS_POINTER, is_git_lfs_pointer, refuse_special_file
from ssd_lightning.data.split_names import KIND_OF_WORD
from ssd_lightning.errors import DataError

# fmt: off
IMAGE = (
    "imageid", "img_name", "image", "filename", "file_name", "image_path", "path", "image_id", "image_name",
    "imagename", "img", "img_path", "filepath", "file_path", "file",
)
LABEL = (
    "labelname", "class_name", "classname", "category_name", "label_name", "label", "class", "category", "labels",
    "class_label", "name", "class_id", "label_id", "category_id",
)
DIFFICULT = ("isgroupof", "difficult", "iscrowd")
IMAGE_SIZE = (("height", "image_height", "img_height"), ("width", "image_width", "img_width"))
BOX_COLUMNS: tuple[tuple[BoxFormat, tuple[tuple[str, ...], ...]], ...] = (
    ("xyxy", (
        ("xmin", "x_min", "x1", "left", "bbox_x1"),
        ("ymin", "y_min", "y1", "top", "bbox_y1"),
        ("xmax", "x_max", "x2", "right", "bbox_x2"),
        ("ymax", "y_max", "y2", "bottom", "bbox_y2"),
    )),
    ("xyxy", (("x0",), ("y0",), ("x1",), ("y1",))),
    ("cxcywh", (("cx", "x_center", "xcenter"), ("cy", "y_center", "ycenter"), ("w", "width"), ("h", "height"))),
    ("xywh", (
        ("x", "left", "xmin", "x_min", "bbox_x"),
        ("y", "top", "ymin", "y_min", "bbox_y"),
        ("w", "bbox_w", "bbox_width", "box_width", "width"),
        ("h", "bbox_h", "bbox_height", "box_height", "height"),
    )),
)
"""Names of the columns, in any case, for each way to write a box."""
# fmt: on
BOX_IN_ONE = ("bbox", "box", "bounding_box")
"""A column with all four numbers, x, y, width and height, in brackets."""
WITHOUT_HEADER = ("image", "xmin", "ymin", "xmax", "ymax", "label")
"""Columns of a file without a header, as keras-retinanet writes it."""
SKU_110K = (*WITHOUT_HEADER, "image_width", "image_height")
"""Columns of SKU-110K's files, which have no header."""
MAKE_SENSE = ("label", "x", "y", "w", "h", "image", "image_width", "image_height")
"""Columns of a file without a header of makesense.ai."""
AUTOML = ("ml_use", "image", "label", "xmin", "ymin", "", "", "xmax", "ymax")
"""Columns of a file without a header of Google's AutoML, in fractions; the others are more corners."""
NUMBERS = frozenset({"xmin", "ymin", "xmax", "ymax", "x", "y", "w", "h", "image_width", "image_height"})
SPLIT = ("split", "set", "subset", "ml_use")
SPLIT_WORDS = {word: kind for word, kind in KIND_OF_WORD.items() if word != "trainval"}
"""What this column calls splits, and what is meant. A row belongs to one of them."""
NO_CLASS = ("", "index", "id", "unnamed: 0", "area", "score", "confidence")
"""Other columns, which cannot be the class."""
SUFFIXES = (".csv", ".tsv")
EMPTY = ("", "nan", "na", "n/a", "<na>", "none", "null", "[]")
"""Notations for an empty field, in any case."""
MOST_LETTERS = 100_000_000
"""Letters of a field. Masks have more than Python's limit of 131,072."""
UNASSIGNED = ("", "unassigned")
"""Such rows belong to training."""


@dataclass(frozen=True)
class Columns:
    """The meaning of the columns, by their index."""

    image: int
    label: int | None
    box: tuple[int, ...]
    """Four columns, or one."""
    box_format: BoxFormat
    difficult: int | None
    size: tuple[int, int] | None
    """Height and width of the image."""
    unit: Unit
    split: int | None = None
    assumed: Sequence[str] = ()
    """The names of the columns, if there is no header."""
    first_row: Sequence[str] = ()
    """The first row, if there is no header."""

    @property
    def fewest(self) -> int:
        """Number of values that a row needs."""
        return max(self.image, self.label or 0, self.difficult or 0, *self.box, *(self.size or ())) + 1


def sniff_columns(header: Sequence[str], path: Path) -> Columns:
    """Find the meaning of each column by the header. Raises `DataError`, which names the file, if one is missing."""
    given = [name.strip().lower() for name in header]

    def column(names: Sequence[str]) -> int | None:
        return next((given.index(name) for name in names if name in given), None)

    image, label, in_one = column(IMAGE), column(LABEL), column(BOX_IN_ONE)
    box: tuple[int, ...] | None = None if in_one is None else (in_one,)
    box_format: BoxFormat = "xywh"
    for known_format, names in reversed(BOX_COLUMNS):
        found = [index for of_number in names if (index := column(of_number)) is not None]
        if len(found) == 4:
            box, box_format = tuple(found), known_format
    missing = ""
    if image is None:
        missing = f"the image (called {', '.join(IMAGE)})"
    elif label is None and (box is None or (len(box) > 1 and _may_have_class(given))):
        missing = f"the class (called {', '.join(LABEL)})"
    elif box is None:
        missing = f"the box (called {', '.join('/'.join(names) for names in BOX_COLUMNS[0][1])}, or {BOX_IN_ONE[0]})"
    if image is None or box is None or missing:
        hint = "; Label Studio's export JSON has what is missing" if "annotation_id" in given else ""
        raise DataError(f"{path}: there is no column for {missing}; there is {', '.join(header) or 'nothing'}{hint}")
    height, width = map(column, IMAGE_SIZE)
    return Columns(
        image=image,
        label=label,
        box=box,
        box_format=box_format,
        difficult=column(DIFFICULT),
        size=None if width is None or height is None or width in box else (height, width),
        unit="fractions" if {"imageid", "labelname"} <= set(given) else "pixels",
        split=column(SPLIT),
    )


def _may_have_class(given: Iterable[str]) -> bool:
    """Tell whether a column with none of the usual names may be the class."""
    of_boxes = (name for _, names in BOX_COLUMNS for of_number in names for name in of_number)
    return bool({*given} - {*IMAGE, *of_boxes, *DIFFICULT, *chain(*IMAGE_SIZE), *SPLIT, *NO_CLASS})


@contextmanager
def open_rows(path: Path) -> Iterator[Any]:
    """Open a `csv.reader` for the separator that the first line has most. Raises `DataError` if it cannot be read."""
    refuse_special_file(path)
    csv.field_size_limit(MOST_LETTERS)
    try:
        with path.open("rb") as file:
            start = file.read(64)
        if is_git_lfs_pointer(start):
            raise DataError(f"{path}: {GIT_LFS_POINTER}")
        with path.open(encoding=encoding_of(start), newline="") as stream:
            first = stream.readline()
            stream.seek(0)
            yield csv.reader(stream, delimiter=max(",;\t", key=first.count))
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path}: this is not readable CSV: {error}") from error


def read_columns(reader: Any, path: Path) -> tuple[Columns, Iterable[list[str]]]:
    """Return the meaning of the columns, and the rows after the header. Raises `DataError` if a column is missing."""
    first: list[str] = next(reader, [])
    assumed = _columns_without_header(first)
    if not assumed:
        return sniff_columns(first, path), reader
    unit: Unit = "fractions" if assumed is AUTOML else "pixels"
    columns = replace(sniff_columns(assumed, path), unit=unit, assumed=assumed, first_row=first)
    return columns, chain([first], reader)


def _columns_without_header(first: Sequence[str]) -> Sequence[str]:
    """Return the columns of a file by its first row; empty if that is a header."""

    def fits(columns: Sequence[str]) -> bool:
        named = zip(columns, first, strict=False)
        return all(_is_number_or_empty(text) for name, text in named if name in NUMBERS)

    if len(first) >= len(AUTOML) and first[0].strip().lower() in (*SPLIT_WORDS, "unassigned"):
        return AUTOML if fits(AUTOML) else ()
    if len(first) == len(MAKE_SENSE) and is_image_name(PurePath(first[MAKE_SENSE.index("image")])):
        return MAKE_SENSE if fits(MAKE_SENSE) else ()
    return next((known for known in (WITHOUT_HEADER, SKU_110K) if len(first) == len(known) and fits(known)), ())


def _is_number_or_empty(text: str) -> bool:
    try:
        return not text.strip() or isfinite(float(text))
    except ValueError:
        return False


def are_empty(texts: Iterable[str]) -> bool:
    """Tell whether all fields are empty."""
    return all(text.strip().lower() in EMPTY for text in texts)


def split_box(text: str) -> list[str]:
    """Split the four numbers of one field: `[1, 2, 3, 4]` or `1 2 3 4`."""
    return text.strip().strip("[]()").replace(",", " ").split() or [""]


def class_code(text: str) -> str:
    """Read a class code. Tables of numbers write 1 as 1.0."""
    text = text.strip()
    return str(id_of(text)) if "." in text else text


def split_word(name: str) -> str:
    """Return one word for all names of a split in a column."""
    word = name.strip().lower()
    return "train" if word in UNASSIGNED else SPLIT_WORDS.get(word, word)


def column_values(path: Path, name: Literal["image", "split"]) -> Iterator[str]:
    """Yield the values of a column, if there is one. Raises `DataError` if the file is not one of boxes."""
    with open_rows(path) as reader:
        columns, rows = read_columns(reader, path)
        index = columns.image if name == "image" else columns.split
        if index is not None:
            yield from (row[index] for row in rows if len(row) > index)


def column_splits(path: Path) -> frozenset[str]:
    """Return the splits that a column of a file names, as `split_word`s; none if no column does."""
    try:
        names = set(column_values(path, "split"))
    except DataError:
        return frozenset()
    is_known = any(name.strip().lower() in SPLIT_WORDS for name in names)
    return frozenset(map(split_word, names)) if is_known else frozenset()


def files_with_splits(root: Path) -> dict[Path, frozenset[str]]:
    """Return the files of a folder and its subfolders that name splits in a column, with the splits."""
    return {path: splits for path in files_near(root, SUFFIXES) if (splits := column_splits(path))}
