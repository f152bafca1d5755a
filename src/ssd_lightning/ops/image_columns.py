"""Checks of targets and detections that come from outside: a mapping of tensors for each image."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ssd_lightning.errors import DataError

LARGEST_FRACTION = 1.5
"""Coordinates beyond this are not fractions of an image."""

Images = Sequence[Mapping[str, Any]]


def image_name(image: Mapping[str, Any], number: int) -> str:
    """Return what messages call an image of a batch: its name, else its number, from 0."""
    return f"image '{image.get('image_id', f'{number} of the batch')}'"


def check_columns(images: Images, *columns: str, targets: Images, what: str) -> None:
    """Check that each image has boxes `[N, 4]`, and N entries in each of its other columns.

    Args:
        images: targets or detections.
        columns: names of the columns besides `boxes`.
        targets: the targets of these images, which have their names.
        what: what the message calls the entries of `images`.

    Raises:
        DataError: a column is missing, is not a tensor, or has another shape.
    """
    for number, image in enumerate(images):
        for column in ("boxes", *columns):
            if not isinstance(image.get(column), Tensor):
                found = f"is of type {type(image[column]).__name__}" if column in image else "is missing"
                raise DataError(
                    f"{image_name(targets[number], number)}: '{column}' of the {what} {found}, not a tensor"
                )
        boxes = image["boxes"]
        num_boxes = len(boxes) if boxes.numel() else 0
        wrong = {column: f"[{num_boxes}]" for column in columns if image[column].shape != (num_boxes,)}
        if num_boxes and boxes.shape[1:] != (4,):
            wrong = {"boxes": "[N, 4]"}
        for column, wanted in wrong.items():
            found = f"has the shape {list(image[column].shape)}; it must be {wanted}"
            raise DataError(f"{image_name(targets[number], number)}: '{column}' of the {what} {found}")


def check_labels(images: Images, num_classes: int, *, targets: Images, what: str) -> None:
    """Check that all labels are in 1..C.

    Args:
        images: targets or detections.
        num_classes: C, without the background.
        targets: the targets of these images, which have their names.
        what: what the message calls the class of such a label.

    Raises:
        DataError: a label is outside 1..C.
    """
    if not images:
        return
    labels = torch.cat([image["labels"] for image in images])
    row = _first((labels < 1) | (labels > num_classes))
    if row is not None:
        name = _name_at(row, images, targets)
        raise DataError(f"{name}: {what} class {int(labels[row])} is outside 1..{num_classes}")


def check_normalised(images: Images, *, targets: Images) -> None:
    """Check that boxes are fractions of the image. Values that are not finite do not count.

    Raises:
        DataError: a coordinate is beyond `LARGEST_FRACTION`.
    """
    if not images:
        return
    boxes = torch.cat([image["boxes"].reshape(-1, 4) for image in images])
    row = _first(((boxes.abs() > LARGEST_FRACTION) & boxes.isfinite()).any(dim=1))
    if row is not None:
        box = ", ".join(f"{edge:g}" for edge in boxes[row].tolist())
        name = _name_at(row, images, targets)
        raise DataError(f"{name}: the box ({box}) is not normalised; divide it by the image's width and height")


def _first(wrong: Tensor) -> int | None:
    rows = wrong.nonzero()
    return int(rows[0]) if len(rows) else None


def _name_at(row: int, images: Images, targets: Images) -> str:
    ends = accumulate(len(image["labels"]) for image in images)
    number = next(number for number, end in enumerate(ends) if end > row)
    return image_name(targets[number], number)
