"""Boxes in whole pixels of an image, and their outlines."""

import numpy as np
from PIL import Image, ImageDraw

from ssd_lightning.visualization.colours import Colour

Rectangle = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom inclusive."""


def fitting_size(image: np.ndarray, width: float, height: float) -> tuple[int, int]:
    """Return the largest (width, height) within the given one that has the proportions of an image `[H, W, ...]`."""
    scale = min(width / image.shape[1], height / image.shape[0])
    return max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))


def whole_pixels(box_xyxy_px: np.ndarray) -> Rectangle:
    """Round a box to whole pixels, at least one."""
    left, top, right, bottom = (round(edge) for edge in box_xyxy_px.tolist())
    return left, top, max(left, right - 1), max(top, bottom - 1)


def cut_at_border(box_xyxy_px: np.ndarray, size: tuple[int, int]) -> Rectangle | None:
    """Clip a box to an image of (width, height); None if nothing is left."""
    if not np.isfinite(box_xyxy_px).all():
        return None
    box = np.clip(box_xyxy_px, 0, np.array([*size, *size]))
    if (box[2:] <= box[:2]).any():
        return None
    left, top, right, bottom = whole_pixels(box)
    return min(left, size[0] - 1), min(top, size[1] - 1), min(right, size[0] - 1), min(bottom, size[1] - 1)


def line_width(canvas: Image.Image) -> int:
    """Choose a line width in pixels that suits the size of the image."""
    return max(1, round(min(canvas.size) / 200))


def draw_outline(
    draw: ImageDraw.ImageDraw, rectangle: Rectangle, colour: Colour, width: int, *, inset: int = 0, dash: int = 0
) -> None:
    """Draw a line of `width` pixels inside the rectangle, shrunk by `inset`; `dash` is the length of a dash."""
    left, top, right, bottom = rectangle
    left, top, right, bottom = left + inset, top + inset, right - inset, bottom - inset
    if not dash:
        draw.rectangle((left, top, right, bottom), outline=colour, width=width)
        return
    for x in range(left, right + 1, 2 * dash):
        end = min(x + dash - 1, right)
        draw.rectangle((x, top, end, min(top + width - 1, bottom)), fill=colour)
        draw.rectangle((x, max(bottom - width + 1, top), end, bottom), fill=colour)
    for y in range(top, bottom + 1, 2 * dash):
        end = min(y + dash - 1, bottom)
        draw.rectangle((left, y, min(left + width - 1, right), end), fill=colour)
        draw.rectangle((max(right - width + 1, left), y, right, end), fill=colour)
