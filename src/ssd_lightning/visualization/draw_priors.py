"""Draw priors over an image, level by level, like figure 1 of the SSD paper."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ssd_lightning.ops.priors import PriorLevel
from ssd_lightning.visualization.boxes import Rectangle, draw_outline, fitting_size, whole_pixels
from ssd_lightning.visualization.colours import WHITE, Colour, class_colour, text_colour
from ssd_lightning.visualization.sheet import INK, SOFT_INK, Key, Panel, blank, lay_out, write_line

MARGIN = 0.13
"""White margin as a fraction of the image's longer side, for priors that extend beyond the image."""
FADING = 0.35
"""Fraction of white in the image, so that lines stand out."""
PALE = 0.55
"""Opacity of the priors of other cells, and of parts outside the image."""
_ORDER = (5, 7, 3, 6, 2, 1, 4)  # of the palette, the darkest first: they are lines on a faded image


@dataclass(frozen=True)
class LevelPriors:
    """The priors of one feature map.

    Attributes:
        level: the feature map.
        step_px: (vertical, horizontal) distance between neighbouring centres, in pixels of the network's input.
        boxes_cxcywh: float `[rows, columns, boxes, 4]`, normalised, as in the network.
    """

    level: PriorLevel
    step_px: tuple[float, float]
    boxes_cxcywh: np.ndarray

    @property
    def ratios(self) -> tuple[float, ...]:
        """Long side over short side of each box of a cell."""
        squares = len(self.level.squares())
        stretched = [float(ratio) for ratio in self.level.aspect_ratios for _ in range(2)]
        return (*[1.0] * squares, *stretched * (2 if self.level.both_sizes else 1))

    @property
    def count(self) -> int:
        """Number of its priors."""
        return self.boxes_cxcywh.size // 4

    @property
    def boxes_xyxy(self) -> np.ndarray:
        """`[rows, columns, boxes, 4]`, normalised."""
        centre, half = self.boxes_cxcywh[..., :2], self.boxes_cxcywh[..., 2:] / 2
        return np.concatenate((centre - half, centre + half), axis=-1)

    @property
    def share_reaching_out(self) -> float:
        """Fraction of its priors that extend beyond the image."""
        boxes = self.boxes_xyxy
        return float(((boxes < -1e-6) | (boxes > 1 + 1e-6)).any(-1).mean())

    def cells(self) -> tuple[str, str, str]:
        """Return its cells, its step and its squares as text for tables."""
        step = " x ".join(dict.fromkeys(f"{step:.4g}" for step in self.step_px))
        return "{} x {}".format(*self.level.grid), step, ", ".join(f"{size:.4g}" for size in self.level.squares())

    def ratio_texts(self) -> str:
        """Describe the boxes of a cell by their aspect ratios, equal ones once."""
        squares = self.ratios.count(1)
        return ", ".join(f"{squares} x 1:1" if ratio == 1 else ratio_text(ratio) for ratio in sorted({*self.ratios}))


def split_by_level(
    priors_cxcywh: np.ndarray, levels: Sequence[PriorLevel], image_size: tuple[int, int]
) -> list[LevelPriors]:
    """Split priors `[K, 4]` into levels of `[rows, columns, boxes, 4]`."""
    shapes = [(*level.grid, level.boxes_per_cell, 4) for level in levels]
    parts = np.split(priors_cxcywh, np.cumsum([math.prod(shape[:3]) for shape in shapes])[:-1])
    return [
        LevelPriors(level, level.steps(image_size), part.reshape(shape))
        for level, part, shape in zip(levels, parts, shapes, strict=True)
    ]


def ratio_text(ratio: float) -> str:
    """Describe both boxes of an aspect ratio."""
    return "1:1" if ratio == 1 else f"{ratio:.3g}:1, 1:{ratio:.3g}"


@dataclass(frozen=True)
class Ground:
    """A faded image on a white canvas, and the place of boxes on it.

    Attributes:
        canvas: with a white margin.
        corner: (x, y) of the image on the canvas.
        size: (width, height) of the image on the canvas.
    """

    canvas: Image.Image
    corner: tuple[int, int]
    size: tuple[int, int]

    def rectangle(self, box_xyxy: np.ndarray) -> Rectangle:
        """Convert a normalised box to whole pixels; it may extend beyond the canvas."""
        return whole_pixels(box_xyxy * np.array([*self.size, *self.size]) + np.array([*self.corner, *self.corner]))


def lay_ground(image: np.ndarray, longer_side_px: int) -> Ground:
    """Put a faded image on white; the longer side with the margin is `longer_side_px`."""
    side = longer_side_px / (1 + 2 * MARGIN)
    size = fitting_size(image, side, side)
    margin = round(MARGIN * max(size))
    faded = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    canvas = blank(size[1] + 2 * margin, size[0] + 2 * margin)
    canvas.paste(Image.blend(faded, blank(size[1], size[0]), FADING), (margin, margin))
    rim = (margin - 1, margin - 1, margin + size[0], margin + size[1])
    draw_outline(ImageDraw.Draw(canvas), rim, SOFT_INK, 1)
    return Ground(canvas, (margin, margin), size)


def ratio_colours(levels: Sequence[LevelPriors]) -> dict[float, Colour]:
    """Assign a colour to every aspect ratio, squares first."""
    ratios = sorted({ratio for level in levels for ratio in level.ratios})
    return {ratio: _dark_colour(index) for index, ratio in enumerate(ratios)}


def draw_level(ground: Ground, level: LevelPriors, colours: Mapping[float, Colour]) -> np.ndarray:
    """Draw the centres of all cells, the priors of the middle one, and pale priors of a few others."""
    middle, further = _chosen_cells(level)
    canvas = _with_centres(ground, level)
    for cell in further:
        canvas = Image.blend(canvas, _with_boxes(canvas, ground, level, cell, colours, width=1), PALE)
    drawn = _with_boxes(canvas, ground, level, middle, colours, width=2)
    (left, top), (width, height) = ground.corner, ground.size
    canvas = Image.blend(canvas, drawn, PALE)
    canvas.paste(drawn.crop((left, top, left + width, top + height)), ground.corner)
    return np.array(canvas)


def level_caption(number: int, level: LevelPriors) -> tuple[str, tuple[str, ...]]:
    """Describe a level by a title and lines."""
    cells, step, sizes = level.cells()
    out = level.share_reaching_out
    return f"Level {number}: {cells} cells, {level.count:,} priors", (
        f"step {step} px, squares of {sizes.replace(', ', ' and ')} px",
        f"{len(level.ratios)} a cell: {level.ratio_texts()}",
        f"{out:.0%} reach out of the image" if out else "all within the image",
    )


def draw_prior_levels(image: np.ndarray, levels: Sequence[LevelPriors], *, title: str, clipping: str) -> np.ndarray:
    """Draw one panel for each level.

    The image has the proportions of the network's input; `clipping` describes how priors beyond it are clipped.
    """
    colours, ground = ratio_colours(levels), lay_ground(image, 360)
    panels = [
        Panel(draw_level(ground, level, colours), *level_caption(number, level))
        for number, level in enumerate(levels, 1)
    ]
    keys = [Key(ratio_text(ratio), colour, is_dashed=True) for ratio, colour in colours.items()]
    explanation = [
        "Dots: centres of the cells. Dashed: the priors of the middle cell.",
        f"Pale: those of some other cells, and what reaches out of the image ({clipping}).",
    ]
    columns = 2 if len(panels) in (1, 2, 4) else 3
    return lay_out(panels, columns=columns, title=title, lines=explanation, keys=keys)


def draw_prior_overview(image: np.ndarray, levels: Sequence[LevelPriors], *, title: str, clipping: str) -> np.ndarray:
    """Draw the middle cell's priors of all levels on one image, coloured by level, with a table next to it."""
    ground = lay_ground(image, 560)
    canvas = ground.canvas
    colours = [_dark_colour(index) for index in range(len(levels))]
    for level, colour in reversed(list(zip(levels, colours, strict=True))):
        middle = _chosen_cells(level)[0]
        drawn = _with_boxes(canvas, ground, level, middle, dict.fromkeys(level.ratios, colour), width=1)
        canvas = Image.blend(canvas, drawn, PALE)
        draw_outline(ImageDraw.Draw(canvas), ground.rectangle(level.boxes_xyxy[middle][0]), colour, 3)
    joined = np.concatenate((np.asarray(canvas), _draw_table(levels, colours, height=canvas.height)), axis=1)
    lines = [f"Of the middle cell: solid the small square of each level, dashed its other shapes ({clipping})."]
    return lay_out([Panel(joined)], columns=1, title=title, lines=lines)


def _dark_colour(index: int) -> Colour:
    return class_colour(_ORDER[index] if index < len(_ORDER) else index + 1)


def _chosen_cells(level: LevelPriors) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """Choose the middle cell and some others: the smaller the boxes, the more cells."""
    rows, columns = level.boxes_cxcywh.shape[:2]
    middle = (rows // 2, columns // 2)
    side = float(level.boxes_cxcywh[(*middle, 0)][2:].max())
    low, high = (rows // 5, columns // 5), (rows - 1 - rows // 5, columns - 1 - columns // 5)
    corners = [low, high, (low[0], high[1]), (high[0], low[1])][: 4 if side < 0.25 else 2 if side < 0.45 else 0]
    return middle, [cell for cell in dict.fromkeys(corners) if cell != middle]


def _with_centres(ground: Ground, level: LevelPriors) -> Image.Image:
    drawn = ground.canvas.copy()
    draw = ImageDraw.Draw(drawn)
    radius = 1 if min(ground.size) / max(level.boxes_cxcywh.shape[:2]) < 14 else 2
    for x, y in level.boxes_cxcywh[:, :, 0, :2].reshape(-1, 2) * np.array(ground.size) + np.array(ground.corner):
        left, top = int(x) - radius // 2, int(y) - radius // 2
        if radius > 1:
            draw.rectangle((left - 1, top - 1, left + radius + 1, top + radius + 1), fill=WHITE)
        draw.rectangle((left, top, left + radius, top + radius), fill=INK)
    return Image.blend(ground.canvas, drawn, 0.8 if radius > 1 else 0.55)


def _with_boxes(
    canvas: Image.Image,
    ground: Ground,
    level: LevelPriors,
    cell: tuple[int, int],
    colours: Mapping[float, Colour],
    *,
    width: int,
) -> Image.Image:
    """Draw the priors of a cell, the smallest on top."""
    drawn = canvas.copy()
    draw = ImageDraw.Draw(drawn)
    boxes = level.boxes_xyxy[cell]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    for index in np.argsort(-areas, kind="stable"):
        draw_outline(draw, ground.rectangle(boxes[index]), colours[level.ratios[index]], width, dash=3 + 2 * width)
    return drawn


def _draw_table(levels: Sequence[LevelPriors], colours: Sequence[Colour], *, height: int) -> np.ndarray:
    places, width = (16, 56, 130, 226, 344, 430), 500
    canvas = blank(height, width)
    draw = ImageDraw.Draw(canvas)
    pitch = min(34, (height - 20) // (len(levels) + 2))
    top = max(0, (height - pitch * (len(levels) + 2)) // 2)

    def write(row: int, cells: Sequence[str], colour: Colour = INK) -> None:
        for place, end, text in zip(places, (*places[1:], width), cells, strict=True):
            write_line(draw, (place, top + row * pitch), text, size=15, max_width=end - place - 6, colour=colour)

    write(0, ("", "cells", "step px", "squares px", "ratios", "priors"), SOFT_INK)
    for row, (level, colour) in enumerate(zip(levels, colours, strict=True), 1):
        y = top + row * pitch
        draw.rectangle((places[0], y - 2, places[0] + 24, y + 15), fill=colour)
        ratios = "  ".join(f"{ratio:.3g}" for ratio in sorted({*level.ratios}))
        write(row, ("", *level.cells(), ratios, f"{level.count:,}"))
        write_line(draw, (places[0] + 8, y + 1), str(row), size=14, max_width=20, colour=text_colour(colour))
    write(len(levels) + 1, ("", "", "", "", "in all", f"{sum(level.count for level in levels):,}"), SOFT_INK)
    return np.asarray(canvas)
