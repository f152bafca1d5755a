"""Charts on matplotlib, for images and, by `svg.py`, for pages with a light and a dark theme.

Lengths are in px of the page: a figure has 72 of them per inch, so that font sizes are px, too.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssd_lightning.errors import one_line
from ssd_lightning.visualization.colours import class_colour
from ssd_lightning.visualization.fonts import spell
from ssd_lightning.visualization.svg import THEME, set_hint

GROUND, INK, MUTED, GRID = (THEME[name] for name in ("ground", "ink", "muted", "grid"))
PALETTE = tuple(THEME[f"s{slot}"] for slot in range(7))
"""Colours of series: those of Okabe and Ito, darker where they are too pale for lines on white."""
MARKERS = "osD^"
PAGE_PX = 440
"""Width of a column of a page: nearly that of a phone, and half of a desktop page."""
FONT_PX, LETTER_PX = 11.5, 6.4
"""Size of letters, and their mean width in usual fonts, rather too large than too small."""
MOST_POINTS = 200
"""Maximum points of a line, more than its pixels can show."""
LONGEST_NAME = 20

Series = Sequence[tuple[str, Sequence[float]]]
"""Name and values of each series, a value per name on the axis."""


@dataclass(frozen=True, eq=False)
class Line:
    """Values over x; non-finite ones are skipped."""

    name: str
    x: Sequence[float] | np.ndarray
    """`[P]`."""
    y: Sequence[float] | np.ndarray
    """`[P]`."""
    slot: int = 0
    """Index into the palette; from its end on lines are dashed."""
    colour: Any = None
    """Used instead of the palette's."""
    width: float = 1.8
    with_points: bool = False
    """Mark every point, for lines of few points. A single point is always marked."""


def new_figure(
    width_px: float, height_px: float, *, margins_px: tuple[float, float, float, float] | None = None
) -> Any:
    """Make an empty figure without a window and without global state.

    `margins_px` are left, right, top and bottom of the axes; None finds them, which takes several times as long.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_px / 72, height_px / 72), dpi=72, layout=None if margins_px else "constrained")
    if margins_px:
        left, right, top, bottom = margins_px
        figure.subplots_adjust(left / width_px, bottom / height_px, 1 - right / width_px, 1 - top / height_px)
    return figure


def pixels_of(figure: Any, *, dpi: int = 110) -> np.ndarray:
    """Render a figure: uint8 `[H, W, 3]`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    _set_fonts(figure)
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _set_fonts(figure: Any) -> None:
    """Assign to every text of a figure a font that has its letters."""
    from matplotlib.font_manager import fontManager
    from matplotlib.ft2font import FT2Font
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        plain, file = spell(text.get_text()) if not text.get_text().isascii() else ("", None)
        if file is not None:
            if file not in {font.fname for font in fontManager.ttflist}:
                fontManager.addfont(file)
            # DejaVu Sans first: fonts for other scripts may lack Latin letters, which determine the line height.
            text.set(text=plain, fontfamily=["DejaVu Sans", FT2Font(file).family_name])


def columns(text: str) -> int:
    """Count the columns of a text; East Asian letters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def short(text: str, most: int = LONGEST_NAME) -> str:
    """Shorten a text to a number of columns, and escape it so that matplotlib does not read it as mathematics."""
    text = one_line(text)
    if columns(text) > most:
        text = text[:most]
        while columns(text) >= most:
            text = text[:-1]
        text += "…"
    return text.replace("$", r"\$")


def line_colour(label: int) -> tuple[float, float, float]:
    """Return the colour that a class has in images, darkened if a line would be too pale on white."""
    red, green, blue = class_colour(label)
    brightness = (0.3 * red + 0.59 * green + 0.11 * blue) / 255
    factor = min(1.0, 0.62 / brightness) / 255
    return red * factor, green * factor, blue * factor


def tidy(axes: Any, *, grid: str = "y") -> None:
    """Give axes few round ticks, a grid and no frame but a line at the bottom."""
    from matplotlib.ticker import MaxNLocator

    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "linear":
            axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
            axis.set_major_formatter("{x:g}")
        axis.label.set(color=MUTED, fontsize=FONT_PX)
    axes.tick_params(which="both", length=0, pad=6, labelsize=FONT_PX, labelcolor=MUTED)
    axes.grid(axis=grid, color=GRID, linewidth=1)
    axes.set_axisbelow(True)
    axes.patch.set_visible(False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set(color=MUTED, linewidth=1)


def thin(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, points: int = MOST_POINTS) -> Any:
    """Remove non-finite values, and replace a long line by the means of `points` segments: `[2, P]`."""
    line = np.array([x, y], dtype=np.float64)
    line = line[:, np.isfinite(line).all(axis=0)]
    if line.shape[1] <= points:
        return line
    return np.stack([part.mean(axis=1) for part in np.array_split(line, points, axis=1)], axis=1)


def draw_lines(
    axes: Any,
    lines: Iterable[Line],
    *,
    x_label: str,
    y_label: str = "",
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
) -> None:
    """Draw lines over a common axis. Ranges are by default those of the values; `diagonal` marks equal values."""
    if diagonal:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.2, linestyle=(0, (2, 4)))
    for line in lines:
        x, y = thin(line.x, line.y)
        axes.plot(
            x, y, color=line.colour or _series_colour(line.slot), linewidth=line.width,
            linestyle="-" if line.slot < len(PALETTE) else (0, (4, 2.5)),
            marker="o" if line.with_points or len(x) == 1 else "", markersize=6, markeredgecolor=GROUND,
            label=line.name, solid_capstyle="round",
        )  # fmt: skip
    axes.margins(x=0)
    for set_limits, limits in ((axes.set_xlim, x_range), (axes.set_ylim, y_range)):
        if limits is not None and limits[0] < limits[1]:
            set_limits(limits)
    axes.set_xlabel(x_label, loc="right")
    axes.set_ylabel(y_label)
    tidy(axes)


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
        bars = axes.bar(x, values[slot], width * 0.97, color=_series_colour(slot), label=name)
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
    letters = max((columns(line) for name in names for line in name.split("\n")), default=0)
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
        bars = axes.barh(y, values[slot], bar_px - 1, color=_series_colour(slot), label=name)
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
        axes.plot(*thin(values, y), color=_series_colour(slot), **style)
    axes.set(xlim=(0, 1))
    return axes.figure


def _named_rows(names: Sequence[str], row_px: float, *, right_px: float, below_px: float = 0) -> tuple[Any, np.ndarray]:
    """Make axes with a name at the left of each row, and return the vertical places of the rows."""
    height = row_px * max(len(names), 1)
    name_px = 12 + LETTER_PX * max((columns(short(name)) for name in names), default=0)
    axes = new_figure(PAGE_PX, height + below_px, margins_px=(name_px, right_px, 0, below_px)).subplots()
    axes.set_ylim(height, 0)
    tidy(axes, grid="both")
    rows = np.arange(len(names)) * row_px + row_px / 2
    axes.set_yticks(rows, [short(name) for name in names], color=INK, fontsize=12)
    axes.spines["bottom"].set_visible(False)
    return axes, rows


def _series_colour(slot: int) -> str:
    return PALETTE[slot % len(PALETTE)]


def _finite(series: Series, count: int) -> np.ndarray:
    """Return the values as `[S, N]`, 0 where they are not finite."""
    values = np.array([values for _, values in series], dtype=np.float64).reshape(len(series), count)
    return np.where(np.isfinite(values), values, 0.0)
