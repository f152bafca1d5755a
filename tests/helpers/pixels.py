"""Images in which every shift, turn and change of colour shows."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ExifTags, Image


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def soft_noise(height: int, width: int) -> np.ndarray:
    """Blurred, so that a shift by half a pixel does not change everything, with levels from 0 to 255."""
    smooth = cv2.GaussianBlur(noise(height, width), (0, 0), 4).astype(np.float64)
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


def save_turned(path: Path, pixels: np.ndarray, orientation: int, **settings: Any) -> Path:
    """Save an image with an EXIF tag that asks for a rotation."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).save(path, exif=exif.tobytes(), **settings)
    return path
