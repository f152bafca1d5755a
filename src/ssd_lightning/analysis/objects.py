"""The objects of a split in one table, and summaries of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Objects:
    """The usable objects of a split, one per row.

    Attributes:
        image: int64 `[N]`: index of the image, ascending.
        boxes_xyxy: float64 `[N, 4]`, normalised to the image.
        labels: int64 `[N]`, 1..C.
        difficult: bool `[N]`.
    """

    image: np.ndarray
    boxes_xyxy: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray


def name_object(objects: Objects, index: int, paths: Sequence[str], class_names: Sequence[str]) -> str:
    """Describe an object by its image file, its number among the usable objects there, and its class."""
    image = objects.image[index]
    number = index - int(np.searchsorted(objects.image, image)) + 1
    return f"{paths[image]}: usable object {number} '{class_names[objects.labels[index] - 1]}'"


def sides_px(boxes_xyxy: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Return (width, height) `[N, 2]` of normalised boxes in pixels of the network's input (height, width)."""
    return (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) * (image_size[1], image_size[0])


def median_side_px(boxes_xyxy: np.ndarray, image_size: tuple[int, int]) -> float:
    """Return the median of the square roots of the boxes' areas, in pixels of the network's input; 0 without boxes."""
    sides = np.sqrt(sides_px(boxes_xyxy, image_size).prod(axis=1))
    return float(np.median(sides)) if len(sides) else 0.0


def split_summary(objects: Objects, class_names: Sequence[str], *, images: int, left_out: int) -> dict[str, Any]:
    """Describe a split in plain values."""
    classes = {}
    for label, name in enumerate(class_names, start=1):
        of_class = objects.labels == label
        classes[name] = {
            "objects": int(of_class.sum()),
            "difficult": int((of_class & objects.difficult).sum()),
            "images": len(np.unique(objects.image[of_class])),
        }
    return {
        "images": images,
        "objects": len(objects.labels),
        "difficult": int(objects.difficult.sum()),
        "images_without_objects": images - len(np.unique(objects.image)),
        "left_out": left_out,
        "classes": classes,
    }
