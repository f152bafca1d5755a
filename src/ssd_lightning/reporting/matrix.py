"""The confusion matrix as a heat map: numbers where they fit, otherwise only shades."""

from collections.abc import Sequence

import numpy as np

from ssd_lightning.reporting.charts import Chart
from ssd_lightning.reporting.svg import LETTER_PX, columns, cut, drawing, label, tag

MOST_WITH_NUMBERS = 25
FULL_WIDTH_PX = 870.0
NOTHING = "nothing"
"""Name of the background: true class of false detections, and detected class of missed objects."""


def matrix_chart(title: str, matrix: np.ndarray, class_names: Sequence[str], *, note: str = "") -> Chart:
    """Draw how often each true class (row) was detected as each class (column), with the diagonal in another colour.

    The shade is the fraction of the true class's objects; for false detections, the fraction of the detected class's.

    Args:
        title: title of the chart.
        matrix: int64 `[C + 1, C + 1]`, 0 the background, which is drawn last; see `analysis.confusion`.
        class_names: names of the classes 1..C.
        note: text below the chart.
    """
    order = [*range(1, len(class_names) + 1), 0]
    counts = np.asarray(matrix)[np.ix_(order, order)]
    names = [*class_names, NOTHING]
    has_numbers = len(names) <= MOST_WITH_NUMBERS
    cell = 38.0 if len(names) <= 12 else 27.0 if has_numbers else min(14.0, max(9.0, FULL_WIDTH_PX / len(names)))
    letters = 16
    side = 14 + (LETTER_PX if has_numbers else 5.2) * max(columns(cut(name, letters)) for name in names)
    top = side + 16
    size = cell * len(names)
    small = None if has_numbers else "small"
    parts = [label("found as →", side, 11, class_="quiet"), label("true ↓", 0, top - 6, class_="quiet")]
    for place, name in enumerate(names):
        middle = (place + 0.5) * cell
        short = cut(name, letters)
        parts.append(label(short, side - 6, top + middle + 4, anchor="end", class_=small))
        x, y = side + middle + 4, top - 6
        parts.append(tag("text", short, x=x, y=y, transform=f"rotate(-90 {x:.1f} {y:.1f})", class_=small))
    parts.append(tag("rect", x=side, y=top, width=size, height=size, class_="ground"))
    objects = counts[:-1].sum(axis=1)
    for row, column in np.argwhere(counts).tolist():
        whose = column if row == len(class_names) else row
        share = min(1.0, counts[row, column] / max(1, objects[whose]))
        hint = f"true {names[row]}, found as {names[column]}: {counts[row, column]}, {share:.0%} of {names[whose]}"
        x, y = side + column * cell, top + row * cell
        rectangle = tag(
            "rect", tag("title", hint), x=x + 0.5, y=y + 0.5, width=cell - 1, height=cell - 1,
            class_="heat right" if row == column else "heat", fill_opacity=shade(share),
        )  # fmt: skip
        parts.append(rectangle)
        if has_numbers:
            class_ = ("count on" if share >= 0.5 else "count") + ("" if cell > 30 else " small")
            number = _short_count(int(counts[row, column]))
            parts.append(label(number, x + cell / 2, y + cell / 2 + 4, anchor="middle", class_=class_))
    found = int(np.trace(counts[:-1, :-1]))
    said = f"{title}: {found} of {int(objects.sum())} objects found as what they are"
    svg = drawing(said, side + size + 2, top + size + 2, *parts, fixed=True)
    return Chart(title, svg, note=note, wide=True)


def shade(share: float) -> float:
    """Return the opacity of a fraction: light enough for dark digits below a half, dark enough for light ones above."""
    return share if share < 0.5 else 0.82 + (share - 0.5) * 0.36


def confusions(matrix: np.ndarray, class_names: Sequence[str], most: int = 10) -> list[tuple[str, str, int, float]]:
    """List the most frequent confusions: (true, found, count, fraction of the true class's objects)."""
    between = np.asarray(matrix)[1:, 1:].copy()
    np.fill_diagonal(between, 0)
    totals = np.asarray(matrix)[1:].sum(axis=1)
    pairs = sorted(np.argwhere(between).tolist(), key=lambda pair: -between[pair[0], pair[1]])[:most]
    return [
        (class_names[row], class_names[column], int(between[row, column]), float(between[row, column] / totals[row]))
        for row, column in pairs
    ]


def _short_count(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"
