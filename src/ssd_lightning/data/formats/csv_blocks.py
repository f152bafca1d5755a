"""Read a large CSV file without faults in blocks of rows, by pandas, which is faster than Python's `csv`."""

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssd_lightning.data.formats.csv_columns import Columns, open_rows

log = logging.getLogger(__name__)

LEAST_BYTES = 20_000_000
"""Smaller files are read faster than pandas is imported."""
ROWS_OF_BLOCK = 100_000


class NotPlainError(Exception):
    """A file has to be read row by row."""


class Texts(NamedTuple):
    """A column of texts."""

    codes: np.ndarray
    """Index of each row's text in `different`, `[rows]`."""
    different: Sequence[str]
    """The different texts, in the order of the rows."""

    def at(self, row: int) -> str:
        """Return the text of a row."""
        return self.different[self.codes[row]]

    def numbers(self, number_of: Callable[[str], int]) -> np.ndarray:
        """Turn the texts into numbers, int64 `[rows]`; each different text is asked for once."""
        return np.array([number_of(text) for text in self.different], np.int64)[self.codes]


class Block(NamedTuple):
    """Some rows, each of an object."""

    first_line: int
    image: Texts
    label: Texts | None
    difficult: Texts | None
    size: tuple[Texts, Texts] | None
    """Height and width of the image."""
    boxes: np.ndarray
    """Finite numbers, `[rows, 4]`."""


def read_blocks(path: Path, columns: Columns) -> Iterator[Block]:
    """Read a file with a header.

    Raises `NotPlainError` if something has to be looked at row by row: an empty field, a box that is no four numbers,
    lines of several lengths; or if the file is small, is not UTF-8, or pandas is not installed.
    """
    if columns.assumed or len(columns.box) < 4 or path.stat().st_size < LEAST_BYTES:
        raise NotPlainError
    if importlib.util.find_spec("pandas") is None:
        log.info("%s: pip install 'ssd-lightning[csv]' (pandas) reads large files faster", path)
        raise NotPlainError
    import pandas as pd

    with open_rows(path) as reader:
        num_columns, separator, num_read = len(next(reader)), reader.dialect.delimiter, reader.line_num
    texts = {columns.image, columns.label, columns.difficult, *(columns.size or ())} - {None}
    kinds: dict[Any, Any] = dict.fromkeys(texts, object) | dict.fromkeys(columns.box, np.float64)
    exactly = {"float_precision": "round_trip"} if "float_precision" in signature(pd.read_csv).parameters else {}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The 'float_precision' argument is deprecated")
            blocks = pd.read_csv(
                path,
                sep=separator,
                header=None,
                skiprows=1,
                names=range(num_columns),
                usecols=sorted(kinds),
                index_col=False,  # rows with more fields are allowed
                dtype=kinds,
                na_filter=False,
                skip_blank_lines=False,
                chunksize=ROWS_OF_BLOCK,
                encoding="utf-8-sig",
                **exactly,
            )
        with blocks as frames:
            for frame in frames:
                yield _block(frame, columns, first_line=num_read + 1)
                num_read += len(frame)
    except (ValueError, OverflowError, OSError) as error:
        raise NotPlainError from error
    if num_read != _count_lines(path):  # a field with a line break
        raise NotPlainError


def _block(frame: Any, columns: Columns, *, first_line: int) -> Block:
    import pandas as pd

    def texts(index: int) -> Texts:
        codes, different = pd.factorize(frame[index])
        if (codes < 0).any() or not all(map(str.strip, different)):
            raise NotPlainError
        return Texts(codes, different.tolist())

    boxes = frame[list(columns.box)].to_numpy()
    if not np.isfinite(boxes).all() or (boxes == -1).all(1).any():
        raise NotPlainError
    return Block(
        first_line=first_line,
        image=texts(columns.image),
        label=None if columns.label is None else texts(columns.label),
        difficult=None if columns.difficult is None else texts(columns.difficult),
        size=None if columns.size is None else (texts(columns.size[0]), texts(columns.size[1])),
        boxes=boxes,
    )


def _count_lines(path: Path) -> int:
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            count, last = count + chunk.count(b"\n"), chunk[-1:]
    return count + (last != b"\n")
