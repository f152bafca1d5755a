"""Boxes under expansion and cropping, and the search for crops.

A window is the part of the plane that becomes the new picture: a crop is a window inside the picture, an
expansion one around it. Windows and boxes are xyxy and normalised to the old picture unless their name ends
in `_px`.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

CropRule = Literal["any", "all", "center"]


def normalise_windows(windows_px: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """Divide windows `[..., 4]` in pixels by the picture's size (height, width)."""
    height, width = size_px
    return windows_px / np.array([width, height, width, height], dtype=np.float64)


def boxes_in_window(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Express boxes `[N, 4]` in the coordinates of a window `[4]`; what sticks out of it stays out."""
    corner = np.tile(window[:2], 2)
    size = np.tile(window[2:] - window[:2], 2)
    return (boxes - corner) / size


def centres_inside(boxes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Say which boxes `[N, 4]` have their centre in or on the edge of windows `[..., 4]`: bool `[..., N]`."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    windows = windows[..., None, :]  # [..., 1, 4]
    return ((centres >= windows[..., :2]) & (centres <= windows[..., 2:])).all(-1)


def window_iou(boxes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Intersection over union of every window `[..., 4]` with every box `[N, 4]`: `[..., N]`."""
    windows = windows[..., None, :]  # [..., 1, 4]
    sides = np.minimum(boxes[:, 2:], windows[..., 2:]) - np.maximum(boxes[:, :2], windows[..., :2])
    intersection = sides.clip(min=0).prod(-1)
    return intersection / (_area(boxes) + _area(windows) - intersection)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)


def sample_windows(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    size_px: tuple[int, int],
    *,
    scale: tuple[float, float],
    aspect_ratio: tuple[float, float],
) -> np.ndarray:
    """Draw crops as Caffe's batch sampler does, on whole pixels.

    A crop has the relative width s * sqrt(a) and height s / sqrt(a). s is uniform in `scale`; a is uniform in
    the part of `aspect_ratio` that keeps both sides within the picture, [s^2, 1 / s^2]; the place is uniform.

    Args:
        rng: source of the numbers.
        shape: how many crops, in which arrangement.
        size_px: (height, width) of the picture.
        scale: range of the square root of a crop's relative area, in (0, 1].
        aspect_ratio: range of width over height, relative to those of the picture; holds 1.

    Returns:
        int64 `[*shape, 4]`, xyxy in pixels; the right and bottom edges are exclusive.
    """
    height, width = size_px
    s = rng.uniform(*scale, shape)
    a = rng.uniform(np.maximum(aspect_ratio[0], s**2), np.minimum(aspect_ratio[1], s**-2))
    sides = np.stack([s * np.sqrt(a) * width, s / np.sqrt(a) * height], axis=-1)
    sides_px = np.rint(sides).clip(1, [width, height]).astype(np.int64)
    corners_px = rng.integers(0, np.array([width, height]) - sides_px + 1)
    return np.concatenate([corners_px, corners_px + sides_px], axis=-1)


def satisfying_windows(
    windows: np.ndarray,
    boxes: np.ndarray,
    *,
    min_ious: Sequence[float],
    rule: CropRule = "any",
    allow_empty: bool = True,
) -> np.ndarray:
    """Say which crops satisfy the conditions that they were drawn for.

    Args:
        windows: `[R + 1, T, 4]`: T crops for each of R conditions, and T without a condition.
        boxes: `[N, 4]`. Where N = 0 no crop but the unconditioned ones satisfies anything.
        min_ious: R values, the least IoU of a row's crops with the boxes.
        rule: whose IoU counts. `any`: at least one box has to overlap by that much (Caffe). `all`: every box has to
            (mmdet, gluon). `center`: at least one of the boxes that have their centre in the crop, and every crop,
            the unconditioned ones too, has to hold a centre (torchvision's `RandomIoUCrop`).
        allow_empty: accept crops in which no box has its centre.

    Returns:
        bool `[R + 1, T]`.
    """
    free = np.ones((1, windows.shape[1]), dtype=bool)
    if len(boxes) == 0:
        return np.concatenate([np.zeros((len(min_ious), windows.shape[1]), dtype=bool), free])
    enough = window_iou(boxes, windows[:-1]) >= np.reshape(min_ious, (-1, 1, 1))  # [R, T, N]
    inside = centres_inside(boxes, windows)  # [R + 1, T, N]
    if rule == "center":
        enough &= inside[:-1]
        allow_empty = False
    fits = np.concatenate([enough.all(-1) if rule == "all" else enough.any(-1), free])
    return fits if allow_empty else fits & inside.any(-1)
