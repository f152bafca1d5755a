"""Charts on matplotlib, for images and, by `svg.py`, for pages with a light and a dark theme.

Lengths are in px of the page: a figure has 72 of them per inch, so that font sizes are px, too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.cells import cell_len, set_cell_size

from ssd_lightning.errors import one_line
from ssd_lightning.visualization.colours import class_colour
from ssd_lightning.visualization.fonts import spell
from ssd_lightning.visualization.svg import THEME

GROUND, INK, MUTED, GRID = (THEME[name] for name in ("ground", "ink", "muted", "grid"))
PALETTE = tuple(THEME[f"s{slot}"] for slot in range(7))
"""Colours of series: those of Okabe and Ito, darker where they are too pale for lines on white."""
PAGE_PX = 440
"""Width of a column of a page: nearly that of a phone, and half of a desktop page."""
FONT_PX, LETTER_PX = 11.5, 6.4
"""Size of letters, and their mean width in usual fonts, rather too large than too small."""
MOST_POINTS = 200
"""Maximum points of a line, more than its pixels can show."""
LONGEST_NAME = 20


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


def short(text: str, most: int = LONGEST_NAME) -> str:
    """Shorten a text to a number of columns, and escape it so that matplotlib does not read it as mathematics.

    East Asian letters take two columns.
    """
    text = one_line(text)
    if cell_len(text) > most:
        text = set_cell_size(text, most - 1).rstrip() + "…"
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
            x, y, color=line.colour or series_colour(line.slot), linewidth=line.width,
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


def series_colour(slot: int) -> str:
    """Return the colour of the palette for a series."""
    return PALETTE[slot % len(PALETTE)]
