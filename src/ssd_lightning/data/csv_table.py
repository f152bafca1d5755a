"""The rows of a CSV file with boxes: the meaning of its columns, and the rows of each image."""

import csv
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from ssd_lightning.data.annotation import flag_of, id_of, number_of, whole_number
from ssd_lightning.data.splits import find_file, find_image, find_image_dir, portable_path
from ssd_lightning.errors import DataError

Unit = Literal["pixels", "fractions"]

ANNOTATION_FILES = (
    "{split}.csv",
    "annotations/{split}.csv",
    "{split}/label.csv",
    "{split}/labels.csv",
    "{split}/annotations.csv",
    "{split}/_annotations.csv",
    "{split}-annotations-bbox.csv",
    "oidv6-{split}-annotations-bbox.csv",
)
COLUMN_NAMES = {
    "image": ("imageid", "img_name", "image", "filename", "file_name", "image_path", "path", "image_id"),
    "label": ("labelname", "label", "class", "class_name", "name", "category"),
    "xmin": ("xmin", "x_min", "x1", "left"),
    "ymin": ("ymin", "y_min", "y1", "top"),
    "xmax": ("xmax", "x_max", "x2", "right"),
    "ymax": ("ymax", "y_max", "y2", "bottom"),
    "difficult": ("isgroupof", "difficult", "iscrowd"),
    "width": ("width", "image_width"),
    "height": ("height", "image_height"),
}
"""Accepted column names, in any case. The last three columns are optional."""
OPTIONAL = ("difficult", "width", "height")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
EMPTY = ("", "nan", "na", "n/a", "<na>", "none", "null")
"""Notations for an empty field, in any case."""


@dataclass(slots=True)
class ImageRows:
    """The rows of one image in compact form, since OpenImages has fifteen million."""

    size_px: tuple[int, int] | None = None
    numbers: array = field(default_factory=lambda: array("d"))
    """Seven values per row: line, index of the class name, difficult, four corners."""
    problems: list[str] = field(default_factory=list)


@dataclass
class CSVFile:
    """The unchecked content of one file, image by image."""

    path: Path
    root: Path
    prefix: str
    image_dir: Path
    unit: Unit
    names: list[str] = field(default_factory=list)
    """Class names, in the order of their first rows."""
    rows: dict[str, ImageRows] = field(default_factory=dict)
    """Image -> its rows, in the order of the file."""
    problems: list[str] = field(default_factory=list)


def sniff_columns(header: Sequence[str], path: Path) -> tuple[dict[str, int], Unit]:
    """Find the meaning of each column, and the unit of the corners.

    Args:
        header: first row of the file.
        path: the file, for error messages.

    Returns:
        Meaning (a key of `COLUMN_NAMES`) -> index of the column; the unit.

    Raises:
        DataError: a column is missing.
    """
    given = [name.strip().lower() for name in header]
    columns = {
        meaning: given.index(name)
        for meaning, names in COLUMN_NAMES.items()
        if (name := next((name for name in names if name in given), None)) is not None
    }
    for meaning in COLUMN_NAMES:
        if meaning not in columns and meaning not in OPTIONAL:
            raise DataError(
                f"{path}: there is no column for {meaning} (called {', '.join(COLUMN_NAMES[meaning])}); "
                f"there is {', '.join(header) or 'nothing'}"
            )
    return columns, "fractions" if {"imageid", "labelname"} <= set(given) else "pixels"


def read_csv_file(
    prefix: str,
    root: Path,
    split: str,
    images: str | None,
    unit: Unit | None,
    class_descriptions: str | Mapping[Any, str] | None,
) -> CSVFile:
    """Read the file of a split.

    Args:
        prefix: of the ids of its images.
        root: folder of the data set.
        split: name of the split, or the path of the file below the root.
        images: folder of the images below the root; None searches the usual folders.
        unit: unit of the corners; None decides by the columns.
        class_descriptions: names for codes, or a file of them below the root.

    Raises:
        DataError: the file or a column is missing, or the file is not CSV.
    """
    path = find_file(root, split, ANNOTATION_FILES, ".csv")
    descriptions = _read_descriptions(root, class_descriptions)
    numbers: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            columns, found_unit = sniff_columns(next(reader, []), path)
            file = CSVFile(path=path, root=root, prefix=prefix, image_dir=root, unit=unit or found_unit)
            for row in reader:
                if row:
                    _take_row(file, row, reader.line_num, columns, descriptions, numbers)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: this is not readable CSV: {error}") from error
    file.names = list(numbers)
    samples = [sample for name in islice(file.rows, 10) for sample in dict.fromkeys((name, name.strip()))]
    file.image_dir = find_image_dir(root, path, images, samples=samples)
    _strip_names(file)
    return file


def _strip_names(file: CSVFile) -> None:
    """Strip blanks around image names, unless the file names contain them."""
    stated, file.rows = file.rows, {}
    for name, rows in stated.items():
        stripped = name.strip()
        if stripped != name and find_image(file.image_dir, name, root=file.root) is not None:
            stripped = name
        joined = file.rows.setdefault(stripped, rows)
        if joined is not rows:
            joined.size_px = joined.size_px or rows.size_px
            joined.numbers.extend(rows.numbers)
            joined.problems += rows.problems


def _take_row(
    file: CSVFile,
    row: list[str],
    line: int,
    columns: Mapping[str, int],
    descriptions: Mapping[str, str],
    numbers: dict[str, int],
) -> None:
    if len(row) <= max(columns.values()):
        file.problems.append(f"{file.path}: line {line} has {len(row)} values, not {max(columns.values()) + 1}")
        return
    rows = file.rows.setdefault(portable_path(row[columns["image"]]), ImageRows())
    if rows.size_px is None:
        rows.size_px = _stated_size_px(row, columns)
    name, texts = _code(row[columns["label"]]), [row[columns[corner]] for corner in CORNERS]
    if all(text.strip().lower() in EMPTY for text in (name, *texts)):
        return
    if all(whole_number(text) == -1 for text in texts):
        rows.problems.append(
            f"{file.path}: line {line} '{name}' has -1 for all four corners; an image without objects is written with "
            "class and corners empty"
        )
        return
    name = descriptions.get(name, name)
    index = numbers.setdefault(name, len(numbers))
    try:
        difficult = _is_difficult(row, columns)
        corners = [number_of(text, corner) for text, corner in zip(texts, CORNERS, strict=True)]
    except DataError as error:
        rows.problems.append(f"{file.path}: line {line} '{name}' {error}")
        return
    rows.numbers.extend((line, index, difficult, *corners))


def _is_difficult(row: list[str], columns: Mapping[str, int]) -> bool:
    if "difficult" not in columns:
        return False
    return flag_of(row[columns["difficult"]], "difficult")


def _stated_size_px(row: list[str], columns: Mapping[str, int]) -> tuple[int, int] | None:
    if "width" not in columns or "height" not in columns:
        return None
    height, width = (whole_number(row[columns[side]]) or 0 for side in ("height", "width"))
    return (height, width) if height > 0 and width > 0 else None


def _code(text: str) -> str:
    """Read a class code. Tables of numbers write 1 as 1.0."""
    return str(id_of(text)) if "." in text else text.strip()


def _read_descriptions(root: Path, class_descriptions: str | Mapping[Any, str] | None) -> dict[str, str]:
    if not isinstance(class_descriptions, str):
        for code, name in (class_descriptions or {}).items():
            if not isinstance(name, str):
                raise DataError(f"class_descriptions has {name!r} for {code}, which is not text; write it in quotes")
        return {_code(str(code)): name for code, name in (class_descriptions or {}).items()}
    path = root / class_descriptions
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return {_code(row[0]): row[1].strip() for row in csv.reader(stream) if len(row) >= 2}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot read the class descriptions: {error}") from error
