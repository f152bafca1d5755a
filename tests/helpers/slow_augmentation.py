"""The paper's augmentation step by step on whole images: the slow twin of `DistortExpandCropWarp`."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from ssd_lightning.data.colour import distort_colours
from ssd_lightning.data.windows import CropRule, sample_windows


def step_by_step(
    image: np.ndarray,
    boxes: np.ndarray,
    *,
    changes: dict[str, Any] | None,
    window_px: tuple[int, int, int, int],
    interpolation: int,
    image_size: tuple[int, int],
    fill: tuple[int, int, int],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distort all of the image, paint a canvas around it, cut the window out, and warp that.

    Args:
        image: uint8 `[H, W, 3]`.
        boxes: `[N, 4]`, xyxy normalised.

    Returns:
        The sample, its boxes and their indices.
    """
    if changes is not None:
        image = distort_colours(image, **changes)
    height, width = image.shape[:2]
    left, top, right, bottom = window_px
    borders = (max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width))
    canvas = cv2.copyMakeBorder(image, *borders, cv2.BORDER_CONSTANT, value=fill)
    left, right, top, bottom = left + borders[2], right + borders[2], top + borders[0], bottom + borders[0]
    sample = cv2.resize(canvas[top:bottom, left:right], image_size[::-1], interpolation=interpolation)
    kept, moved = [], []
    for index, box in enumerate(boxes):
        x1, y1, x2, y2 = box * [width, height, width, height] + np.array([borders[2], borders[0]] * 2)
        if left <= (x1 + x2) / 2 <= right and top <= (y1 + y2) / 2 <= bottom:
            xs, ys = np.clip([x1, x2], left, right) - left, np.clip([y1, y2], top, bottom) - top
            xs, ys = xs / (right - left), ys / (bottom - top)
            moved.append([xs[0], ys[0], xs[1], ys[1]])
            kept.append(index)
    return sample, np.reshape(moved, (-1, 4)), np.array(kept, dtype=int)


def choose_window(
    rng: np.random.Generator,
    boxes_px: np.ndarray,
    size_px: tuple[int, int],
    *,
    min_ious: tuple[float, ...],
    rule: CropRule,
    trials: int,
    allow_empty: bool,
) -> tuple[int, ...]:
    """Search every condition to its end, one crop at a time, and choose among what was found and the whole."""
    height, width = size_px
    found = [(0, 0, width, height)]
    for min_iou in (*min_ious, None):
        for window_px in sample_windows(rng, trials, size_px, scale=(0.3, 1.0), aspect_ratio=(0.5, 2.0)).tolist():
            if meets(window_px, boxes_px.tolist(), min_iou, rule, allow_empty):
                found.append(tuple(window_px))
                break
    return found[rng.integers(len(found))]


def meets(
    window: Sequence[float],
    boxes: Sequence[Sequence[float]],
    min_iou: float | None,
    rule: CropRule,
    allow_empty: bool,
) -> bool:
    """Tell whether one crop meets a condition (None: no condition)."""
    ious = [_iou(window, box) for box in boxes]
    inside = [_holds_centre(window, box) for box in boxes]
    if rule == "center":
        ious = [iou for iou, held in zip(ious, inside, strict=True) if held]
    enough = min_iou is None or (all if rule == "all" else any)(iou >= min_iou for iou in ious)
    return enough and ((allow_empty and rule != "center") or any(inside))


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def _holds_centre(window: Sequence[float], box: Sequence[float]) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return window[0] <= x <= window[2] and window[1] <= y <= window[3]
