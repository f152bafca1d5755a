"""Colours of uint8 RGB pictures under SSD's photometric distortion."""

import cv2
import numpy as np

OPENCV_HUE_TURN = 180
"""A full turn of the hue in OpenCV's 8-bit HSV."""


def distort_colours(
    image: np.ndarray,
    *,
    brightness: float = 0.0,
    contrast: float = 1.0,
    saturation: float = 1.0,
    hue: float = 0.0,
    contrast_first: bool = True,
) -> np.ndarray:
    """Distort the colours of a picture, every step rounded and saturated to 8 bits as in the Caffe reference.

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
    levels = np.arange(256)
    contrasted = _to_uint8(levels * contrast)
    table = _to_uint8(levels + brightness)
    image = cv2.LUT(image, contrasted[table] if contrast_first else table)
    if saturation != 1.0 or hue != 0.0:
        image = _distort_hsv(image, saturation=saturation, hue=hue)
    return image if contrast_first else cv2.LUT(image, contrasted)


def _distort_hsv(image: np.ndarray, *, saturation: float, hue: float) -> np.ndarray:
    levels = np.arange(256)
    hues = np.rint(levels + hue) % OPENCV_HUE_TURN
    table = np.stack([hues.astype(np.uint8), _to_uint8(levels * saturation), levels.astype(np.uint8)], axis=-1)
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table[None])  # table [1, 256, 3]
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _to_uint8(levels: np.ndarray) -> np.ndarray:
    return np.rint(levels).clip(0, 255).astype(np.uint8)
