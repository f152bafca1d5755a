"""Boxes under expansion and cropping, and sampling of crops.

A window is the part of the plane that becomes the new image: a crop is inside the image, an expansion around it.
Windows and boxes are xyxy and normalised to the old image unless their name ends in `_px`.
"""

from typing import Literal

import numpy as np

CropRule = Literal["any", "all", "center"]


def normalise_windows(windows_px: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """Divide windows `[..., 4]` in pixels by the image's size (height, width)."""
    height, width = size_px
    return windows_px / np.array([width, height, width, height], dtype=np.float64)


def boxes_in_window(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Express boxes `[N, 4]` in the coordinates of a window `[4]`, without clipping."""
    corner, size = window[:2], window[2:] - window[:2]
    return ((boxes.reshape(-1, 2, 2) - corner) / size).reshape(boxes.shape)


def centres_inside(boxes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Tell which boxes `[N, 4]` have their centre in or on the edge of windows `[..., 4]`: bool `[..., N]`."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    windows = windows[..., None, :]  # [..., 1, 4]
    return ((centres >= windows[..., :2]) & (centres <= windows[..., 2:])).all(-1)


def window_iou(boxes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Intersection over union of every window `[..., 4]` with every box `[N, 4]`: `[..., N]`."""
    windows = windows[..., None, :]  # [..., 1, 4]
    sides = np.minimum(boxes[:, 2:], windows[..., 2:]) - np.maximum(boxes[:, :2], windows[..., :2])
    sides = np.maximum(sides, 0)
    intersection = sides[..., 0] * sides[..., 1]
    return intersection / (_area(boxes) + _area(windows) - intersection)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


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
    the part of `aspect_ratio` that keeps both sides within the image, [s^2, 1 / s^2]; the position is uniform.

    Args:
        rng: random number generator.
        shape: shape of the array of crops.
        size_px: (height, width) of the image.
        scale: range of the square root of a crop's relative area, in (0, 1].
        aspect_ratio: range of width over height, relative to the image; must contain 1.

    Returns:
        int64 `[*shape, 4]`, xyxy in pixels; the right and bottom edges are exclusive.
    """
    height, width = size_px
    size = np.array([width, height])
    s = rng.uniform(*scale, shape)
    lowest = np.maximum(aspect_ratio[0], s * s)
    root = np.sqrt(lowest + (np.minimum(aspect_ratio[1], 1 / (s * s)) - lowest) * rng.random(shape))
    sides = np.empty((*shape, 2))
    sides[..., 0], sides[..., 1] = s * root * width, s / root * height
    sides_px = np.minimum(np.maximum(np.rint(sides), 1), size)
    corners_px = np.floor(rng.random(sides.shape) * (size - sides_px + 1))
    return np.concatenate([corners_px, corners_px + sides_px], axis=-1).astype(np.int64)


def satisfying_windows(
    windows: np.ndarray,
    boxes: np.ndarray,
    *,
    min_iou: float | None,
    rule: CropRule = "any",
    allow_empty: bool = True,
) -> np.ndarray:
    """Tell which crops satisfy a condition.

    Args:
        windows: `[T, 4]`, the crops.
        boxes: `[N, 4]`. For N = 0 crops only satisfy None.
        min_iou: smallest IoU with the boxes; None for no condition.
        rule: whose IoU counts. `any`: at least one box must overlap by that much (Caffe). `all`: every box must
            (mmdet, gluon). `center`: at least one of the boxes with their centre in the crop must; and every crop
            must contain a centre, even without a condition (torchvision's `RandomIoUCrop`).
        allow_empty: accept crops without the centre of any box.

    Returns:
        bool `[T]`.
    """
    if len(boxes) == 0:
        return np.full(len(windows), min_iou is None)
    fits = np.ones(len(windows), dtype=bool)
    if min_iou is not None:
        enough = window_iou(boxes, windows) >= min_iou  # [T, N]
        if rule == "center":
            enough &= centres_inside(boxes, windows)
        fits &= enough.all(-1) if rule == "all" else enough.any(-1)
    if allow_empty and rule != "center":
        return fits
    return fits & centres_inside(boxes, windows).any(-1)
