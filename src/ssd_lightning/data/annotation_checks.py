"""Checks of annotated objects in any file format, and the problems that they find.

The texts about an object start with the verb; the reader adds file, object and class name in front.
"""

import difflib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from ssd_lightning.errors import DataError, one_line

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]
Unit = Literal["pixels", "fractions"]
BOX_KEYS = {"xyxy": ("xmin", "ymin", "xmax", "ymax"), "cxcywh": ("cx", "cy", "w", "h"), "xywh": ("x", "y", "w", "h")}
"""What messages call the four numbers of a box."""

RANGE_TOLERANCE_PX = 1
"""Annotation tools round: a box is clipped up to this far outside the image, and is an error beyond it."""
LARGEST_FRACTION = 1.5
"""Allowed excess of a fraction for boxes drawn over the edge. A larger number must be in pixels."""


ProblemKind = Literal[
    "annotation",  # a file or an object that cannot be read
    "image",  # an image that cannot be decoded
    "missing",  # an image or a file that does not exist
    "image_size",  # an image of another size than its annotation says
    "unknown_class",
    "fractions",  # where pixels are expected
    "pixels",  # where fractions are expected
    "inverted",
    "outside",  # more than a pixel outside of the image
    "no_area",
]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A part of the data that cannot be used as it is. `str` gives a sentence."""

    file: str
    item: str = ""
    """The object in the file, such as `line 3 'cat'`; empty if the problem is the file or the image."""
    kind: ProblemKind
    text: str
    """What is wrong, with the value; starts with a verb if there is an item."""
    image_id: str | None = None
    """None if the problem belongs to no image."""
    id_in_set: str | None = None
    """The image's id before sets were joined, if they were. It decides whether the image is held out."""
    name: str = ""
    """Class name of the object."""
    position: int = 0
    """Number of usable images before this one."""
    label: int = 0
    """Label of the object among `Annotations.names`; 0 if it is unknown or there is no object."""
    difficult: bool = False
    is_clipped: bool = False
    """The part of the box inside of the image is in the table, among the objects that overhang."""
    reach_px: tuple[float, float] | None = None
    """Of a box outside of the image: its right and lower edge."""

    def __str__(self) -> str:
        item = f" {self.item}" if self.item else ""
        return one_line(f"{self.file}:{item} {self.text}")


def describe_problems(problems: Sequence[Problem], advice: str = "") -> str:
    """Describe the first of some problems, with an advice, and tell how many more there are."""
    more = f"; there are {len(problems) - 1} more problems" if len(problems) > 1 else ""
    return f"{problems[0]}{advice}{more}"


def check_class_names(class_names: Sequence[str]) -> None:
    """Raise `DataError` unless a class list is a non-empty list of distinct texts."""
    if not isinstance(class_names, Sequence) or isinstance(class_names, str) or not class_names:
        raise DataError(f"class_names is {class_names!r}; it has to be a list of at least one name")
    for name in class_names:
        if not isinstance(name, str):
            advice = """write such a name in quotes, on the command line as in 'data.class_names=["no","010"]'"""
            raise DataError(f"class_names has {name!r}, which is not text; {advice}")
        if not name.strip():
            raise DataError(f"class_names has {name!r}, which is an empty name")
    repeated = [name for name, count in Counter(class_names).items() if count > 1]
    if repeated:
        raise DataError(f"class_names has {', '.join(map(repr, repeated))} more than once")


def as_class_names(class_names: Sequence[str] | np.ndarray) -> tuple[str, ...]:
    """Check a class list, also one of numpy, and return plain texts. Raises `DataError`, see `check_class_names`."""
    names: Any = class_names.tolist() if isinstance(class_names, np.ndarray) else class_names
    check_class_names(names)
    return tuple(map(str, names))


def unknown_class_text(name: str, class_names: Sequence[str]) -> str:
    """Say that an object is of no known class, with the nearest name."""
    close = difflib.get_close_matches(name, class_names, n=1)
    nearest = f"; the nearest is '{close[0]}'" if close else f": {', '.join(class_names)}"
    return f"is of none of the {len(class_names)} classes{nearest}"


def number_of(value: object, what: str) -> float:
    """Read a number from text or JSON. Raises `DataError` if it is not a number, or not finite."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"has {what} {value!r}, which is not a number") from None
    if not math.isfinite(number):
        raise DataError(f"has {what} {value!r}, which is not finite")
    return number


def numbers_of(values: Mapping[str, Any], *keys: str) -> list[float]:
    """Read the numbers under some keys as `number_of` does."""
    return [number_of(values.get(key), key) for key in keys]


def box_numbers(values: Any, box_format: BoxFormat = "xyxy") -> list[float]:
    """Read the four numbers of a box as `number_of` does."""
    if not isinstance(values, list | tuple) or len(values) != 4:
        raise DataError(f"has the box {values!r}, not four numbers")
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        numbers = [math.nan]
    if math.isfinite(sum(numbers)):
        return numbers  # nearly all, in half the time
    return [number_of(value, key) for key, value in zip(BOX_KEYS[box_format], values, strict=True)]


def whole_number(value: object) -> int | None:
    """Read a whole number in any notation (1, 1.0, "1"); None if it is not one."""
    if isinstance(value, int):
        return value  # floats cannot hold 64-bit ids
    try:
        if isinstance(value, str) and value.strip().removesuffix(".0").isdecimal():
            return int(value.strip().removesuffix(".0"))
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() else None


def stated_size_px(height: object, width: object) -> tuple[int, int] | None:
    """Read the size of an image as (height, width); None if it is not stated, or cannot be true."""
    size_px = whole_number(height) or 0, whole_number(width) or 0
    return size_px if min(size_px) > 0 and max(size_px) < 2**31 else None


def id_of(value: Any) -> Any:
    """Return one form for all notations of a whole number: 1, 1.0, "1" and "1.0" are 1. Others, as "007", stay."""
    number = None if isinstance(value, bool) else whole_number(value)
    is_plain = not isinstance(value, str) or value.strip() in (str(number), f"{number}.0")
    return number if number is not None and is_plain else value


YES = ("1", "true", "yes", "t", "y")
NO = ("0", "false", "no", "f", "n", "", "none", "null", "unspecified", "unknown", "undefined", "n/a", "nan", "-1")
"""Flags of annotation tools. Missing values count as no. OpenImages' -1 means unknown."""


def flag_of(value: object, what: str) -> bool:
    """Read a flag from text or JSON: one of `YES` or `NO`, else it raises `DataError`."""
    text = str(id_of(value)).strip().lower()
    if text not in YES + NO:
        raise DataError(f"has {what} {str(value).strip()!r}, which is neither 0 nor 1")
    return text in YES


BOX_PROBLEMS: tuple[ProblemKind | None, ...] = (None, "inverted", "outside", "no_area", "fractions", "pixels")
INVERTED, OUTSIDE, NO_AREA, FRACTIONS, PIXELS = range(1, len(BOX_PROBLEMS))


class CheckedBoxes(NamedTuple):
    """Result of `BoxNotation.check`."""

    xyxy_px: np.ndarray
    """float32 `[T, 4]`, 0-based, clipped to the image."""
    kinds: np.ndarray
    """int8 `[T]`: index into `BOX_PROBLEMS`; 0 if the box is valid."""
    overhangs: np.ndarray
    """bool `[T]`: boxes of kind `outside` that have an area inside of the image."""


@dataclass(frozen=True, kw_only=True)
class BoxNotation:
    """How a file writes boxes, and the checks of boxes written like this.

    `numbers` are float64 `[T, 4]`, finite, as in the file, and `sizes_px` `[T, 2]`, (height, width) of each image.
    """

    box_format: BoxFormat = "xyxy"
    """Meaning of the four numbers."""
    unit: Unit = "pixels"
    first_pixel: int = 0
    """Number of the first pixel; subtracted from corners in pixels."""

    def corners_px(self, numbers: np.ndarray, sizes_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (xmin, ymin) and (xmax, ymax) of boxes in pixels, as they count in the file."""
        low, high = numbers[:, :2], numbers[:, 2:]
        if self.box_format == "cxcywh":
            low, high = low - high / 2, low + high / 2
        elif self.box_format == "xywh":
            high = low + high
        if self.unit == "fractions":
            return low * sizes_px[:, ::-1], high * sizes_px[:, ::-1]
        return low, high

    def check(self, numbers: np.ndarray, sizes_px: np.ndarray) -> CheckedBoxes:
        """Check boxes and clip them to their images.

        Four numbers within [0, 1.5] count as fractions unless all are whole. As pixels, such a box would be in the
        corner of the image.
        """
        low_px, high_px = self.corners_px(numbers, sizes_px)
        starts, ends, of_axis = self._clip(low_px, high_px, sizes_px)
        kinds = np.where(of_axis[:, 0] > 0, of_axis[:, 0], of_axis[:, 1])
        if self.unit == "pixels":
            looks_like_fractions = ((numbers >= 0) & (numbers <= LARGEST_FRACTION)).all(1)
            looks_like_fractions &= (sizes_px.max(1, initial=0) > 2) & (numbers != np.floor(numbers)).any(1)
            kinds[looks_like_fractions] = FRACTIONS
        else:
            kinds[(np.abs(numbers) > LARGEST_FRACTION).any(1)] = PIXELS
        overhangs = (kinds == OUTSIDE) & (starts < ends).all(1)
        return CheckedBoxes(np.concatenate([starts, ends], 1).astype(np.float32), kinds, overhangs)

    def _clip(
        self, low_px: np.ndarray, high_px: np.ndarray, sizes_px: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the corners inside of the images, and the problem of each axis, int8 `[T, 2]`."""
        sides_px = sizes_px[:, ::-1].astype(np.float64)  # x, y
        starts = (low_px - self.first_pixel).clip(0, sides_px)
        ends = (high_px - self.first_pixel).clip(0, sides_px)
        is_outside = (low_px < self.first_pixel - RANGE_TOLERANCE_PX) | (high_px > sides_px + RANGE_TOLERANCE_PX)
        of_axis = np.select([low_px > high_px, is_outside, starts >= ends], [INVERTED, OUTSIDE, NO_AREA], 0)
        return starts, ends, of_axis.astype(np.int8)

    def describe(self, kind: ProblemKind, numbers: np.ndarray, size_px: tuple[int, int]) -> str:
        """Say what is wrong with one box, `[4]`; `kind` is its entry of `BOX_PROBLEMS`."""
        as_written = f"({', '.join(f'{number:g}' for number in numbers)})"
        if kind == "fractions":
            size = f"the image is {size_px[1]} x {size_px[0]} px"
            return (
                f"has the box {as_written}, which looks like fractions of the image, but pixels are expected ({size})"
            )
        if kind == "pixels":
            wanted = "fractions of the image (0 to 1) are expected"
            return f"has the box {as_written}, which looks like pixels, but {wanted}"
        sizes_px = np.array([size_px])
        low_px, high_px = self.corners_px(numbers[None], sizes_px)
        axis = 0 if self._clip(low_px, high_px, sizes_px)[2][0, 0] else 1
        name, start, end, side = "xy"[axis], low_px[0, axis], high_px[0, axis], size_px[1 - axis]
        if kind == "inverted":
            return f"is inverted: {name}min {start:g} is greater than {name}max {end:g}"
        if kind == "no_area":
            return f"has no area: {name}min is {start:g} and {name}max {end:g} of {side} px"
        if start < self.first_pixel - RANGE_TOLERANCE_PX:
            return f"reaches out of the image: {name}min is {start:g}"
        return f"reaches out of the image: {name}max is {end:g} of {side} px"
