"""Bounding boxes of the other shapes that tools draw, as (xmin, ymin, xmax, ymax)."""

from collections.abc import Sequence
from math import cos, hypot, radians, sin
from typing import Any

from ssd_lightning.data.annotation_checks import number_of
from ssd_lightning.errors import DataError


def bounds(xs: Sequence[float], ys: Sequence[float]) -> list[float]:
    """Return the bounding box of points."""
    return [min(xs), min(ys), max(xs), max(ys)]


def points_of(value: Any) -> tuple[list[float], list[float]]:
    """Read a list of (x, y) as x and y of all points. Raises `DataError` if it is something else."""
    points = value if isinstance(value, list) else []
    if not points or not all(isinstance(point, list | tuple) and len(point) == 2 for point in points):
        raise DataError(f"has the points {value!r:.80}, not a list of (x, y)")
    return [number_of(x, "x") for x, _ in points], [number_of(y, "y") for _, y in points]


def circle_bounds(xs: Sequence[float], ys: Sequence[float]) -> list[float]:
    """Return the bounding box of a circle that two points, the centre and one of the rim, define."""
    if len(xs) != 2:
        raise DataError(f"is a circle with {len(xs)} points, not with centre and rim")
    radius = hypot(xs[1] - xs[0], ys[1] - ys[0])
    return ellipse_bounds((xs[0], ys[0]), (radius, radius), 0)


def rotated_bounds(box: Sequence[float], degrees: float, pivot: tuple[float, float]) -> list[float]:
    """Return the bounding box of a box that is turned clockwise, as seen in the image, around a point."""
    (x1, y1, x2, y2), (px, py) = box, pivot
    c, s = cos(radians(degrees)), sin(radians(degrees))
    corners = [(x - px, y - py) for x in (x1, x2) for y in (y1, y2)]
    return bounds([px + x * c - y * s for x, y in corners], [py + x * s + y * c for x, y in corners])


def ellipse_bounds(centre: tuple[float, float], radii: tuple[float, float], degrees: float) -> list[float]:
    """Return the bounding box of an ellipse that is turned around its centre."""
    (cx, cy), (rx, ry) = centre, radii
    c, s = cos(radians(degrees)), sin(radians(degrees))
    half_width, half_height = hypot(rx * c, ry * s), hypot(rx * s, ry * c)
    return [cx - half_width, cy - half_height, cx + half_width, cy + half_height]
