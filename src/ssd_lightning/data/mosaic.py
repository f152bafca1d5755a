"""Mosaic: four images around a random centre as one training sample (YOLOv4, arXiv 2004.10934, section 3.4).

It shows objects in other contexts and, since the parts are scaled down, smaller. Mosaics look unlike test images,
so the last epochs of a run are better without them (YOLOX, arXiv 2107.08430, section 2.1).
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from ssd_lightning.checks import require_number
from ssd_lightning.data.windows import boxes_in_window, centres_inside
from ssd_lightning.types import Target

CENTRE = (0.25, 0.75)
"""Range of the point where the four images meet, relative to the sides: every part is at least a quarter wide."""


class Mosaic:
    """Decides which samples become mosaics, and with which other images.

    Args:
        probability: probability for each sample; 0 disables mosaics.
        epochs: number of epochs with mosaics, from the first; None for all.
        min_scale: a part shows its image at U(min_scale, 1) of its size, or larger to avoid gaps.

    Raises:
        ConfigurationError: a setting is out of its range.
    """

    def __init__(self, *, probability: float, epochs: int | None = None, min_scale: float = 0.5) -> None:
        require_number("data.mosaic_probability", probability, 0, 1)
        if epochs is not None:
            require_number("data.mosaic_epochs", epochs, 0, whole=True)
        require_number("data.mosaic_min_scale", min_scale, 0, 1, above_low=True)
        self.probability = probability
        self.epochs = epochs
        self.min_scale = min_scale

    def acts_in(self, epoch: int) -> bool:
        """Tell whether an epoch has mosaics."""
        return self.probability > 0 and (self.epochs is None or epoch < self.epochs)

    def partners(self, rng: np.random.Generator, size: int) -> list[int] | None:
        """Draw the indices of the three other images among `size`; None if the sample is not changed."""
        return rng.integers(size, size=3).tolist() if rng.random() < self.probability else None

    def join(self, rng: np.random.Generator, samples: Sequence[tuple[np.ndarray, Target]]) -> tuple[np.ndarray, Target]:
        """Join four samples, uint8 `[H, W, 3]` RGB, around a random centre on a canvas of the size of the first.

        Each quarter, in reading order, is filled with a random window of its image at the original aspect ratio. Boxes
        with their centre in the window are kept and clipped to it, as in the paper's crop. Name and size are those of
        the first image.
        """
        height, width = samples[0][0].shape[:2]
        x, y = (round(side * rng.uniform(*CENTRE)) for side in (width, height))
        x, y = min(max(x, 1), width - 1), min(max(y, 1), height - 1)
        quarters_px = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
        canvas = np.empty_like(samples[0][0])
        visible, labels, difficult = [], [], []
        for (left, top, right, bottom), (image, target) in zip(quarters_px, samples, strict=True):
            quarter_size = (bottom - top, right - left)
            if 0 in quarter_size:  # the canvas is one pixel wide or high
                continue
            window = draw_window(rng, image.shape[:2], quarter_size, scale=rng.uniform(self.min_scale, 1))
            canvas[top:bottom, left:right] = _show(image, window, quarter_size)
            boxes = target["boxes"].numpy()
            inside = centres_inside(boxes, window)
            scale, corner = np.array([right - left, bottom - top] * 2), np.array([left, top] * 2)
            in_quarter = boxes_in_window(boxes[inside], window).clip(0, 1)
            visible.append((in_quarter * scale + corner) / np.array([width, height] * 2))
            labels.append(target["labels"].numpy()[inside])
            difficult.append(target["difficult"].numpy()[inside])
        return canvas, Target(
            boxes=torch.from_numpy(np.concatenate(visible).astype(np.float32)),
            labels=torch.from_numpy(np.concatenate(labels)),
            difficult=torch.from_numpy(np.concatenate(difficult)),
            image_id=samples[0][1]["image_id"],
            size_px=samples[0][1]["size_px"],
        )


def draw_window(
    rng: np.random.Generator, size_px: tuple[int, int], shown_px: tuple[int, int], *, scale: float
) -> np.ndarray:
    """Draw the part of an image of size (height, width) that fills `shown_px` at a scale: xyxy, normalised."""
    shares = np.array(shown_px[::-1]) / np.array(size_px[::-1])  # of the image's width and height, at scale 1
    shares = shares / max(scale, shares.max())
    corner = rng.uniform(0, 1, 2) * (1 - shares)
    return np.concatenate([corner, corner + shares])


def _show(image: np.ndarray, window: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    height, width = image.shape[:2]
    rows, columns = size_px
    left, top, right, bottom = window * np.array([width, height, width, height])
    steps = ((right - left) / columns, (bottom - top) / rows)
    # Pixel i of the part covers [i, i + 1), while OpenCV counts positions from pixel centres.
    inverse = np.array([[steps[0], 0, left + steps[0] / 2 - 0.5], [0, steps[1], top + steps[1] / 2 - 0.5]])
    return cv2.warpAffine(
        image, inverse, (columns, rows), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
