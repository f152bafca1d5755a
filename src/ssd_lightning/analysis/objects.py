"""The objects of a split: their boxes in the network's input, their names in messages, and a summary."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ssd_lightning.data.annotations import Objects
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.resize import ResizeMode


def boxes_in_input(dataset: DetectionDataset, resize: ResizeMode, image_size: tuple[int, int]) -> np.ndarray:
    """Return the boxes of all objects, normalised to the resized input of (height, width): float64 `[N, 4]`."""
    annotations = dataset.annotations
    objects = annotations.objects()
    sizes_px, of_image = np.unique(annotations.sizes_px, axis=0, return_inverse=True)
    places = [resize.placement((height, width), image_size) for height, width in sizes_px.tolist()]
    shares = np.array(places).reshape(-1, 2)[of_image.reshape(-1)]
    sides_px = annotations.sizes_px[:, ::-1].astype(np.float64)
    return objects.boxes_xyxy_px / np.tile(sides_px, 2)[objects.image] * np.tile(shares, 2)[objects.image]


def object_namer(dataset: DetectionDataset) -> Callable[[int], str]:
    """Return what names an object: its image file, its number among the usable objects there, and its class."""
    objects, paths = dataset.annotations.objects(), list(dataset.annotations.image_paths)

    def name(index: int) -> str:
        image = objects.image[index]
        number = index - int(np.searchsorted(objects.image, image)) + 1
        return f"{paths[image]}: usable object {number} '{dataset.class_names[objects.labels[index] - 1]}'"

    return name


def sides_px(boxes_xyxy: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Return (width, height) `[N, 2]` of normalised boxes in pixels of the network's input (height, width)."""
    return (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) * (image_size[1], image_size[0])


def mean_sides_px(boxes_xyxy: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Return the square roots of the boxes' areas `[N]`, in pixels of the network's input."""
    return np.sqrt(sides_px(boxes_xyxy, image_size).prod(axis=1))


def median_side_px(boxes_xyxy: np.ndarray, image_size: tuple[int, int]) -> float:
    """Return the median of `mean_sides_px`; 0 without boxes."""
    return float(np.median(mean_sides_px(boxes_xyxy, image_size))) if len(boxes_xyxy) else 0.0


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
