"""SVG helpers: escaped elements, round ticks, and axes."""

import math
import unicodedata
from dataclasses import dataclass

from markupsafe import Markup, escape

FONT_PX = 12
LETTER_PX = 6.4
"""Mean width of a letter of `FONT_PX` in the usual fonts, rather too large than too small."""
COLOURS = 7
"""Number of colours in the palette; more series reuse them with dashes or other markers."""


def tag(element: str, *children: str, **attributes: str | float | None) -> Markup:
    """Return an element; text and attributes are escaped unless they are already markup.

    Args:
        element: name of the element.
        children: texts and elements.
        attributes: `class_` is written as `class`, `text_anchor` as `text-anchor`; None omits an attribute. Numbers
            are rounded to two decimals.
    """
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    markup = "".join(f' {key}="{escape(_shortened(value))}"' for key, value in named.items())
    return Markup(f"<{element}{markup}>{''.join(map(escape, children))}</{element}>")  # noqa: S704 - all is escaped


def drawing(label: str, width: float, height: float, *children: str, fixed: bool = False) -> Markup:
    """Wrap elements into an image with a description.

    Args:
        label: description for screen readers.
        width: in px; the page scales the drawing with its column.
        height: in px.
        children: the elements.
        fixed: keep the drawing at its own size.
    """
    own_size = {"width": width, "height": height} if fixed else {}
    box = f"0 0 {_shortened(width)} {_shortened(height)}"
    class_ = "fixed" if fixed else None
    return tag("svg", *children, role="img", aria_label=label, viewBox=box, class_=class_, **own_size)


def label(text: str, x: float, y: float, *, anchor: str = "start", class_: str | None = None) -> Markup:
    """Return text with its baseline at y."""
    return tag("text", text, x=x, y=y, text_anchor=None if anchor == "start" else anchor, class_=class_)


def slot_class(slot: int) -> str:
    """Return the CSS class for the colour of a series: `s0`..`s6`, then with dashes."""
    return f"s{slot % COLOURS}" + (" dashed" if slot >= COLOURS else "")


def columns(text: str) -> int:
    """Count the columns of a text; East Asian letters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def cut(text: str, letters: int) -> str:
    """Shorten a text to a number of columns, with an ellipsis at the end."""
    if columns(text) <= letters:
        return text
    text = text[:letters]
    while columns(text) >= letters:
        text = text[:-1]
    return f"{text}…"


@dataclass(frozen=True)
class Axis:
    """Maps values linearly to pixels.

    Args:
        low: value at `start_px`.
        high: value at `end_px`; above `low`.
        start_px: may be larger than `end_px`, as for vertical axes.
        end_px: the other end.
    """

    low: float
    high: float
    start_px: float
    end_px: float

    def place(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.start_px + (value - self.low) / (self.high - self.low) * (self.end_px - self.start_px)


def round_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Find multiples of 1, 2 or 5 times a power of ten within a range, at most `most` + 1.

    Raises:
        ValueError: the range is not finite or not above 0.
    """
    if not (math.isfinite(low) and math.isfinite(high) and high > low):
        raise ValueError(f"no ticks between {low} and {high}")
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * most >= (high - low) * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def wide_range(low: float, high: float) -> tuple[float, float]:
    """Widen a range of equal values, so that it can be an axis."""
    if high > low:
        return low, high
    margin = abs(low) / 2 or 1.0
    return low - margin, high + margin


def tick_text(value: float) -> str:
    """Format a tick: 0.25, 20k, 3e-05."""
    if value and abs(value) < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-")
    if abs(value) >= 10_000:
        return f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1e3:g}k"
    return f"{value:.6g}"


def _shortened(value: str | float) -> str:
    if isinstance(value, str):
        return value
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
