"""The rows of CSV files: an object in each."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, count
from pathlib import Path

import numpy as np

from ssd_lightning.data.annotation_checks import box_numbers, flag_of, stated_size_px
from ssd_lightning.data.formats.builder import TableBuilder
from ssd_lightning.data.formats.csv_columns import (
    WITHOUT_HEADER,
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


class Rows:
    """The rows of a file, before its images are known; those of one split, or all.

    `descriptions` is code of a class -> its name. Raises `DataError` if a file cannot be read, or a column is missing.
    """

    def __init__(self, path: Path, descriptions: Mapping[str, str], *, split: str | None) -> None:
        self.path = path
        self.images: dict[str, int] = defaultdict(count().__next__)
        """Name of an image -> its number, in the order of the file."""
        self.notes: list[str] = []
        self._descriptions = descriptions
        self._other_images: set[str] = set()
        self._labels_elsewhere: set[str] = set()
        """Classes that have a box in another split."""
        self._sizes_px: dict[int, tuple[int, int] | None] = {}
        self._labels: dict[str, int] = defaultdict(count().__next__)
        self._objects = ObjectColumns()
        self._faults: list[tuple[int, FoundObject]] = []
        self._boxless: list[tuple[int, FoundObject]] = []
        self._short: list[str] = []
        with open_rows(path) as reader:
            self.columns, rows = read_columns(reader, path)
            for row in rows if split is None else self._of_split(rows, split):
                self._add(reader.line_num, row)
        self._settle_boxless()
        if self.columns.assumed:
            self._check_assumed_columns()

    @property
    def names(self) -> Iterator[str]:
        """The names of the images of all splits."""
        return chain(self.images, self._other_images)

    def _of_split(self, rows: Iterable[list[str]], split: str) -> Iterator[list[str]]:
        columns = self.columns
        for row in rows:
            if columns.split is None or len(row) <= columns.split or split_word(row[columns.split]) == split:
                yield row
                continue
            if len(row) > columns.image:
                self._other_images.add(row[columns.image])
            if columns.label is None or len(row) < columns.fewest:
                continue
            if not are_empty(row[index] for index in columns.box):
                self._labels_elsewhere.add(self._name_of(row[columns.label]))

    def _name_of(self, stated: str) -> str:
        code = class_code(stated)
        return self._descriptions.get(code, code)

    def _add(self, line: int, row: Sequence[str]) -> None:
        columns = self.columns
        if not row:
            return
        if len(row) < columns.fewest:
            self._short.append(f"line {line} has {len(row)} values, not {columns.fewest}")
            return
        image = self.images[row[columns.image]]
        if columns.size is not None and self._sizes_px.get(image) is None:
            self._sizes_px[image] = stated_size_px(*(row[index] for index in columns.size))
        name = self._name_of(ONLY_CLASS if columns.label is None else row[columns.label])
        name = "" if name.lower() in NO_LABEL else name
        texts = [row[index] for index in columns.box] if len(columns.box) == 4 else split_box(row[columns.box[0]])
        difficult = False
        try:
            difficult = columns.difficult is not None and flag_of(row[columns.difficult], "difficult")
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

    def _check_assumed_columns(self) -> None:
        assumed, first_row = self.columns.assumed, self.columns.first_row
        text = f"{self.path}: there is no header, so the columns are {','.join(assumed)}; the first row is"
        text += f" {','.join(first_row)}"
        if assumed == WITHOUT_HEADER and self._has_class_second():
            seems = "in all rows the second column may be the class, and the next four the box"
            raise DataError(f"{text}; {seems}; add a header that names the columns")
        log.info("%s", text)

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

    def fill(self, builder: TableBuilder, image_dir: ImageDir, root: Path) -> None:
        """Add the images in a folder, and their objects."""
        for text in self._short:
            builder.fail_file(self.path, text)
        names = [_stripped(stated, image_dir.path, root) for stated in self.images]
        finder = ImageFinder(image_dir, set(names), root=root, stated_by=self.path)
        indices: dict[str, int | None] = {}
        for number, name in enumerate(names):
            if name not in indices:
                size_px = self._sizes_px.get(number)
                indices[name] = builder.add_named_image(name, partial(finder, name), size_px=size_px, file=self.path)
        index_of = np.array([-1 if (index := indices[name]) is None else index for name in names], np.int64)
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
