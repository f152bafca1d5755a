"""Boxes in whole pixels of an image: their outlines and tags; and text."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ssd_lightning.visualization.colours import BLACK, Colour, text_colour
from ssd_lightning.visualization.fonts import spell

Rectangle = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom inclusive."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_PADDING_PX = 2


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


@dataclass(frozen=True)
class TaggedBox:
    """A box to draw. It has no tag if `text` is empty; `dash` is the length of its dashes, 0 for a solid line."""

    rectangle: Rectangle
    colour: Colour
    text: str = ""
    dash: int = 0


def draw_boxes(canvas: Image.Image, boxes: Sequence[TaggedBox], *, width: int) -> None:
    """Draw boxes with a dark rim, the first one on top, and their tags where they hide least."""
    draw = ImageDraw.Draw(canvas)
    for box in reversed(boxes):
        draw_outline(draw, box.rectangle, BLACK, width + 2, inset=-1, dash=box.dash)
        draw_outline(draw, box.rectangle, box.colour, width, dash=box.dash)
    obstacles = [box.rectangle for box in boxes]
    for box in boxes:
        if box.text:
            obstacles.append(_draw_tag(draw, canvas.size, box, obstacles))


def fitting_font(text: str, *, size: int, max_width: int) -> Font:
    """Return a font with all letters, smaller if the text is wider than `max_width` pixels."""
    file = spell(text)[1]
    while size > 6 and text_size(text, _font(size, file))[0] > max_width:
        size -= 1
    return _font(size, file)


def text_size(text: str, font: Font) -> tuple[int, int]:
    """Measure a text: (width, height) in pixels."""
    # Use the font's height, not the text's, so that tags with and without descenders look alike.
    left, _, right, _ = font.getbbox(spell(text)[0])
    _, top, _, bottom = font.getbbox("Ag")
    return round(right - left), round(bottom - top)


def write_text(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, font: Font, colour: Colour) -> None:
    """Write a text whose capital letters start at the corner (x, y)."""
    top = font.getbbox("Ag")[1]
    draw.text((corner[0], corner[1] - top), spell(text)[0], font=font, fill=colour)


def _draw_tag(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], box: TaggedBox, obstacles: Sequence[Rectangle]
) -> Rectangle:
    """Draw the tag of a box at the best position around or in it, and return the position."""
    font = fitting_font(box.text, size=max(10, round(min(size) / 30)), max_width=size[0] - 2 * _PADDING_PX)
    width, height = (side + 2 * _PADDING_PX for side in text_size(box.text, font))
    left, top, right, bottom = box.rectangle
    tags = []
    for y in (top - height, bottom + 1, top, bottom + 1 - height):
        for x in (left, right + 1 - width):
            x, inner_y = max(0, min(x, size[0] - width)), max(0, min(y, size[1] - height))
            tags.append((x, inner_y, x + width - 1, inner_y + height - 1))
    best = min(tags, key=lambda tag: sum(_hidden_share(other, tag) for other in obstacles))
    draw.rectangle(best, fill=box.colour)
    write_text(draw, (best[0] + _PADDING_PX, best[1] + _PADDING_PX), box.text, font, text_colour(box.colour))
    return best


def _hidden_share(rectangle: Rectangle, cover: Rectangle) -> float:
    width = min(rectangle[2], cover[2]) - max(rectangle[0], cover[0]) + 1
    height = min(rectangle[3], cover[3]) - max(rectangle[1], cover[1]) + 1
    area = (rectangle[2] - rectangle[0] + 1) * (rectangle[3] - rectangle[1] + 1)
    return max(0, width) * max(0, height) / area


@lru_cache
def _font(size: int, file: str | None) -> Font:
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)
