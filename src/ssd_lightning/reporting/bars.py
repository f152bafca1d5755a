"""Charts with one number per name, as inline SVG: bars, columns and dots."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from ssd_lightning.reporting.charts import HEIGHT_PX, WIDTH_PX, Chart, row_lines
from ssd_lightning.reporting.svg import (
    LETTER_PX,
    Axis,
    columns,
    cut,
    drawing,
    label,
    round_ticks,
    slot_class,
    tag,
    tick_text,
)

LONGEST_NAME = 20
"""Maximum letters of a row's name."""


def bar_chart(
    title: str,
    names: Sequence[str],
    series: Sequence[tuple[str, Sequence[float]]],
    *,
    texts: Sequence[Sequence[str]],
    hints: Sequence[str] = (),
    high: float | None = None,
    note: str = "",
) -> Chart:
    """Draw horizontal bars, those of several series below each other, each followed by its number.

    Args:
        title: title of the chart.
        names: names of the rows.
        series: name and values of each series, at least 0; non-finite values have no bar.
        texts: the formatted numbers of each series.
        hints: tooltip of each row; by default name and numbers.
        high: end of the axis; by default the largest value.
        note: text below the chart.
    """
    bar_px = 16.0 if len(names) * len(series) <= 30 else 13.0
    row_px, left = bar_px * len(series) + 8, _name_column(names)
    label_px = LETTER_PX * max((columns(text) for row in texts for text in row), default=0) + 8
    axis = Axis(0.0, _top([value for _, values in series for value in values], high), left, WIDTH_PX - label_px)
    parts: list[Markup] = []
    for row, name in enumerate(names):
        top = row * row_px
        hint = hints[row] if hints else f"{name}: " + ", ".join(text[row] for text in texts)
        parts += [
            tag("rect", tag("title", hint), x=0, y=top, width=WIDTH_PX, height=row_px, class_="touch"),
            label(cut(name, LONGEST_NAME), left - 8, top + row_px / 2 + 4, anchor="end", class_="through"),
        ]
        for slot, (_, values) in enumerate(series):
            y = top + 4 + slot * bar_px
            end = axis.place(float(values[row])) if np.isfinite(values[row]) else left
            shape = {"x": left, "y": y + 0.5, "width": max(end - left, 0.0), "height": bar_px - 1}
            parts.append(tag("rect", rx=1.5, class_=f"bar through {slot_class(slot)}", **shape))
            parts.append(label(texts[slot][row], end + 6, y + bar_px / 2 + 4, class_="through"))
    height = max(row_px * len(names), row_px)
    parts.append(tag("line", x1=left, x2=left, y1=0, y2=height, class_="axis"))
    legend = [(slot_class(slot), name) for slot, (name, _) in enumerate(series)] if len(series) > 1 else []
    said = f"{title}: " + "; ".join(
        f"{name} " + ", ".join(text[row] for text in texts) for row, name in enumerate(names)
    )
    return Chart(title, drawing(said, WIDTH_PX, height, *parts), legend, note)


def column_chart(
    title: str,
    names: Sequence[str],
    series: Sequence[tuple[str, Sequence[float]]],
    *,
    texts: Sequence[Sequence[str]] | None = None,
    x_label: str = "",
    y_label: str = "",
    high: float | None = None,
    note: str = "",
) -> Chart:
    """Draw vertical bars, those of several series side by side; a histogram is one series.

    Args:
        title: title of the chart.
        names: names of the columns; only those that fit are shown.
        series: name and values of each series, at least 0; non-finite values have no bar.
        texts: tooltips of each series; by default the values.
        x_label: text below the names.
        y_label: text above the vertical axis.
        high: end of the vertical axis; by default the largest value.
        note: text below the chart.
    """
    values = [value for _, row in series for value in row]
    up = Axis(0.0, _top(values, high), HEIGHT_PX - (52 if x_label else 36), 20 if y_label else 8)
    y_ticks = round_ticks(0.0, up.high, most=4)
    left = 10 + LETTER_PX * max(len(tick_text(tick)) for tick in y_ticks)
    parts = row_lines(up, y_ticks, left, WIDTH_PX - 6, y_label)
    place_px = (WIDTH_PX - 6 - left) / max(len(names), 1)
    bar_px = place_px * (0.72 if len(series) > 1 or len(names) < 8 else 0.9) / max(len(series), 1)
    every = max(1, -(-int(LETTER_PX * max(map(columns, names), default=0) + 8) // max(int(place_px), 1)))
    for place, name in enumerate(names):
        middle = left + (place + 0.5) * place_px
        if place % every == 0:
            parts.append(label(name, middle, up.start_px + 17, anchor="middle"))
        for slot, (series_name, row) in enumerate(series):
            value = float(row[place])
            text = texts[slot][place] if texts else tick_text(value)
            hint = f"{name}, {series_name}: {text}" if len(series) > 1 else f"{name}: {text}"
            x = middle + (slot - len(series) / 2) * bar_px
            top = up.place(value) if np.isfinite(value) else up.start_px
            shape = {"x": x + 0.5, "y": top, "width": max(bar_px - 1, 0.5), "height": up.start_px - top}
            parts.append(tag("rect", tag("title", hint), class_=f"bar {slot_class(slot)}", **shape))
    parts.append(tag("line", x1=left, x2=WIDTH_PX - 6, y1=up.start_px, y2=up.start_px, class_="axis"))
    if x_label:
        parts.append(label(x_label, WIDTH_PX - 6, HEIGHT_PX - 6, anchor="end", class_="quiet"))
    legend = [(slot_class(slot), name) for slot, (name, _) in enumerate(series)] if len(series) > 1 else []
    said = f"{title}: " + "; ".join(
        f"{name} " + ", ".join(tick_text(float(row[place])) for _, row in series) for place, name in enumerate(names)
    )
    return Chart(title, drawing(said, WIDTH_PX, HEIGHT_PX, *parts), legend, note)


def dot_chart(
    title: str, names: Sequence[str], series: Sequence[tuple[str, Sequence[float]]], *, note: str = ""
) -> Chart:
    """Draw a row for each name with a marker for every series, all from 0 to 1.

    Args:
        title: title of the chart.
        names: names of the rows.
        series: name and values of each series; non-finite values have no marker.
        note: text below the chart.
    """
    row_px, left = 24.0 if len(names) <= 30 else 19.0, _name_column(names)
    axis = Axis(0.0, 1.0, left, WIDTH_PX - 14)
    bottom = row_px * len(names)
    parts: list[Markup] = []
    for tick in round_ticks(0.0, 1.0, most=5):
        x = axis.place(tick)
        parts += [tag("line", x1=x, x2=x, y1=0, y2=bottom, class_="grid")]
        parts += [label(tick_text(tick), x, bottom + 16, anchor="middle", class_="quiet")]
    for row, name in enumerate(names):
        y = (row + 0.5) * row_px
        parts.append(tag("line", x1=left, x2=axis.end_px, y1=y, y2=y, class_="grid"))
        parts.append(label(cut(name, LONGEST_NAME), left - 8, y + 4, anchor="end"))
        for slot, (series_name, values) in enumerate(series):
            value = float(values[row])
            if np.isfinite(value):
                hint = tag("title", f"{name}, {series_name}: {value:.3f}")
                # Shifted vertically, since equal values would hide each other.
                beside = (slot - (len(series) - 1) / 2) * min(6.0, row_px / (2 * len(series)))
                parts.append(_mark(hint, axis.place(value), y + beside, slot))
    legend = [(slot_class(slot), name) for slot, (name, _) in enumerate(series)] if len(series) > 1 else []
    said = f"{title}: " + "; ".join(
        f"{name} " + ", ".join(f"{float(values[row]):.2f}" for _, values in series) for row, name in enumerate(names)
    )
    return Chart(title, drawing(said, WIDTH_PX, bottom + 22, *parts), legend, note)


def _mark(hint: Markup, x: float, y: float, slot: int) -> Markup:
    """Draw a marker of a series. Colours that are hard to distinguish have different shapes."""
    colour = f"point {slot_class(slot)}"
    shapes = (
        lambda: tag("circle", hint, cx=x, cy=y, r=5, class_=colour),
        lambda: tag("rect", hint, x=x - 4.5, y=y - 4.5, width=9, height=9, class_=colour),
        lambda: tag("path", hint, d=f"M{x:.1f} {y - 6.5:.1f}l6.5 6.5-6.5 6.5-6.5-6.5z", class_=colour),
        lambda: tag("path", hint, d=f"M{x:.1f} {y - 6:.1f}l6 10.5h-12z", class_=colour),
    )
    return shapes[slot % len(shapes)]()


def _name_column(names: Sequence[str]) -> float:
    return 12 + LETTER_PX * max((columns(cut(name, LONGEST_NAME)) for name in names), default=0)


def _top(values: Sequence[float], high: float | None) -> float:
    finite = [float(value) for value in values if np.isfinite(value)]
    return high if high is not None else max(finite, default=0.0) or 1.0
