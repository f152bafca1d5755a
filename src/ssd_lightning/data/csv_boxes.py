"""One CSV row an object: the columns of OpenImages, of d2l.ai's bananas, and of most other tools."""

import csv
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from ssd_lightning.data.annotation import (
    Objects,
    check_class_names,
    checked_box,
    flag_of,
    label_of,
    number_classes,
    number_of,
    refuse_fractions,
    refuse_pixels,
)
from ssd_lightning.data.dataset import DetectionDataset, OnError, Part, Record, Transform
from ssd_lightning.data.images import image_size_px
from ssd_lightning.data.splits import (
    ReadPicture,
    collect_records,
    find_file,
    find_image_dir,
    find_picture,
    open_splits,
    picture_id,
)
from ssd_lightning.errors import ConfigurationError, DataError

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
"""What a column can be called, in any case. The last three may be missing."""
OPTIONAL = ("difficult", "width", "height")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


class CSVDataset(DetectionDataset):
    """Pictures with boxes from CSV files, from one or more splits.

    The header tells the columns (`COLUMN_NAMES`). A picture comes once, however many rows it has; a row whose
    class and corners are empty stands for a picture without objects.

    Args:
        splits: each a `root` and a `split`: the name in `NAME.csv`, `NAME/label.csv` or another place of
            `ANNOTATION_FILES`, or the path of the CSV file below the root.
        images: folder of the pictures below the root; None looks in the usual places.
        unit: what the corners count; None takes fractions for files with OpenImages' columns, else pixels.
        class_descriptions: names for codes such as /m/0k4j or 0: a mapping, or a file of (code, name) rows
            below the root; None leaves them as they are.
        class_names: names of the classes 1..C; None takes all names that occur in the splits, sorted.
        transform: what is done to each sample; None gives the picture as it is.
        seed: root of all samples' seeds.
        keep_difficult: False drops difficult objects, and groups, which OpenImages flags `IsGroupOf`.
        on_error: `raise` stops at the first bad object or picture; `skip` drops and lists them.
        part: `train` and `val` are complementary parts of the data, `all` is everything.
        val_fraction: share of the pictures that `val` holds.
        max_pictures: take only the first so many of the part.

    Raises:
        ConfigurationError: there is no such unit.
        DataError: a root, split, column or picture is missing or unusable; class names are empty or repeated;
            no picture is left.
    """

    def __init__(
        self,
        *,
        splits: Sequence[Mapping[str, str]],
        images: str | None = None,
        unit: Unit | None = None,
        class_descriptions: str | Mapping[Any, str] | None = None,
        class_names: Sequence[str] | None = None,
        transform: Transform | None = None,
        seed: int = 0,
        keep_difficult: bool = True,
        on_error: OnError = "raise",
        part: Part = "all",
        val_fraction: float = 0.0,
        max_pictures: int | None = None,
    ) -> None:
        if unit is not None and unit not in get_args(Unit):
            raise ConfigurationError(f"unit={unit!r}: it is one of {get_args(Unit)}, or null to go by the columns")
        files = [_read_file(*opened, images, unit, class_descriptions) for opened in open_splits(splits)]
        if class_names is None:
            class_names = sorted({name for file in files for name in file.names if name})
            if not class_names:
                shown = ", ".join(str(file.path) for file in files) or "no split at all"
                raise DataError(f"no object in {shown} has a class name; give class_names")
        check_class_names(class_names)
        labels = number_classes(class_names)
        records, dropped = collect_records(
            (picture for file in files for picture in _pictures(file, labels, keep_difficult)),
            on_error=on_error,
            part=part,
            val_fraction=val_fraction,
            max_pictures=max_pictures,
            problems=[problem for file in files for problem in file.problems],
        )
        super().__init__(
            records=records,
            class_names=class_names,
            transform=transform,
            seed=seed,
            on_error=on_error,
            part=part,
            val_fraction=val_fraction,
            dropped=dropped,
        )


@dataclass(slots=True)
class _Rows:
    """The rows of one picture, packed: OpenImages has fifteen million."""

    size_px: tuple[int, int] | None = None
    numbers: array = field(default_factory=lambda: array("d"))
    """Seven a row: line, index of the class name, difficult, four corners."""
    problems: list[str] = field(default_factory=list)


@dataclass
class _File:
    path: Path
    prefix: str
    image_dir: Path
    unit: Unit
    names: list[str] = field(default_factory=list)
    rows: dict[str, _Rows] = field(default_factory=dict)
    """Picture -> its rows, in the order of the file."""
    problems: list[str] = field(default_factory=list)


def sniff_columns(header: Sequence[str], path: Path) -> tuple[dict[str, int], Unit]:
    """Find out which column is what, and what the corners count.

    Args:
        header: first row of the file.
        path: the file, for the error.

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


def _read_file(
    prefix: str,
    root: Path,
    split: str,
    images: str | None,
    unit: Unit | None,
    class_descriptions: str | Mapping[Any, str] | None,
) -> _File:
    path = find_file(root, split, ANNOTATION_FILES, ".csv")
    descriptions = _read_descriptions(root, class_descriptions)
    numbers: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            columns, found_unit = sniff_columns(next(reader, []), path)
            file = _File(path=path, prefix=prefix, image_dir=root, unit=unit or found_unit)
            for row in reader:
                if row:
                    _take_row(file, row, reader.line_num, columns, descriptions, numbers)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: this is no readable CSV: {error}") from error
    file.names = list(numbers)
    file.image_dir = find_image_dir(root, path, images, samples=list(islice(file.rows, 10)))
    return file


def _take_row(
    file: _File,
    row: list[str],
    line: int,
    columns: Mapping[str, int],
    descriptions: Mapping[str, str],
    numbers: dict[str, int],
) -> None:
    if len(row) <= max(columns.values()):
        file.problems.append(f"{file.path}: line {line} has {len(row)} values, not {max(columns.values()) + 1}")
        return
    rows = file.rows.setdefault(row[columns["image"]].strip(), _Rows())
    if rows.size_px is None:
        rows.size_px = _stated_size_px(row, columns)
    name, texts = row[columns["label"]].strip(), [row[columns[corner]] for corner in CORNERS]
    if not name and not any(text.strip() for text in texts):
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
    text = row[columns["difficult"]].strip()
    return text not in ("", "-1") and flag_of(text, "difficult")  # OpenImages: -1 is unknown


def _stated_size_px(row: list[str], columns: Mapping[str, int]) -> tuple[int, int] | None:
    if "width" not in columns or "height" not in columns:
        return None
    texts = row[columns["height"]].strip(), row[columns["width"]].strip()
    height, width = (int(text) if text.isdecimal() else 0 for text in texts)
    return (height, width) if height and width else None


def _read_descriptions(root: Path, class_descriptions: str | Mapping[Any, str] | None) -> dict[str, str]:
    if not isinstance(class_descriptions, str):
        return {str(code): name for code, name in (class_descriptions or {}).items()}
    path = root / class_descriptions
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return {row[0].strip(): row[1].strip() for row in csv.reader(stream) if len(row) >= 2}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot read the class descriptions: {error}") from error


def _pictures(file: _File, labels: Mapping[str, int], keep_difficult: bool) -> Iterator[tuple[str, ReadPicture]]:
    seen: set[str] = set()
    for name, rows in file.rows.items():
        image_id = file.prefix + picture_id(name, seen)
        yield image_id, partial(_read_picture, file, name, rows, image_id, labels, keep_difficult)


def _read_picture(
    file: _File, name: str, rows: _Rows, image_id: str, labels: Mapping[str, int], keep_difficult: bool
) -> tuple[Record, list[str]]:
    image_path = find_picture(file.image_dir, name)
    if image_path is None:
        raise DataError(f"{file.image_dir / name}: the picture is missing (stated by {file.path})")
    size_px = rows.size_px or image_size_px(image_path)
    height, width = size_px
    objects = Objects()
    objects.problems += rows.problems
    for start in range(0, len(rows.numbers), 7):
        line, index, difficult, *corners = rows.numbers[start : start + 7]
        class_name = file.names[int(index)]
        with objects.judging(f"{file.path}: line {int(line)} '{class_name}' of {image_path.name}"):
            if difficult and not keep_difficult:
                continue
            label = label_of(class_name, labels)
            if file.unit == "pixels":
                refuse_fractions(corners, size_px)
            else:
                refuse_pixels(corners)
                corners = [share * side for share, side in zip(corners, (width, height) * 2, strict=True)]
            objects.add(label=label, box_xyxy_px=checked_box(corners, size_px), difficult=bool(difficult))
    return objects.record(image_id=image_id, image_path=image_path, size_px=size_px), objects.problems
