"""Colours of uint8 RGB images under SSD's photometric distortion."""

from dataclasses import dataclass
from random import Random
from typing import Any

import cv2
import numpy as np

LEVELS = np.arange(256)
OPENCV_HUE_TURN = 180
"""A full turn of the hue in OpenCV's 8-bit HSV."""


@dataclass(frozen=True)
class PhotometricDistortion:
    """Ranges of brightness, contrast, saturation and hue. Each is changed with probability .5."""

    brightness_delta: float
    """Largest shift, in grey levels."""
    contrast: tuple[float, float]
    """Range of the factor."""
    saturation: tuple[float, float]
    """Range of the factor."""
    hue_delta: float
    """Largest shift, in OpenCV's units of 2 degrees."""

    def draw(self, random: Random) -> dict[str, Any]:
        """Draw the arguments of `distort_colours`."""
        ranges = {
            "brightness": (-self.brightness_delta, self.brightness_delta),
            "contrast": self.contrast,
            "saturation": self.saturation,
            "hue": (-self.hue_delta, self.hue_delta),
        }
        changes: dict[str, Any] = {name: random.uniform(*ends) for name, ends in ranges.items() if _coin(random)}
        return {**changes, "contrast_first": _coin(random)}


def _coin(random: Random) -> bool:
    return random.random() < 0.5


def distort_colours(
    image: np.ndarray,
    *,
    brightness: float = 0.0,
    contrast: float = 1.0,
    saturation: float = 1.0,
    hue: float = 0.0,
    contrast_first: bool = True,
) -> np.ndarray:
    """Distort the colours of an image, with every step rounded and clipped to 8 bits as in the Caffe code.

    Args:
        image: uint8 `[H, W, 3]`, RGB.
        brightness: added to all channels, in grey levels.
        contrast: factor of all channels.
        saturation: factor of the saturation in HSV.
        hue: added to the hue in HSV, in OpenCV's units of 2 degrees.
        contrast_first: apply the contrast before saturation and hue, not after; brightness is always first.

    Returns:
        uint8 `[H, W, 3]`.
    """
    in_hsv = saturation != 1.0 or hue != 0.0
    before, by_contrast, after = (_to_uint8(table) for table in (LEVELS + brightness, LEVELS * contrast, LEVELS))
    if contrast_first or not in_hsv:  # one table, for no step is between them
        before = by_contrast[before]
    else:
        after = by_contrast
    image = _look_up(image, before)
    if in_hsv:
        # Plane by plane is faster than one table with three channels.
        planes = to_planes(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
        planes[0] = cv2.LUT(planes[0], (np.rint(LEVELS + hue) % OPENCV_HUE_TURN).astype(np.uint8))
        planes[1] = _look_up(planes[1], _to_uint8(LEVELS * saturation))
        image = cv2.cvtColor(cv2.merge(list(planes)), cv2.COLOR_HSV2RGB)
    return _look_up(image, after)


def _look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    return image if (table == LEVELS).all() else cv2.LUT(image, table)


def to_planes(image: np.ndarray) -> np.ndarray:
    """Copy `[H, W, 3]` to `[3, H, W]`, faster than numpy's transpose.

    Raises:
        ValueError: the image is not uint8 `[H, W, 3]`.
    """
    require_rgb(image)  # with another type or fewer planes, OpenCV would write elsewhere and leave these uninitialised
    planes = np.empty((3, *image.shape[:2]), dtype=np.uint8)
    cv2.split(image, list(planes))
    return planes


def require_rgb(image: np.ndarray) -> None:
    """Raise a `ValueError` unless an image is uint8 `[H, W, 3]`."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image is uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")


def _to_uint8(levels: np.ndarray) -> np.ndarray:
    return np.rint(levels).clip(0, 255).astype(np.uint8)
