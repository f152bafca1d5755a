"""What single fields of a CSV file say: boxes, codes of classes, and nothing at all."""

from collections.abc import Iterable, Sequence
from math import isfinite

from ssd_lightning.data.annotation_checks import BOX_KEYS, BoxFormat, id_of, number_of
from ssd_lightning.errors import DataError

EMPTY = ("", "nan", "na", "n/a", "<na>", "none", "null", "[]")
"""Notations for an empty field, in any case."""
NOTHING = [-1.0, -1.0, -1.0, -1.0]
NO_LABEL = ("nan", "<na>")
"""What pandas writes for a missing class."""


def are_empty(texts: Iterable[str]) -> bool:
    """Tell whether all fields are empty."""
    return all(text.strip().lower() in EMPTY for text in texts)


def read_box(texts: Sequence[str], box_format: BoxFormat) -> list[float]:
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


def split_box(text: str) -> list[str]:
    """Split the four numbers of one field: `[1, 2, 3, 4]` or `1 2 3 4`."""
    return text.strip().strip("[]()").replace(",", " ").split() or [""]


def class_code(text: str) -> str:
    """Read a class code. Tables of numbers write 1 as 1.0."""
    text = text.strip()
    return str(id_of(text)) if "." in text else text
