"""Matplotlib figures with a common style, as pixels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssd_lightning.visualization.colours import class_colour
from ssd_lightning.visualization.fonts import spell

GREY, INK, RULE = "#b9bdc4", "#1c1e22", "#dddddd"
SCORE, SPREAD = "#1f4e79", "#e08a2c"
MOST_NAMED = 10
"""Number of lines that a reader can distinguish; of more, the best and the worst are named."""


def new_figure(width_inches: float, height_inches: float, *, dpi: int = 110) -> Any:
    """Make an empty figure without a window and without global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(width_inches, height_inches), dpi=dpi, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def pixels_of(figure: Any) -> np.ndarray:
    """Render a figure: uint8 `[H, W, 3]`."""
    set_fonts(figure)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def set_fonts(figure: Any) -> None:
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


def tidy(axes: Any) -> None:
    """Remove the parts of a frame that a reader does not need."""
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def line_colour(label: int) -> tuple[float, float, float]:
    """Return the colour that a class has in images, darkened if a line would be too pale on white."""
    red, green, blue = class_colour(label)
    brightness = (0.3 * red + 0.59 * green + 0.11 * blue) / 255
    factor = min(1.0, 0.62 / brightness) / 255
    return red * factor, green * factor, blue * factor


def literal(text: str, most: int = 28) -> str:
    """Escape a name so that matplotlib does not read it as mathematics, and shorten it."""
    plain = spell(text)[0]
    return (plain if len(plain) <= most else plain[: most - 1] + "…").replace("$", r"\$")


def named_lines(scores: Sequence[float]) -> list[int]:
    """Choose the lines to name: all if there are few, else the best and the worst; never those without a score.

    Args:
        scores: scores of all lines; NaN if there is none.

    Returns:
        Indices, best score first.
    """
    ranked = sorted((i for i, score in enumerate(scores) if score == score), key=lambda i: -scores[i])
    half = MOST_NAMED // 2
    return ranked if len(ranked) <= MOST_NAMED else [*ranked[:half], *ranked[-half:]]
