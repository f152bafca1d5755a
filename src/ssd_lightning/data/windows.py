"""The part of an image that a sample shows: expansion, crop and warp in one step.

A window is the part of the plane that becomes the sample: a crop is inside the image, an expansion around it. The plane
outside the image has one colour. The window, cut at whole pixels of the image, is scaled to the network's input.
Windows and boxes are xyxy, and normalised to the image unless their name ends in `_px`.
"""

from random import Random
from typing import NamedTuple

import numpy as np

Window = tuple[int, int, int, int]
"""xyxy in pixels; right and bottom edges are exclusive."""


class CropWindow(NamedTuple):
    """The visible part of an image in a window. Both fields are empty if the window is outside the image."""

    part_px: Window
    """The part of the image, in its own pixels."""
    place_px: Window
    """Its position in the sample, in the sample's pixels."""


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
    return intersection / (areas(boxes) + areas(windows) - intersection)


def areas(boxes: np.ndarray) -> np.ndarray:
    """Return the areas of boxes `[..., 4]`: `[...]`."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def random_zoom_out(random: Random, size_px: tuple[int, int], max_ratio: float) -> Window:
    """Draw a canvas of U(1, max_ratio) times the image's sides around it, at a uniform position (section 3.6).

    Args:
        random: random number generator.
        size_px: (height, width) of the image.
        max_ratio: largest side of the canvas relative to the image.

    Returns:
        The canvas in pixels of the image; it starts at or before 0.
    """
    height, width = size_px
    ratio = random.uniform(1.0, max_ratio)
    more_height, more_width = int(height * (ratio - 1)), int(width * (ratio - 1))
    top, left = random.randint(0, more_height), random.randint(0, more_width)
    return -left, -top, width + more_width - left, height + more_height - top


def view_through(window_px: Window, size_px: tuple[int, int], image_size: tuple[int, int]) -> CropWindow:
    """Find the visible part of a window that is warped to `image_size`.

    The position is rounded to whole pixels. This stretches the part by at most half a pixel at each side, and boxes are
    rounded in the same way. `cv2.warpAffine` needs no rounding, but is slower and has no area interpolation.

    Args:
        window_px: in pixels of the image; it may extend beyond the image.
        size_px: (height, width) of the image.
        image_size: (height, width) of the sample.
    """
    left, top, right, bottom = window_px
    columns = _seen(left, right, size_px[1], image_size[1])
    rows = _seen(top, bottom, size_px[0], image_size[0])
    if columns is None or rows is None:
        return CropWindow((0, 0, 0, 0), (0, 0, 0, 0))
    part_px, place_px = ((x[0], y[0], x[1], y[1]) for x, y in zip(columns, rows, strict=True))
    return CropWindow(part_px, place_px)


def _seen(start: int, end: int, side: int, shown: int) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Handle one axis: the part of 0..side within start..end, and its position in 0..shown, at least a pixel."""
    first, last = max(start, 0), min(end, side)
    if first >= last:
        return None
    scale = shown / (end - start)
    place = min(round((first - start) * scale), shown - 1)
    return (first, last), (place, max(round((last - start) * scale), place + 1))


def boxes_in_view(
    boxes: np.ndarray, view: CropWindow, size_px: tuple[int, int], image_size: tuple[int, int]
) -> np.ndarray:
    """Move boxes with their pixels, and clip them to the visible part.

    Args:
        boxes: `[N, 4]` xyxy, normalised to the image.
        view: visible part of that image; not empty unless N = 0.
        size_px: (height, width) of the image.
        image_size: (height, width) of the sample.

    Returns:
        `[N, 4]` xyxy, normalised to the sample.
    """
    if len(boxes) == 0:
        return boxes
    part, place = normalise_windows(np.array(view.part_px), size_px), view.place_px
    x, y = place[0] / image_size[1], place[1] / image_size[0]
    width, height = (place[2] - place[0]) / image_size[1], (place[3] - place[1]) / image_size[0]
    return boxes_in_window(boxes, part).clip(0, 1) * np.array([width, height] * 2) + np.array([x, y] * 2)
