"""The chart of a confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.cells import cell_len

from ssd_lightning.visualization.charts import FONT_PX, GRID, INK, LETTER_PX, MUTED, new_figure, short
from ssd_lightning.visualization.svg import THEME, set_hint

MOST_WITH_NUMBERS = 25
"""Number of names up to which the cells of a confusion matrix have numbers."""
NOTHING = "nothing"
"""Name of the background: true class of false detections, and detected class of missed objects."""


def confusion_figure(matrix: np.ndarray, class_names: Sequence[str], *, title: str = "") -> Any:
    """Draw how often each true class (row) was detected as each class (column), with the diagonal in another colour.

    The shade is the fraction of the true class's objects; for false detections, the fraction of the detected class's.

    The matrix is that of `analysis.matching.confusion_matrix`; its background, 0, is drawn last.
    """
    counts = np.roll(matrix, -1, axis=(0, 1))
    names = [*class_names, NOTHING]
    size, has_numbers = len(names), len(names) <= MOST_WITH_NUMBERS
    cell = 38.0 if size <= 12 else 27.0 if has_numbers else min(14.0, max(9.0, 870 / size))
    font = 12.0 if has_numbers else 9.5
    letters = [short(name, 16) for name in names]
    side = max(14 + font * LETTER_PX / 12 * max(map(cell_len, letters)), LETTER_PX * len("found as →"))
    top = side + 16 + (28 if title else 0)
    width, height = max(side + cell * size + 2, 8 * len(short(title, 99))), top + cell * size + 2
    figure = new_figure(width, height, margins_px=(side, width - side - cell * size, top, 2))
    axes = figure.subplots()
    _draw_cells(axes, counts, names, cell, font_px=(12 if cell > 30 else 10) if has_numbers else 0)
    axes.set(xlim=(0, size), ylim=(size, 0), facecolor=THEME["raised"])
    axes.spines[:].set_color(GRID)
    axes.tick_params(
        length=0, pad=5, labelsize=font, labelcolor=INK, top=True, labeltop=True, bottom=False, labelbottom=False
    )
    axes.set_xticks(np.arange(size) + 0.5, letters, rotation=90)
    axes.set_yticks(np.arange(size) + 0.5, letters)
    quiet = {"fontsize": FONT_PX, "color": MUTED, "transform": figure.transFigure}
    axes.text(side / width, 1 - (top - side - 5) / height, "found as →", **quiet)
    axes.text(0, 1 - (top - 6) / height, "true ↓", **quiet)
    axes.text(0, 1 - 16 / height, short(title, 99), fontsize=13, color=INK, transform=figure.transFigure)
    return figure


def shade(share: float) -> float:
    """Return the opacity of a fraction: light enough for dark digits below a half, dark enough for light ones above."""
    return share if share < 0.5 else 0.82 + (share - 0.5) * 0.36


def _draw_cells(axes: Any, counts: np.ndarray, names: Sequence[str], cell: float, *, font_px: float) -> None:
    """Draw the cells of a confusion matrix, with numbers unless `font_px` is 0."""
    from matplotlib.patches import Rectangle

    objects = np.maximum(counts.sum(axis=1), 1)
    for row, column in np.argwhere(counts).tolist():
        count, whose = counts[row, column], column if row == len(names) - 1 else row
        share = min(1.0, count / objects[whose])
        colour = THEME["heat"] if row == column else THEME["wrong"]
        at, side = (column + 0.5 / cell, row + 0.5 / cell), 1 - 1 / cell
        patch = Rectangle(at, side, side, facecolor=colour, alpha=shade(share), linewidth=0)
        set_hint(patch, f"true {names[row]}, found as {names[column]}: {count}, {share:.0%} of {names[whose]}")
        axes.add_patch(patch)
        if font_px:
            number = str(count) if count < 10_000 else f"{count / 1000:.0f}k"
            on = THEME["on-heat"] if share >= 0.5 else INK
            axes.text(column + 0.5, row + 0.5, number, ha="center", va="center", fontsize=font_px, color=on)
