"""Charts as inline SVG from arrays: the chart type, and line charts.

They are drawn for a column of about 440 px: nearly the width of a phone, and half of a desktop page. Colours come from
the page's style sheet, so they change with its theme.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup

from ssd_lightning.reporting.svg import (
    LETTER_PX,
    Axis,
    drawing,
    label,
    round_ticks,
    slot_class,
    tag,
    tick_text,
    wide_range,
)

WIDTH_PX, HEIGHT_PX = 440.0, 250.0
MOST_POINTS = 200
"""Maximum points of a line, more than its pixels can show."""


@dataclass(frozen=True, eq=False)
class Series:
    """Values drawn in one colour; non-finite values are skipped."""

    name: str
    x: np.ndarray
    """`[P]`."""
    y: np.ndarray
    """`[P]`."""
    slot: int = 0
    """Index into the palette."""
    with_points: bool = False
    """Mark every point, for series with few points."""


@dataclass(frozen=True)
class Chart:
    """A drawing with its title and legend."""

    title: str
    svg: Markup
    legend: list[tuple[str, str]] = field(default_factory=list)
    """(CSS class of the colour, name); empty if there is only one colour."""
    note: str = ""
    wide: bool = False
    """Whether it takes the full width and scrolls."""


def thin(x: np.ndarray, y: np.ndarray, points: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Replace a long line by the means of `points` segments; a short line is not changed."""
    keep = np.isfinite(x) & np.isfinite(y)
    x, y = x[keep], y[keep]
    if len(x) <= points:
        return x, y
    stretches = np.array_split(np.arange(len(x)), points)
    return np.array([x[part].mean() for part in stretches]), np.array([y[part].mean() for part in stretches])


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str = "",
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
    note: str = "",
    size_px: tuple[float, float] = (WIDTH_PX, HEIGHT_PX),
) -> Chart:
    """Draw lines over a common axis.

    Args:
        title: title above the chart.
        series: series of any length; those without finite values are only in the legend.
        x_label: text below the axis.
        y_label: text above the vertical axis.
        x_range: range of the axis; by default that of the values.
        y_range: range of the vertical axis; by default that of the values.
        diagonal: draw the line of equal values.
        note: text below the chart.
        size_px: width and height.
    """
    lines = [(one, *(thin(one.x, one.y))) for one in series]
    drawn = [(one, x, y) for one, x, y in lines if len(x)]
    x_low, x_high = wide_range(*(x_range or _span([x for _, x, _ in drawn])))
    y_low, y_high = wide_range(*(y_range or _span([y for _, _, y in drawn])))
    width, height = size_px
    y_ticks = round_ticks(y_low, y_high, most=5)
    left = 10 + LETTER_PX * max((len(tick_text(tick)) for tick in y_ticks), default=1)
    across = Axis(x_low, x_high, left, width - 10)
    up = Axis(y_low, y_high, height - 36, 20 if y_label else 8)
    parts = _grid(across, up, y_ticks, x_label=x_label, y_label=y_label)
    if diagonal:
        low, high = max(x_low, y_low), min(x_high, y_high)
        ends = {"x1": across.place(low), "y1": up.place(low), "x2": across.place(high), "y2": up.place(high)}
        parts.append(tag("line", class_="reference", **ends))
    for one, x, y in drawn:
        places = [(across.place(float(a)), up.place(float(b))) for a, b in zip(x, y, strict=True)]
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
        parts.append(tag("path", d=path, class_=f"line {slot_class(one.slot)}"))
        for (a, b), value_x, value_y in zip(places, x.tolist(), y.tolist(), strict=True):
            hint = f"{one.name}: {value_y:.4g} at {x_label} {value_x:.5g}"
            is_marked = one.with_points or len(places) == 1
            radius, class_ = (3.0, f"point {slot_class(one.slot)}") if is_marked else (5.0, "touch")
            parts.append(tag("circle", tag("title", hint), cx=a, cy=b, r=radius, class_=class_))
    legend = [(slot_class(one.slot), one.name) for one in series] if len(series) > 1 else []
    said = f"{title}: " + (_described(drawn) if drawn else "no values")
    return Chart(title, drawing(said, width, height, *parts), legend, note)


def _grid(across: Axis, up: Axis, y_ticks: Sequence[float], *, x_label: str, y_label: str) -> list[Markup]:
    parts = row_lines(up, y_ticks, across.start_px, across.end_px, y_label)
    x_ticks = round_ticks(across.low, across.high, most=5)
    for tick in x_ticks:
        x = across.place(tick)
        parts.append(tag("line", x1=x, x2=x, y1=up.start_px, y2=up.start_px + 4, class_="axis"))
        parts.append(label(tick_text(tick), x, up.start_px + 17, anchor="middle", class_="quiet"))
    parts.append(tag("line", x1=across.start_px, x2=across.end_px, y1=up.start_px, y2=up.start_px, class_="axis"))
    parts.append(label(x_label, across.end_px, up.start_px + 31, anchor="end", class_="quiet"))
    return parts


def row_lines(up: Axis, ticks: Sequence[float], left: float, right: float, y_label: str) -> list[Markup]:
    """Draw a horizontal line for each tick of a vertical axis, with its number and the axis label."""
    parts = [label(y_label, 0, 11, class_="quiet")] if y_label else []
    for tick in ticks:
        y = up.place(tick)
        parts.append(tag("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(label(tick_text(tick), left - 6, y + 4, anchor="end", class_="quiet"))
    return parts


def _span(columns: Sequence[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate(columns) if columns else np.array([0.0, 1.0])
    return float(values.min()), float(values.max())


def _described(drawn: Sequence[tuple[Series, np.ndarray, np.ndarray]]) -> str:
    return "; ".join(f"{one.name} from {y[0]:.4g} to {y[-1]:.4g}" for one, _, y in drawn)
