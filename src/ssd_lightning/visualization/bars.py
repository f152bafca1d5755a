"""Charts with one place for each name: columns, bars and dots."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.cells import cell_len

from ssd_lightning.visualization.charts import (
    FONT_PX,
    GROUND,
    INK,
    LETTER_PX,
    MUTED,
    PAGE_PX,
    new_figure,
    series_colour,
    short,
    thin,
    tidy,
)
from ssd_lightning.visualization.svg import set_hint

MARKERS = "osD^"

Series = Sequence[tuple[str, Sequence[float]]]
"""Name and values of each series, a value per name on the axis."""


def draw_columns(
    axes: Any,
    names: Sequence[str],
    series: Series,
    *,
    hints: Sequence[Sequence[str]] | None = None,
    above: Sequence[str] = (),
    x_label: str = "",
    high: float | None = None,
) -> None:
    """Draw vertical bars, those of several series side by side; a histogram is one series.

    Args:
        axes: where.
        names: names of the columns; only those that fit are shown.
        series: values of at least 0; non-finite ones have no bar.
        hints: texts under the pointer, for each series; by default the values.
        above: texts above the columns.
        x_label: text below the names.
        high: end of the vertical axis; by default a little more than the largest value.
    """
    values = _finite(series, len(names))
    places = np.arange(len(names))
    width = (0.72 if len(series) > 1 or len(names) < 8 else 0.92) / max(len(series), 1)
    for slot, (name, _) in enumerate(series):
        x = places + (slot - (len(series) - 1) / 2) * width
        bars = axes.bar(x, values[slot], width * 0.97, color=series_colour(slot), label=name)
        for place, bar in enumerate(bars):
            text = hints[slot][place] if hints else f"{values[slot, place]:g}"
            set_hint(bar, f"{names[place]}{f', {name}' if len(series) > 1 else ''}: {text}")
    for place, text in enumerate(above):
        at = (place, values[:, place].max())
        axes.annotate(text, at, (0, 3), textcoords="offset points", ha="center", fontsize=FONT_PX, color=INK)
    axes.set_xlabel(x_label, loc="right")
    top = values.max(initial=0.0) or 1
    axes.set(xlim=(-0.5, max(len(names), 1) - 0.5), ylim=(0, high or top * (1.3 if above else 1.04)))
    tidy(axes)
    letters = max((cell_len(line) for name in names for line in name.split("\n")), default=0)
    place_px = axes.get_position().width * axes.figure.get_size_inches()[0] * 72 / max(len(names), 1)
    every = max(1, int(-(-(LETTER_PX * letters + 8) // place_px)))
    axes.set_xticks(places[::every], [name.replace("$", r"\$") for name in names][::every], color=INK)


def bar_figure(
    names: Sequence[str],
    series: Series,
    *,
    texts: Sequence[Sequence[str]],
    hints: Sequence[str] = (),
    high: float | None = None,
) -> Any:
    """Draw horizontal bars, those of several series below each other, each followed by its number.

    Args:
        names: names of the rows.
        series: values of at least 0; non-finite ones have no bar.
        texts: the formatted numbers of each series.
        hints: text under the pointer of each row; by default name and numbers.
        high: end of the axis; by default the largest value.
    """
    values = _finite(series, len(names))
    bar_px = 16.0 if values.size <= 30 else 13.0
    text_px = LETTER_PX * max((len(text) for row in texts for text in row), default=0) + 8
    axes, rows = _named_rows(names, bar_px * len(series) + 8, right_px=text_px)
    for slot, (name, _) in enumerate(series):
        y = rows + (slot - (len(series) - 1) / 2) * bar_px
        bars = axes.barh(y, values[slot], bar_px - 1, color=series_colour(slot), label=name)
        for row, bar in enumerate(bars):
            set_hint(bar, hints[row] if hints else f"{names[row]}: " + ", ".join(text[row] for text in texts))
            place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center_baseline"}
            axes.annotate(texts[slot][row], (values[slot, row], y[row]), **place, fontsize=12, color=INK)
    axes.set(xlim=(0, high or values.max(initial=0.0) or 1), xticks=[])
    axes.grid(visible=False)
    axes.spines["left"].set(visible=True, color=MUTED)
    return axes.figure


def dot_figure(names: Sequence[str], series: Series) -> Any:
    """Draw a row for each name with a marker for every series, all from 0 to 1; non-finite values have none."""
    row_px = 24.0 if len(names) <= 30 else 19.0
    axes, rows = _named_rows(names, row_px, right_px=14, below_px=22)
    for slot, (_, values) in enumerate(series):
        # Shifted vertically, since equal values would hide each other; shapes help where colours look alike.
        y = rows + (slot - (len(series) - 1) / 2) * min(6.0, row_px / (2 * len(series)))
        style = {"marker": MARKERS[slot % len(MARKERS)], "markersize": 9, "markeredgecolor": GROUND, "linestyle": ""}
        axes.plot(*thin(values, y), color=series_colour(slot), **style)
    axes.set(xlim=(0, 1))
    return axes.figure


def _named_rows(names: Sequence[str], row_px: float, *, right_px: float, below_px: float = 0) -> tuple[Any, np.ndarray]:
    """Make axes with a name at the left of each row, and return the vertical places of the rows."""
    height = row_px * max(len(names), 1)
    name_px = 12 + LETTER_PX * max((cell_len(short(name)) for name in names), default=0)
    axes = new_figure(PAGE_PX, height + below_px, margins_px=(name_px, right_px, 0, below_px)).subplots()
    axes.set_ylim(height, 0)
    tidy(axes, grid="both")
    rows = np.arange(len(names)) * row_px + row_px / 2
    axes.set_yticks(rows, [short(name) for name in names], color=INK, fontsize=12)
    axes.spines["bottom"].set_visible(False)
    return axes, rows


def _finite(series: Series, count: int) -> np.ndarray:
    """Return the values as `[S, N]`, 0 where they are not finite."""
    values = np.array([values for _, values in series], dtype=np.float64).reshape(len(series), count)
    return np.where(np.isfinite(values), values, 0.0)
