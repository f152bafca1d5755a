"""Count the images of a folder that no row of a CSV file names."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ssd_lightning.data.formats.csv_columns import list_tables, open_rows, read_columns
from ssd_lightning.data.formats.files import is_within
from ssd_lightning.data.formats.image_dirs import split_of
from ssd_lightning.data.formats.image_files import images_in, portable_path
from ssd_lightning.errors import DataError

MOST_COMPARED = 50_000
"""Images of a folder whose names are compared; of more, the difference of the numbers is told."""


def note_unnamed(root: Path, table: Path, names: Iterable[str], found: Sequence[str]) -> list[str]:
    """Say how many images of the folders of a split have no row.

    Args:
        root: folder of the data set.
        table: file of the split.
        names: images in its rows.
        found: paths of the images that were found.
    """
    counts = Counter(path.rpartition("/")[0] for path in found)
    left: dict[str, set[str]] = {}
    notes = []
    for folder, count in counts.items():
        images = images_in(folder) if is_within(root, Path(folder)) else {}
        total = sum(map(len, images.values()))
        if total > MOST_COMPARED and total > count and _is_of_split(folder, root):
            notes.append(f"{folder}: {total - count} of {total} images have no row in {table} and are skipped")
        elif count < total <= MOST_COMPARED:  # else all have a row, without a look at each
            left[folder] = {name for of_stem in images.values() for name in of_stem}
    named = {*map(_file_name, found), *map(_file_name, names)} if left else set()
    for folder, images_left in left.items():
        without = images_left - _named(images_left, named)
        if without and not _is_of_split(folder, root):  # other files may name them
            for stated in _stated_elsewhere(root, table):
                without -= _named(without, stated)
        if without:
            text = f"images have no row in {table} and are skipped; the first is {min(without)}"
            notes.append(f"{folder}: {len(without)} {text}")
    return notes


def _is_of_split(folder: str, root: Path) -> bool:
    return split_of(Path(os.path.relpath(folder, root))) is not None


def _named(images: Iterable[str], stated: set[str]) -> set[str]:
    """Return the images that are stated, with or without suffix."""
    return {name for name in images if {_file_name(name), os.path.splitext(name)[0]} & stated}


def _stated_elsewhere(root: Path, table: Path) -> Iterator[set[str]]:
    for path in list_tables(root):
        if path != table:
            try:
                with open_rows(path) as reader:
                    columns, rows = read_columns(reader, path)
                    yield {_file_name(row[columns.image]) for row in rows if len(row) > columns.image}
            except DataError:
                continue  # it has no boxes


def _file_name(stated: str) -> str:
    """Return the name of a file without folders, with its suffix in lower case."""
    stem, suffix = os.path.splitext(portable_path(stated).strip().rpartition("/")[2])
    return stem + suffix.lower()
