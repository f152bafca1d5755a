"""Shapes of the toy data set: contours, the pixels they cover, and their boxes."""

from dataclasses import dataclass

import cv2
import numpy as np


def _polygon(corners: int, radius: float = 1.0) -> np.ndarray:
    angles = 2 * np.pi * np.arange(corners) / corners
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


CONTOURS = {
    "disk": [_polygon(64)],
    "square": [_polygon(4)],
    "triangle": [_polygon(3)],
    "star": [_polygon(10) * np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]],
    "ring": [_polygon(64), _polygon(64, 0.58)],
}
"""Contours of each class around the origin; the second one, if any, is a hole."""
TOY_CLASSES: tuple[str, ...] = tuple(CONTOURS)

SCALE_RANGE = (0.05, 0.80)
"""Longest side of a whole object over the shorter side of the image."""
SCALE_BETA = (3.2, 2.0)
"""Parameters of the Beta distribution of log(scale): (1, 1) is log-uniform; these make the extremes rarer."""
MAX_TURN = np.pi / 6
"""Largest angle from upright: objects in photographs are roughly upright too."""
MIN_SQUEEZE = 0.75
MARGIN_PX = 4  # background around an object, to measure its contrast

_SUPERSAMPLING = 4
_FIXED_POINT_BITS = 4

Box = tuple[int, int, int, int]
"""xyxy in pixels: 0-based, right and bottom edges exclusive."""


@dataclass(frozen=True)
class Outline:
    """Position and shape of one object, before it is coloured."""

    contours: list[np.ndarray]
    """Polygons `[P, 2]` (x, y) in pixels of the window; the second one, if any, is the hole."""
    window: tuple[slice, slice]
    """Rows and columns of the image that it touches, with a margin."""
    coverage: np.ndarray
    """float32, with the window's shape: fraction of each pixel that the shape covers."""
    area: float
    """In square pixels, including parts outside the image."""
    truncated: bool


def random_shape(rng: np.random.Generator, label: int, image_side: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Rotate, tilt and scale a shape. Returns its contours, with their box's corner at 0, and the (width, height)."""
    # Rotated, then squeezed along one axis as if seen at an angle.
    axis = rng.uniform(0, 2 * np.pi)
    squeeze = _rotation(axis) @ np.diag([1.0, rng.uniform(MIN_SQUEEZE, 1.0)]) @ _rotation(-axis)
    matrix = squeeze @ _rotation(rng.uniform(-MAX_TURN, MAX_TURN))
    contours = [contour @ matrix for contour in CONTOURS[TOY_CLASSES[label - 1]]]
    corner, extent = contours[0].min(0), np.ptp(contours[0], axis=0)
    low, high = np.log(SCALE_RANGE)
    scale = np.exp(low + (high - low) * rng.beta(*SCALE_BETA)) * image_side / extent.max()
    return [(contour - corner) * scale for contour in contours], extent * scale


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def rasterise(contours: list[np.ndarray], size_px: tuple[int, ...]) -> Outline:
    """Rasterise contours `[P, 2]` (x, y), in pixels of an image of (height, width)."""
    corner, far_corner, border = contours[0].min(0), contours[0].max(0), np.array(size_px[::-1])
    first = np.clip(np.floor(corner).astype(int) - MARGIN_PX, 0, border)
    last = np.clip(np.ceil(far_corner).astype(int) + MARGIN_PX, 0, border)
    local = [contour - first for contour in contours]
    return Outline(
        contours=local,
        window=(slice(first[1], last[1]), slice(first[0], last[0])),
        coverage=_coverage(local, last - first),
        area=_area(contours[0]) - sum(_area(hole) for hole in contours[1:]),
        truncated=bool((corner < 0).any() or (far_corner > border).any()),
    )


def rim(outline: Outline) -> np.ndarray:
    """Draw a line along the contours: float32 `[H, W]` of the window."""
    fine = np.zeros(np.array(outline.coverage.shape) * _SUPERSAMPLING, dtype=np.uint8)
    thickness = max(_SUPERSAMPLING, round(0.12 * np.sqrt(outline.area) * _SUPERSAMPLING))
    cv2.polylines(fine, _fixed_point(outline.contours), True, 255, thickness, shift=_FIXED_POINT_BITS)
    return _shrink(fine)


def box_around(mask: np.ndarray) -> Box:
    """Return the tight box of a mask, bool `[H, W]` with at least one pixel."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _coverage(contours: list[np.ndarray], extent: np.ndarray) -> np.ndarray:
    """Fraction of each pixel inside the contours: float32 `[H, W]` of a window (width, height)."""
    fine = np.zeros(extent[::-1] * _SUPERSAMPLING, dtype=np.uint8)
    cv2.fillPoly(fine, _fixed_point(contours), 255, shift=_FIXED_POINT_BITS)
    return _shrink(fine)


def _shrink(fine: np.ndarray) -> np.ndarray:
    rows, columns = fine.shape
    size = (columns // _SUPERSAMPLING, rows // _SUPERSAMPLING)
    return cv2.resize(fine, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _fixed_point(contours: list[np.ndarray]) -> list[np.ndarray]:
    # Pixel centres are whole numbers for OpenCV.
    return [np.rint((c * _SUPERSAMPLING - 0.5) * 2**_FIXED_POINT_BITS).astype(np.int32) for c in contours]


def _area(contour: np.ndarray) -> float:
    return float(cv2.contourArea(contour.astype(np.float32)))
