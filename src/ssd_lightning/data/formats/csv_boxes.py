"""CSV files with one object per row: the columns of OpenImages, RetinaNet, Kaggle, TensorFlow and most other tools."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, get_args

from ssd_lightning.checks import require_choice
from ssd_lightning.data.annotation_checks import BoxNotation, Unit
from ssd_lightning.data.formats.builder import TableBuilder
from ssd_lightning.data.formats.csv_columns import (
    SUFFIXES,
    class_code,
    column_splits,
    column_values,
    files_with_splits,
    open_rows,
    split_word,
)
from ssd_lightning.data.formats.csv_rows import Rows
from ssd_lightning.data.formats.files import MissingSplitError, files_near, is_within
from ssd_lightning.data.formats.found import ONLY_CLASS
from ssd_lightning.data.formats.image_files import images_in, note_skipped, portable_path
from ssd_lightning.data.formats.single_file import SingleFileFormat
from ssd_lightning.data.split_annotations import Annotations
from ssd_lightning.data.split_names import kind_of
from ssd_lightning.errors import DataError

CORNERS_ADVICE = "write them in four columns, xmin, ymin, xmax, ymax, or x, y, w, h if they are sizes"


@dataclass(frozen=True, kw_only=True)
class CSV(SingleFileFormat):
    """Reads boxes from CSV files.

    A split is the name in `NAME.csv`, `NAME/label.csv` or another entry of `locations`, or the path of the CSV file
    below the root. In a file with a column for it (`SPLIT`), a split is its rows. Commas, semicolons or tabs separate
    the values. The header names the columns; without one they are those of `WITHOUT_HEADER`, `SKU_110K`,
    `MAKE_SENSE` or `AUTOML`. Rows of the same image are merged. A row with an empty box stands for an image without
    objects if its class is empty, too, or has no box in any row.

    Args:
        images: see `SingleFileFormat`.
        unit: unit of the boxes; None means fractions for files with OpenImages' columns, else pixels.
        class_descriptions: names for codes such as /m/0k4j or 0: a mapping, or a file of (code, name) rows below the
            root; None keeps the codes, but takes the names of FiftyOne's `metadata/classes.csv`.

    Raises:
        ConfigurationError: `unit` is unknown.
    """

    choice = "csv_folder"
    locations = tuple(
        pattern + suffix
        for suffix in SUFFIXES
        for pattern in (
            "{split}/labels/detections",
            "{split}",
            "annotations/{split}",
            "{split}/label",
            "{split}/labels",
            "{split}/annotations",
            "{split}/_annotations",
            "{split}-annotations-bbox",
            "oidv6-{split}-annotations-bbox",
            "{split}_labels",
        )
    )

    unit: Unit | None = None
    class_descriptions: str | Mapping[Any, str] | None = None

    def __post_init__(self) -> None:
        require_choice("data.unit", self.unit, (*get_args(Unit), None))

    def read(self, root: Path, split: str) -> Annotations:
        """Read a split. Raises `DataError` if there is no such split, or it cannot be read."""
        path, word = self._find_split(root, split)
        descriptions = self.class_descriptions
        if descriptions is None and path.match("labels/detections.csv"):  # FiftyOne's copy of OpenImages
            names = path.parent.parent / "metadata/classes.csv"
            descriptions = os.path.relpath(names, root) if os.path.isfile(names) else None
        rows = Rows(path, _read_descriptions(root, descriptions), split=word)
        columns = rows.columns
        samples = [sample for name in [*rows.images][:10] for sample in dict.fromkeys((name, name.strip()))]
        image_dir = self.image_dir(root, path, samples, split=word)

        builder = TableBuilder(
            item_format="line {item} '{name}' of {image}",
            notation=BoxNotation(box_format=columns.box_format, unit=self.unit or columns.unit),
            corners_advice=CORNERS_ADVICE if len(columns.box) == 1 else "",
        )
        rows.fill(builder, image_dir, root)
        builder.notes += rows.notes
        builder.notes += _note_unnamed(root, path, rows.names, builder.paths)
        if columns.label is None:
            builder.notes.append(f"{path}: there is no column for the class; all objects are '{ONLY_CLASS}'")
        builder.sources.append(str(path))
        if isinstance(descriptions, str):
            builder.sources.append(str(root / descriptions))
        return builder.finish(root)

    def files(self, root: Path, split: str) -> Iterable[str]:
        """Return the file of a split, or a path for each split in it. Raises `DataError` if there is no such split."""
        path, word = self._find_split(root, split)
        file = os.path.realpath(path)
        return [f"{file}/{one}" for one in ([word] if word else column_splits(path))] or [file]

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
        is_part = not split.endswith(SUFFIXES) and word in column_splits(path)
        return path, word if is_part else None


def _read_descriptions(root: Path, class_descriptions: str | Mapping[Any, str] | None) -> dict[str, str]:
    if isinstance(class_descriptions, str):
        with open_rows(root / class_descriptions) as rows:
            return {class_code(row[0]): row[1].strip() for row in rows if len(row) >= 2}
    for code, name in (class_descriptions or {}).items():
        if not isinstance(name, str):
            raise DataError(f"class_descriptions has {name!r} for {code}, which is not text; write it in quotes")
    return {class_code(str(code)): name for code, name in (class_descriptions or {}).items()}


def _note_unnamed(root: Path, table: Path, names: Iterable[str], found: Sequence[str]) -> list[str]:
    """Say how many images in the folders of the `found` ones have no row; `names` are all that the rows name."""
    named: set[str] = set()
    notes = []
    for folder, count in Counter(path.rpartition("/")[0] for path in found).items():
        images = images_in(folder) if is_within(root, Path(folder)) else {}
        left = set(chain.from_iterable(images.values()))
        if count >= len(left):
            continue  # all have a row, without a look at each
        named = named or set(map(_file_name, chain(found, names)))
        may_be_elsewhere = kind_of(os.path.relpath(folder, root)) is None  # other files may name them
        for stated in chain([named], _stated_elsewhere(root, table) if may_be_elsewhere else ()):
            left = {name for name in left if stated.isdisjoint((_file_name(name), os.path.splitext(name)[0]))}
        notes += note_skipped(folder, sorted(left), f"row in {table}")
    return notes


def _stated_elsewhere(root: Path, table: Path) -> Iterator[set[str]]:
    for path in files_near(root, SUFFIXES):
        if path != table:
            with suppress(DataError):  # it has no boxes
                yield set(map(_file_name, column_values(path, "image")))


def _file_name(stated: str) -> str:
    stem, suffix = os.path.splitext(portable_path(stated).strip().rpartition("/")[2])
    return stem + suffix.lower()
