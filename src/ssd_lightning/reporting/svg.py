"""SVG by hand: escaped elements, ticks at round numbers, and axes that place values."""

import math
import unicodedata
from dataclasses import dataclass

from markupsafe import Markup, escape

FONT_PX = 12
LETTER_PX = 6.4
"""Mean width of a letter of `FONT_PX` in the usual fonts, rather too much than too little."""
COLOURS = 7
"""Of the palette; further series have the same colours with dashes or other marks."""


def tag(element: str, *children: str, **attributes: str | float | None) -> Markup:
    """Write an element; text and attributes are escaped unless they are markup already.

    Args:
        element: its name.
        children: text and elements.
        attributes: `class_` stands for `class`, `text_anchor` for `text-anchor`; None leaves one out. Numbers have two
            digits after the point at most.
    """
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    markup = "".join(f' {key}="{escape(_shortened(value))}"' for key, value in named.items())
    return Markup(f"<{element}{markup}>{''.join(map(escape, children))}</{element}>")  # noqa: S704 - all is escaped


def drawing(label: str, width: float, height: float, *children: str, fixed: bool = False) -> Markup:
    """Wrap elements as an image that says what it shows.

    Args:
        label: for those who do not see it.
        width: in px; the page scales the drawing with its column.
        height: in px.
        children: the elements.
        fixed: draw it at its own size, whatever the column's.
    """
    own_size = {"width": width, "height": height} if fixed else {}
    box = f"0 0 {_shortened(width)} {_shortened(height)}"
    class_ = "fixed" if fixed else None
    return tag("svg", *children, role="img", aria_label=label, viewBox=box, class_=class_, **own_size)


def label(text: str, x: float, y: float, *, anchor: str = "start", class_: str | None = None) -> Markup:
    """Write text whose baseline is at y."""
    return tag("text", text, x=x, y=y, text_anchor=None if anchor == "start" else anchor, class_=class_)


def slot_class(slot: int) -> str:
    """Name the class that gives a series its colour: `s0`..`s6`, and dashes from the second round on."""
    return f"s{slot % COLOURS}" + (" dashed" if slot >= COLOURS else "")


def columns(text: str) -> int:
    """Count the letters of a text; those of East Asia are as wide as two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def cut(text: str, letters: int) -> str:
    """Shorten a text to so many columns, the last one an ellipsis."""
    if columns(text) <= letters:
        return text
    text = text[:letters]
    while columns(text) >= letters:
        text = text[:-1]
    return f"{text}…"


@dataclass(frozen=True)
class Axis:
    """Places values between two pixels, in proportion.

    Args:
        low: value at `start_px`.
        high: value at `end_px`; above `low`.
        start_px: may lie beyond `end_px`, as that of upright axes does.
        end_px: the other end.
    """

    low: float
    high: float
    start_px: float
    end_px: float

    def place(self, value: float) -> float:
        """Give the pixel of a value."""
        return self.start_px + (value - self.low) / (self.high - self.low) * (self.end_px - self.start_px)


def round_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Find multiples of 1, 2 or 5 times a power of ten within a range, `most` + 1 at most.

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
    """Widen a range of values that are all the same, so that an axis can be made of it."""
    if high > low:
        return low, high
    margin = abs(low) / 2 or 1.0
    return low - margin, high + margin


def tick_text(value: float) -> str:
    """Write a tick: 0.25, 20k, 3e-05."""
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
