"""Text on images, and tags for boxes."""

from collections.abc import Sequence
from functools import lru_cache

from PIL import ImageDraw, ImageFont

from ssd_lightning.visualization.colours import Colour, text_colour
from ssd_lightning.visualization.fonts import spell
from ssd_lightning.visualization.outlines import Rectangle

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_TAG_PADDING_PX = 2


def draw_tag(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    rectangle: Rectangle,
    text: str,
    colour: Colour,
    obstacles: Sequence[Rectangle],
) -> Rectangle:
    """Draw a tag at the best position around or in its box, and return the position."""
    padding = _TAG_PADDING_PX
    font = fitting_font(text, size=max(10, round(min(size) / 30)), max_width=size[0] - 2 * padding)
    text_width, text_height = text_size(text, font)
    width, height = text_width + 2 * padding, text_height + 2 * padding
    left, top, right, bottom = rectangle
    places = [(x, y) for y in (top - height, bottom + 1, top, bottom + 1 - height) for x in (left, right + 1 - width)]
    tags = []
    for x, y in places:
        x, y = max(0, min(x, size[0] - width)), max(0, min(y, size[1] - height))
        tags.append((x, y, x + width - 1, y + height - 1))
    best = min(tags, key=lambda tag: sum(_hidden_share(other, tag) for other in obstacles))
    draw.rectangle(best, fill=colour)
    write_text(draw, (best[0] + padding, best[1] + padding), text, font, text_colour(colour))
    return best


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


def _hidden_share(rectangle: Rectangle, cover: Rectangle) -> float:
    width = min(rectangle[2], cover[2]) - max(rectangle[0], cover[0]) + 1
    height = min(rectangle[3], cover[3]) - max(rectangle[1], cover[1]) + 1
    area = (rectangle[2] - rectangle[0] + 1) * (rectangle[3] - rectangle[1] + 1)
    return max(0, width) * max(0, height) / area


@lru_cache
def _font(size: int, file: str | None) -> Font:
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)
