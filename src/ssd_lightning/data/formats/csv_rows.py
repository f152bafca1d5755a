"""The rows of CSV files: an object in each."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache, partial
from itertools import chain, count, repeat
from pathlib import Path

import numpy as np

from ssd_lightning.data.annotation_checks import box_numbers, flag_of, stated_size_px
from ssd_lightning.data.formats.builder import TableBuilder
from ssd_lightning.data.formats.csv_blocks import Block, NotPlainError, read_blocks
from ssd_lightning.data.formats.csv_columns import (
    WITHOUT_HEADER,
    Columns,
    are_empty,
    class_code,
    open_rows,
    read_columns,
    split_box,
    split_word,
)
from ssd_lightning.data.formats.found import ONLY_CLASS, FoundObject, ObjectColumns
from ssd_lightning.data.formats.image_files import ImageDir, ImageFinder, find_image, portable_path
from ssd_lightning.errors import DataError

log = logging.getLogger(__name__)

MAX_CLASSES = 1000
"""A column with larger numbers is not taken for class numbers."""
NO_LABEL = ("nan", "<na>")
"""What pandas writes for a missing class."""

_size_px = lru_cache(stated_size_px)  # most images of a file have one of a few sizes


def read_rows(path: Path, descriptions: Mapping[str, str], *, split: str | None) -> "Rows":
    """Read a file, in blocks if that is possible. Raises `DataError` if it cannot be read, or a column is missing."""
    rows = Rows(path, descriptions, split=split)
    try:
        rows.read_in_blocks()
    except NotPlainError:
        rows = Rows(path, descriptions, split=split)
        rows.read()
    return rows


class Rows:
    """The rows of a file, before its images are known; those of one split, or all.

    `descriptions` is code of a class -> its name.
    """

    def __init__(self, path: Path, descriptions: Mapping[str, str], *, split: str | None) -> None:
        self.path = path
        self.columns: Columns
        self._split = split
        self.images: dict[str, int] = defaultdict(count().__next__)
        """Name of an image -> its number, in the order of the file."""
        self.notes: list[str] = []
        self._others: set[str] = set()
        self._labels_elsewhere: set[str] = set()
        """Classes that have a box in another split."""
        self._sizes_px: list[tuple[int, int] | None] = []
        self._labels: dict[str, int] = defaultdict(count().__next__)
        self._objects = ObjectColumns()
        self._faults: list[tuple[int, FoundObject]] = []
        self._boxless: list[tuple[int, FoundObject]] = []
        self._short: list[str] = []
        self._name_of = cache(lambda code: descriptions.get(class_code(code), class_code(code)))
        self._label_of = cache(lambda code: self._labels[self._name_of(code)])
        self._is_difficult = cache(lambda text: flag_of(text, "difficult"))

    def read_in_blocks(self) -> None:
        """Read a large file without faults. Raises `NotPlainError` if it is none, and `DataError` as `read`."""
        if self._split is not None:
            raise NotPlainError
        with open_rows(self.path) as reader:
            self.columns, _ = read_columns(reader, self.path)
        try:
            for block in read_blocks(self.path, self.columns):
                self._add_block(block)
        except DataError as error:
            raise NotPlainError from error

    def read(self) -> None:
        """Read the file. Raises `DataError` if it cannot be read, or a column is missing."""
        with open_rows(self.path) as reader:
            self.columns, rows = read_columns(reader, self.path)
            for row in rows if self._split is None else self._of_split(rows):
                self._add(reader.line_num, row)
        self._settle_boxless()
        columns = self.columns
        if columns.assumed:
            text = f"{self.path}: there is no header, so the columns are {','.join(columns.assumed)}; the first row is"
            text += f" {','.join(columns.first_row)}"
            if columns.assumed == WITHOUT_HEADER and self._has_class_second():
                seems = "in all rows the second column may be the class, and the next four the box"
                raise DataError(f"{text}; {seems}; add a header that names the columns")
            log.info("%s", text)

    @property
    def names(self) -> Iterator[str]:
        """The names of the images of all splits."""
        return chain(self.images, self._others)

    def _of_split(self, rows: Iterable[list[str]]) -> Iterator[list[str]]:
        columns = self.columns
        for row in rows:
            if columns.split is None or len(row) <= columns.split or split_word(row[columns.split]) == self._split:
                yield row
                continue
            if len(row) > columns.image:
                self._others.add(row[columns.image])
            if columns.label is None or len(row) < columns.fewest:
                continue
            if not are_empty(row[index] for index in columns.box):
                self._labels_elsewhere.add(self._name_of(row[columns.label]))

    def _has_class_second(self) -> bool:
        """Tell whether all rows can be image, class number, x1, y1, x2, y2 instead of `WITHOUT_HEADER`."""
        try:
            last_of = np.array([float(name) for name in self._labels])
        except ValueError:
            return False
        _, labels, _, _, boxes = self._objects.arrays()
        second, x1, y1, x2 = boxes.T
        y2 = last_of[labels]
        may_be_classes = (second >= 0) & (second < MAX_CLASSES) & (second == np.floor(second))
        are_few = 0 < len(np.unique(second)) <= len(last_of)
        return are_few and bool((may_be_classes & (x1 < x2) & (y1 < y2)).all())

    def _add(self, line: int, row: Sequence[str]) -> None:
        columns = self.columns
        if not row:
            return
        if len(row) < columns.fewest:
            self._short.append(f"line {line} has {len(row)} values, not {columns.fewest}")
            return
        image = self.images[row[columns.image]]
        if image == len(self._sizes_px):
            self._sizes_px.append(None)
        if columns.size is not None and self._sizes_px[image] is None:
            self._sizes_px[image] = _size_px(*(row[index] for index in columns.size))
        name = self._name_of(ONLY_CLASS if columns.label is None else row[columns.label])
        name = "" if name.lower() in NO_LABEL else name
        texts = [row[index] for index in columns.box] if len(columns.box) == 4 else split_box(row[columns.box[0]])
        difficult = False
        try:
            difficult = columns.difficult is not None and self._is_difficult(row[columns.difficult])
            numbers = box_numbers(texts, columns.box_format)
            if numbers == [-1, -1, -1, -1]:
                text = "has -1 for all four numbers of its box"
                raise DataError(f"{text}; an image without objects is written with class and box empty")
        except DataError as error:
            fault = image, FoundObject(name, str(error), line, difficult)
            if not are_empty(texts):
                self._faults.append(fault)
            elif columns.label is not None and not are_empty([name]):
                self._boxless.append(fault)
            return
        self._objects.append(image, self._labels[name], line, difficult, numbers)

    def _settle_boxless(self) -> None:
        """Take classes that never have a box, such as "No finding", for images without objects."""
        known = {*self._labels, *self._labels_elsewhere}
        counts = Counter(found.name for _, found in self._boxless if found.name not in known)
        self.notes += [
            f"{self.path}: '{name}' has no box in any row, so its {number} rows are images without objects"
            for name, number in counts.items()
        ]
        self._faults += [fault for fault in self._boxless if fault[1].name not in counts]

    def _add_block(self, block: Block) -> None:
        """Add rows. Raises `NotPlainError` if a size or a flag needs a closer look."""
        known = len(self.images)
        images = block.image.numbers(self.images.__getitem__)
        self._sizes_px += repeat(None, len(self.images) - known)
        if block.size is not None:
            heights, widths = block.size
            numbers, first_rows = np.unique(images, return_index=True)
            for number, row in zip(numbers.tolist(), first_rows.tolist(), strict=True):
                if number >= known:
                    self._sizes_px[number] = _size_px(heights.at(row), widths.at(row))
            if None in self._sizes_px[known:]:
                raise NotPlainError
        num_rows = len(images)
        if block.label is not None and any(text.strip().lower() in NO_LABEL for text in block.label.different):
            raise NotPlainError
        if block.label is None:
            labels = np.full(num_rows, self._label_of(ONLY_CLASS))
        else:
            labels = block.label.numbers(self._label_of)
        flags = np.zeros(num_rows) if block.difficult is None else block.difficult.numbers(self._is_difficult)
        self._objects.extend(images, labels, block.first_line + np.arange(num_rows), flags, block.boxes)

    def fill(self, builder: TableBuilder, image_dir: ImageDir, root: Path) -> None:
        """Add the images in a folder, and their objects."""
        for text in self._short:
            builder.fail_file(self.path, text)
        names = [_stripped(stated, image_dir.path, root) for stated in self.images]
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
        label_of = np.array([builder.label(name) for name in self._labels], np.int64)
        image, label, *others = self._objects.arrays()
        kept = index_of[image] >= 0
        builder.objects.extend(index_of[image][kept], label_of[label][kept], *(values[kept] for values in others))
        builder.sources += finder.folders


def _stripped(stated: str, image_dir: Path, root: Path) -> str:
    """Strip blanks around an image's name, unless the file's name contains them."""
    name = portable_path(stated)
    stripped = name.strip()
    return name if stripped != name and find_image(image_dir, name, root=root) else stripped
