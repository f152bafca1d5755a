"""Arrange images with captions on one white sheet, as in a paper or a README."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ssd_lightning.visualization.colours import WHITE, Colour
from ssd_lightning.visualization.outlines import draw_outline
from ssd_lightning.visualization.tags import fitting_font, text_size, write_text

INK: Colour = (28, 30, 34)
SOFT_INK: Colour = (96, 100, 108)
WARNING_INK: Colour = (178, 44, 20)
GAP_PX = 18
MOST_LETTERS = 40
"""Line length of an entry of a legend."""
MOST_BYTES = 1_500_000
"""Size limit of an unchanged file; larger ones get a palette, which takes a third and looks nearly the same."""


@dataclass(frozen=True)
class Panel:
    """An image with a caption.

    Attributes:
        image: uint8 `[H, W, 3]`.
        title: title below the image.
        lines: smaller text below the title.
    """

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
    title: str,
    lines: Sequence[str] = (),
    keys: Sequence[Key] = (),
    header: Sequence[str] = (),
) -> np.ndarray:
    """Arrange panels in rows: uint8 `[H, W, 3]`.

    Args:
        panels: panels of any size; each is centred in a column as wide as the widest.
        columns: number of panels in a row.
        title: title of the sheet.
        lines: smaller text below the title.
        keys: entries of the legend, below the lines.
        header: titles of the columns.

    Raises:
        ValueError: there is no panel, or `columns` is less than one.
    """
    if not panels or columns < 1:
        raise ValueError(f"{len(panels)} panels in {columns} columns make no sheet")
    columns = min(columns, len(panels))
    cell = max(panel.image.shape[1] for panel in panels)
    width = columns * (cell + GAP_PX) + GAP_PX
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    strips = [_title_strip(title, lines, keys, width)]
    if header:
        strips.append(_header_strip(header, cell, width))
    strips += [_row_strip(row, cell, width) for row in rows]
    return np.concatenate(strips)


def blank(height: int, width: int) -> Image.Image:
    """Make an empty white image."""
    return Image.new("RGB", (width, height), WHITE)


def write_line(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, *, size: int, max_width: int, colour: Colour = INK
) -> int:
    """Write a line, smaller or shortened if it is wider than `max_width` pixels, and return its width."""
    text = shortened(text, max_width // 3)  # letters are wider than 3 pixels, and measuring is slow
    font = fitting_font(text, size=size, max_width=max_width)
    letters = len(text)
    while letters and text_size(text, font)[0] > max_width:
        letters = letters * 9 // 10
        text = shortened(text, letters)
    write_text(draw, corner, text, font, colour)
    return text_size(text, font)[0]


def shortened(text: str, letters: int) -> str:
    """Shorten a text to a number of letters, the last three of them dots."""
    return text if len(text) <= letters else f"{text[: max(0, letters - 3)].rstrip()}..."[:letters]


def draw_keys(keys: Sequence[Key], width: int, *, size: int = 15) -> np.ndarray:
    """Draw a legend in as many rows as `width` needs: uint8 `[H, width, 3]`."""
    line_px, height = 34, size + 12
    keys = [replace(key, text=shortened(key.text, MOST_LETTERS)) for key in keys]
    rows: list[list[Key]] = [[]]
    remaining = width
    for key in keys:
        needed = (
            line_px
            + 8
            + min(text_size(key.text, fitting_font(key.text, size=size, max_width=width))[0], width // 2)
            + 24
        )
        if needed > remaining and rows[-1]:
            rows.append([])
            remaining = width
        remaining -= needed
        rows[-1].append(key)
    canvas = blank(height * len(rows), width)
    draw = ImageDraw.Draw(canvas)
    for index, row in enumerate(rows):
        x, y = 0, index * height
        for key in row:
            middle = y + size // 2
            # The outline separates pale colours from the paper.
            draw.rectangle((x, middle - 3, x + line_px - 1, middle + 3), fill=key.colour, outline=SOFT_INK)
            if key.is_dashed:
                for gap in range(x + 8, x + line_px - 1, 12):
                    draw.rectangle((gap, middle - 3, gap + 4, middle + 3), fill=WHITE)
            x += line_px + 8
            x += write_line(draw, (x, y + 1), key.text, size=size, max_width=width // 2, colour=INK) + 24
    return np.asarray(canvas).copy()


def save_png(image: np.ndarray, path: Path) -> int:
    """Write a PNG and return its size in bytes. The same image gives the same bytes."""
    drawn = Image.fromarray(image)
    drawn.save(path)
    if path.stat().st_size > MOST_BYTES:
        drawn.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG).save(path)
    return path.stat().st_size


def frame(image: np.ndarray) -> np.ndarray:
    """Draw a thin grey line around an image, inside it, and return a new image."""
    canvas = Image.fromarray(image)
    draw_outline(ImageDraw.Draw(canvas), (0, 0, canvas.width - 1, canvas.height - 1), (176, 180, 186), 1)
    return np.asarray(canvas).copy()


def _title_strip(title: str, lines: Sequence[str], keys: Sequence[Key], width: int) -> np.ndarray:
    max_width = width - 2 * GAP_PX
    canvas = blank(GAP_PX + 30 + 22 * len(lines), width)
    draw = ImageDraw.Draw(canvas)
    write_line(draw, (GAP_PX, GAP_PX), title, size=22, max_width=max_width)
    for index, line in enumerate(lines):
        write_line(draw, (GAP_PX, GAP_PX + 32 + 22 * index), line, size=15, max_width=max_width, colour=SOFT_INK)
    strips = [np.asarray(canvas)]
    if keys:
        legend = draw_keys(keys, max_width)
        strips.append(_padded(legend, width, above=8))
    return np.concatenate(strips)


def _header_strip(header: Sequence[str], cell: int, width: int) -> np.ndarray:
    canvas = blank(26, width)
    draw = ImageDraw.Draw(canvas)
    for index, text in enumerate(header):
        write_line(draw, (GAP_PX + index * (cell + GAP_PX), 10), text, size=15, max_width=cell)
    return np.asarray(canvas)


def _row_strip(row: Sequence[Panel], cell: int, width: int) -> np.ndarray:
    image_height = max(panel.image.shape[0] for panel in row)
    has_title = any(panel.title for panel in row)
    caption = has_title * 26 + 20 * max(len(panel.lines) for panel in row)
    height = image_height + GAP_PX + (caption + 4 if caption else 0)
    canvas = blank(height, width)
    draw = ImageDraw.Draw(canvas)
    for index, panel in enumerate(row):
        left, image = GAP_PX + index * (cell + GAP_PX), panel.image
        place = (left + (cell - image.shape[1]) // 2, (image_height - image.shape[0]) // 2 + 6)
        canvas.paste(Image.fromarray(image), place)
        y = image_height + 14
        if has_title:
            write_line(draw, (left, y), panel.title, size=18, max_width=cell)
            y += 26
        for offset, line in enumerate(panel.lines):
            write_line(draw, (left, y + 20 * offset), line, size=14, max_width=cell, colour=SOFT_INK)
    return np.asarray(canvas)


def _padded(image: np.ndarray, width: int, *, above: int) -> np.ndarray:
    canvas = blank(image.shape[0] + above, width)
    canvas.paste(Image.fromarray(image), (GAP_PX, above))
    return np.asarray(canvas)
