"""Checks for every annotated object, in any file format: number, flag, class, unit and box.

The messages start with the verb; the reader adds file, object and class name in front.
"""

import difflib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ssd_lightning.data.dataset import ImageAnnotation
from ssd_lightning.data.images import image_size_px
from ssd_lightning.errors import DataError

RANGE_TOLERANCE_PX = 1
"""Annotation tools round: a box is clipped up to this far outside the image, and is an error beyond it."""
LARGEST_FRACTION = 1.5
"""Allowed excess of a fraction for boxes drawn over the edge. A larger number must be in pixels."""

Box = tuple[float, float, float, float]


class Objects:
    """The valid objects of one image, and a sentence for each invalid one.

    Args:
        keep_difficult: False skips and counts crowds and difficult objects.

    Attributes:
        problems: sentences with file, object and value.
    """

    def __init__(self, *, keep_difficult: bool = True) -> None:
        self.problems: list[str] = []
        self._keep_difficult = keep_difficult
        self._num_skipped = 0
        self._beyond: list[_BeyondError] = []
        self._boxes: list[Box] = []
        self._labels: list[int] = []
        self._difficult: list[bool] = []

    @contextmanager
    def judging(self, place: str) -> Iterator[None]:
        """Turn a `DataError` about one object into a sentence that starts with its place."""
        try:
            yield
        except DataError as error:
            self.problems.append(f"{place} {error}")
            if isinstance(error, _BeyondError):
                self._beyond.append(error)

    def wants(self, *, difficult: bool) -> bool:
        """Tell whether an object is kept, and count it if it is skipped."""
        skipped = difficult and not self._keep_difficult
        self._num_skipped += skipped
        return not skipped

    def add(self, *, label: int, box_xyxy_px: Box, difficult: bool) -> None:
        """Add a valid object."""
        self._labels.append(label)
        self._boxes.append(box_xyxy_px)
        self._difficult.append(difficult)

    def record(self, *, image_id: str, image_path: Path, size_px: tuple[int, int]) -> ImageAnnotation:
        """Return the annotation of the image with all added objects.

        Raises:
            DataError: the boxes only fit the image in the other orientation of its EXIF tag, not as it is read.
        """
        if self._beyond:
            self._refuse_other_side_up(image_path, size_px)
        return ImageAnnotation(
            image_id=image_id,
            image_path=image_path,
            size_px=size_px,
            boxes_xyxy_px=np.array(self._boxes, dtype=np.float32).reshape(-1, 4),
            labels=np.array(self._labels, dtype=np.int64),
            difficult=np.array(self._difficult, dtype=bool),
            num_skipped=self._num_skipped,
        )

    def _refuse_other_side_up(self, image_path: Path, size_px: tuple[int, int]) -> None:
        height, width = size_px
        if not all(error.fits((width, height)) for error in self._beyond):
            return
        stored, upright = image_size_px(image_path, upright=False), image_size_px(image_path)
        if stored != upright and size_px in (stored, upright):
            raise DataError(
                f"{image_path}: its EXIF tag turns the image from {stored[1]} x {stored[0]} to {upright[1]} x "
                f"{upright[0]} px, and its boxes fit {height} x {width} px alone, but they are read for "
                f"{width} x {height} px; state the right size in the annotation, or remove the tag"
            )


class _BeyondError(DataError):
    """A box extends beyond its image."""

    def __init__(self, reason: str, right_px: float, bottom_px: float) -> None:
        super().__init__(f"reaches out of the image: {reason}")
        self._reach_px = right_px, bottom_px

    def fits(self, size_px: tuple[int, int]) -> bool:
        """Tell whether the box fits into an image of (height, width)."""
        return all(
            reach <= side + RANGE_TOLERANCE_PX for reach, side in zip(self._reach_px, reversed(size_px), strict=True)
        )


def check_class_names(class_names: Sequence[str]) -> None:
    """Check that a class list is a non-empty list of distinct texts.

    Raises:
        DataError: it is not.
    """
    if isinstance(class_names, str) or not class_names:
        raise DataError(f"class_names is {class_names!r}; it has to be a list of at least one name")
    for name in class_names:
        if not isinstance(name, str):
            raise DataError(
                f"class_names has {name!r}, which is not text; write such a name in quotes, on the command line as in "
                """'data.class_names=["no","010"]'"""
            )
        if not name.strip():
            raise DataError(f"class_names has {name!r}, which is an empty name")
    repeated = [name for name, count in Counter(class_names).items() if count > 1]
    if repeated:
        raise DataError(f"class_names has {', '.join(map(repr, repeated))} more than once")


def number_classes(class_names: Sequence[str]) -> dict[str, int]:
    """Map names to labels 1..C."""
    return {name: label for label, name in enumerate(class_names, start=1)}


def label_of(name: str, labels: Mapping[str, int]) -> int:
    """Return the label of a class name.

    Raises:
        DataError: the class is unknown; the message suggests the nearest name.
    """
    if name in labels:
        return labels[name]
    close = difflib.get_close_matches(name, labels, n=1)
    nearest = f"; the nearest is '{close[0]}'" if close else f": {', '.join(labels)}"
    raise DataError(f"is of none of the {len(labels)} classes{nearest}")


def number_of(value: object, what: str) -> float:
    """Read a finite number from text or JSON.

    Raises:
        DataError: it is not a number, or not finite.
    """
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"has {what} {value!r}, which is not a number") from None
    if not math.isfinite(number):
        raise DataError(f"has {what} {value!r}, which is not finite")
    return number


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


def id_of(value: Any) -> Any:
    """Return one form for all notations of a whole number: 1, 1.0, "1" and "1.0" are 1. Others, as "007", stay."""
    number = None if isinstance(value, bool) else whole_number(value)
    is_plain = not isinstance(value, str) or value.strip() in (str(number), f"{number}.0")
    return number if number is not None and is_plain else value


YES = ("1", "true", "yes", "t", "y")
NO = ("0", "false", "no", "f", "n", "", "none", "null", "unspecified", "unknown", "undefined", "n/a", "nan", "-1")
"""Flags of annotation tools. Missing values count as no. OpenImages' -1 means unknown."""


def flag_of(value: object, what: str) -> bool:
    """Read a flag from text or JSON: a number, or one of `YES` or `NO`.

    Raises:
        DataError: it is neither.
    """
    text = str(id_of(value)).strip().lower()
    if text not in YES + NO:
        raise DataError(f"has {what} {str(value).strip()!r}, which is neither 0 nor 1")
    return text in YES


def refuse_fractions(numbers: Sequence[float], size_px: tuple[int, int]) -> None:
    """Reject a box in fractions of the image if its format is in pixels.

    Four numbers within [0, 1.5] count as fractions unless all are whole. As pixels, such a box would be in the
    corner of the image.

    Args:
        numbers: the four numbers of the box as in the file.
        size_px: (height, width) of the image.

    Raises:
        DataError: it looks like fractions.
    """
    within = all(0 <= number <= LARGEST_FRACTION for number in numbers)
    if within and max(size_px) > 2 and not all(number == int(number) for number in numbers):
        raise DataError(
            f"has the box {_as_text(numbers)}, which looks like fractions of the image, but pixels are expected "
            f"(the image is {size_px[1]} x {size_px[0]} px)"
        )


def refuse_pixels(numbers: Sequence[float]) -> None:
    """Reject a box in pixels if its format is in fractions of the image.

    Args:
        numbers: the four numbers of the box as in the file.

    Raises:
        DataError: a number is beyond 1.5, which looks like pixels.
    """
    if any(abs(number) > LARGEST_FRACTION for number in numbers):
        raise DataError(
            f"has the box {_as_text(numbers)}, which looks like pixels, but fractions of the image (0 to 1) "
            "are expected"
        )


def checked_box(corners_px: Sequence[float], size_px: tuple[int, int], *, offset: int = 0) -> Box:
    """Check a box and clip it to its image.

    Args:
        corners_px: xmin, ymin, xmax, ymax in pixels that count from `offset`.
        size_px: (height, width) of the image.
        offset: number of the first pixel; subtracted from all four.

    Returns:
        (x1, y1, x2, y2) in pixels that count from 0.

    Raises:
        DataError: the box is inverted, more than a pixel outside the image, or has no area.
    """
    xmin, ymin, xmax, ymax = corners_px
    box = []
    for axis, low, high, side_px in (("x", xmin, xmax, size_px[1]), ("y", ymin, ymax, size_px[0])):
        if low > high:
            raise DataError(f"is inverted: {axis}min {low:g} is greater than {axis}max {high:g}")
        if low < offset - RANGE_TOLERANCE_PX:
            raise DataError(f"reaches out of the image: {axis}min is {low:g}")
        if high > side_px + RANGE_TOLERANCE_PX:
            raise _BeyondError(f"{axis}max is {high:g} of {side_px} px", xmax, ymax)
        start = min(max(low - offset, 0.0), side_px)
        end = min(max(high - offset, 0.0), side_px)
        if start >= end:
            raise DataError(f"has no area: {axis}min is {low:g} and {axis}max {high:g} of {side_px} px")
        box.append((start, end))
    (x1, x2), (y1, y2) = box
    return x1, y1, x2, y2


def _as_text(numbers: Sequence[float]) -> str:
    return f"({', '.join(f'{number:g}' for number in numbers)})"
