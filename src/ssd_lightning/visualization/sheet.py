"""Arrange images with captions on one white sheet, as in a paper or a README."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ssd_lightning.visualization.boxes import draw_outline, fitting_font, text_size, write_text
from ssd_lightning.visualization.colours import WHITE, Colour

INK: Colour = (28, 30, 34)
SOFT_INK: Colour = (96, 100, 108)
WARNING_INK: Colour = (178, 44, 20)
GAP_PX = 18
KEY_PX, LINE_PX = 15, 34
"""Size of the text of a legend, and length of its lines."""
MOST_LETTERS = 40
"""Letters of an entry of a legend."""
MOST_BYTES = 1_500_000
"""Size limit of an unchanged file; larger ones get a palette, which takes a third and looks nearly the same."""


@dataclass(frozen=True)
class Panel:
    """An image, uint8 `[H, W, 3]`, with a title and smaller lines below it."""

    image: np.ndarray
    title: str = ""
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a line in a colour, and its meaning."""

    text: str
    colour: Colour
    is_dashed: bool = False


def lay_out(
    panels: Sequence[Panel],
    *,
    columns: int,
    title: str = "",
    lines: Sequence[str] = (),
    keys: Sequence[Key] = (),
    header: Sequence[str] = (),
) -> np.ndarray:
    """Arrange panels in rows: uint8 `[H, W, 3]`.

    Panels of any size are centred in columns as wide as the widest; there is at least one. The legend `keys` lies below
    the title and its lines, `header` has the titles of the columns.
    """
    columns = min(columns, len(panels))
    cell = max(panel.image.shape[1] for panel in panels)
    width = columns * (cell + GAP_PX) + GAP_PX
    strips = [_title_strip(title, lines, width)]
    if keys:
        strips.append(_legend_strip(keys, width))
    if header:
        strips.append(_header_strip(header, cell, width))
    strips += [_row_strip(panels[at : at + columns], cell, width) for at in range(0, len(panels), columns)]
    return np.concatenate(strips)


def blank(height: int, width: int) -> Image.Image:
    """Make an empty white image."""
    return Image.new("RGB", (width, height), WHITE)


def write_line(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, *, size: int, max_width: int, colour: Colour = INK
) -> None:
    """Write a line, smaller or shortened if it is wider than `max_width` pixels."""
    text = shortened(text, max_width // 3)  # letters are wider than 3 pixels, and measuring is slow
    font = fitting_font(text, size=size, max_width=max_width)
    letters = len(text)
    while letters and text_size(text, font)[0] > max_width:
        letters = letters * 9 // 10
        text = shortened(text, letters)
    write_text(draw, corner, text, font, colour)


def shortened(text: str, letters: int) -> str:
    """Shorten a text to a number of letters, the last three of them dots."""
    return text if len(text) <= letters else f"{text[: max(0, letters - 3)].rstrip()}..."[:letters]


def save_png(image: np.ndarray, path: Path) -> int:
    """Write a PNG and return its size in bytes. The same image gives the same bytes."""
    drawn = Image.fromarray(image)
    drawn.save(path)
    if path.stat().st_size > MOST_BYTES:
        drawn.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG).save(path)
    return path.stat().st_size


def frame(canvas: Image.Image) -> np.ndarray:
    """Draw a thin grey line around an image, inside it: uint8 `[H, W, 3]`."""
    draw_outline(ImageDraw.Draw(canvas), (0, 0, canvas.width - 1, canvas.height - 1), (176, 180, 186), 1)
    return np.array(canvas)


def _title_strip(title: str, lines: Sequence[str], width: int) -> np.ndarray:
    head = 30 if title else 0
    canvas = blank(GAP_PX + head + 22 * len(lines), width)
    draw, max_width = ImageDraw.Draw(canvas), width - 2 * GAP_PX
    write_line(draw, (GAP_PX, GAP_PX), title, size=22, max_width=max_width)
    for index, line in enumerate(lines):
        corner = (GAP_PX, GAP_PX + head + 2 + 22 * index)
        write_line(draw, corner, line, size=15, max_width=max_width, colour=SOFT_INK)
    return np.asarray(canvas)


def _legend_strip(keys: Sequence[Key], width: int) -> np.ndarray:
    """Draw a legend in as many rows as the width needs."""
    most, height = (width - 2 * GAP_PX) // 2, KEY_PX + 12
    canvas = blank(height * len(keys) + 8, width)  # cut below
    draw, x, y = ImageDraw.Draw(canvas), GAP_PX, 8
    for key in keys:
        text = shortened(key.text, MOST_LETTERS)
        font = fitting_font(text, size=KEY_PX, max_width=most)
        needed = LINE_PX + 8 + min(text_size(text, font)[0], most) + 24
        if x > GAP_PX and x + needed > width - GAP_PX:
            x, y = GAP_PX, y + height
        middle = y + KEY_PX // 2
        # The outline separates pale colours from the paper.
        draw.rectangle((x, middle - 3, x + LINE_PX - 1, middle + 3), fill=key.colour, outline=SOFT_INK)
        for gap in range(x + 8, x + LINE_PX - 1, 12) if key.is_dashed else ():
            draw.rectangle((gap, middle - 3, gap + 4, middle + 3), fill=WHITE)
        write_line(draw, (x + LINE_PX + 8, y + 1), text, size=KEY_PX, max_width=most)
        x += needed
    return np.asarray(canvas)[: y + height]


def _header_strip(header: Sequence[str], cell: int, width: int) -> np.ndarray:
    canvas = blank(26, width)
    draw = ImageDraw.Draw(canvas)
    for index, text in enumerate(header):
        write_line(draw, (GAP_PX + index * (cell + GAP_PX), 10), text, size=15, max_width=cell)
    return np.asarray(canvas)


def _row_strip(row: Sequence[Panel], cell: int, width: int) -> np.ndarray:
    image_height = max(panel.image.shape[0] for panel in row)
    head = 26 if any(panel.title for panel in row) else 0
    caption = head + 20 * max(len(panel.lines) for panel in row)
    canvas = blank(image_height + GAP_PX + (caption + 4 if caption else 0), width)
    draw = ImageDraw.Draw(canvas)
    for index, panel in enumerate(row):
        left, image = GAP_PX + index * (cell + GAP_PX), panel.image
        place = (left + (cell - image.shape[1]) // 2, (image_height - image.shape[0]) // 2 + 6)
        canvas.paste(Image.fromarray(image), place)
        top = image_height + 14
        write_line(draw, (left, top), panel.title, size=18, max_width=cell)
        for offset, line in enumerate(panel.lines):
            write_line(draw, (left, top + head + 20 * offset), line, size=14, max_width=cell, colour=SOFT_INK)
    return np.asarray(canvas)
