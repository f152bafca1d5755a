"""Charts of a page: their SVG with title and legend, and those of what a run logged over its steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from ssd_lightning.reporting.run import Curve, Run
from ssd_lightning.reporting.summary import SCORES
from ssd_lightning.visualization.bars import Series, draw_columns
from ssd_lightning.visualization.charts import PAGE_PX, PALETTE, Line, draw_lines, new_figure, thin
from ssd_lightning.visualization.svg import to_svg

HEIGHT_PX = 250
SHARED_LOSSES = {"loss_cls": "Loss of the classes", "loss_box": "Loss of the boxes"}
"""Logged name after the stage -> title, for values of both training and validation."""
SCORES_TITLE, CLASSES_TITLE = "mAP on the validation images", "AP of each class, 11 points"
MOST_CLASS_CURVES = 7
FEW_POINTS = 30
"""Number of points up to which each is marked."""


@dataclass(frozen=True)
class Chart:
    """A drawing with its title and legend."""

    title: str
    svg: Markup
    legend: list[tuple[str, str]] = field(default_factory=list)
    """(CSS class of the colour, name); empty if there is only one colour."""
    note: str = ""
    wide: bool = False
    """Whether it keeps its size and scrolls."""


def slot_class(slot: int) -> str:
    """Return the CSS class for the colour of a series: `s0`..`s6`, then with dashes."""
    return f"s{slot % len(PALETTE)}" + (" dashed" if slot >= len(PALETTE) else "")


def line_chart(
    title: str, lines: Sequence[Line], *, x_label: str, note: str = "", where: str = "", **ranges: Any
) -> Chart:
    """Make a chart of lines; the legend names those without finite values, too.

    `where` distinguishes charts of one title in their descriptions; for `ranges` see `draw_lines`.
    """
    figure = new_figure(PAGE_PX, HEIGHT_PX, margins_px=(44, 10, 8, 42))
    draw_lines(figure.subplots(), lines, x_label=x_label, **ranges)
    ends = [(line.name, thin(line.x, line.y)[1]) for line in lines]
    said = "; ".join(f"{name} from {y[0]:.4g} to {y[-1]:.4g}" for name, y in ends if len(y)) or "no values"
    legend = [(slot_class(line.slot), line.name) for line in lines] if len(lines) > 1 else []
    return Chart(title, to_svg(figure, f"{title}{where}: {said}"), legend, note)


def column_chart(title: str, names: Sequence[str], series: Series, *, note: str = "", **settings: Any) -> Chart:
    """Make a chart of columns, see `draw_columns`."""
    figure = column_figure()
    draw_columns(figure.subplots(), names, series, **settings)
    return bars_chart(title, figure, names, series, note=note)


def column_figure() -> Any:
    """Make the figure for a chart of columns."""
    return new_figure(PAGE_PX, HEIGHT_PX, margins_px=(44, 6, 8, 42))


def bars_chart(title: str, figure: Any, names: Sequence[str], series: Series, *, note: str = "") -> Chart:
    """Make a chart of a figure that shows a number of each series per name."""
    said = "; ".join(
        f"{name} " + ", ".join(f"{row[place]:.3g}" for _, row in series) for place, name in enumerate(names)
    )
    legend = [(slot_class(slot), name) for slot, (name, _) in enumerate(series)] if len(series) > 1 else []
    return Chart(title, to_svg(figure, f"{title}: {said}"), legend, note)


def curve_charts(run: Run) -> list[Chart]:
    """Draw the logged values over the steps."""
    groups: list[tuple[str, dict[str, str]]] = [
        ("Loss", {"loss": "training"}),
        *((title, {f"train/{key}": "training", f"val/{key}": "validation"}) for key, title in SHARED_LOSSES.items()),
        (SCORES_TITLE, {f"val/{key}": label for key, label in SCORES.items()}),
    ]
    prefix = "val/ap_11point/"
    classes = {name: name.removeprefix(prefix) for name in run.curves if name.startswith(prefix)}
    if 1 < len(classes) <= MOST_CLASS_CURVES:
        groups.append((CLASSES_TITLE, classes))
    groups += [("Learning rate", {"lr": "learning rate"}), ("Images per second", {"speed/images_per_s": "training"})]
    last_step = max((int(curve.steps[-1]) + 1 for curve in run.curves.values()), default=1)
    charts = []
    for title, names in groups:
        lines = [
            curve_line(label, curve, slot)
            for slot, (name, label) in enumerate(names.items())
            if (curve := run.curves.get(name)) is not None
        ]
        if lines:
            are_scores = title in (SCORES_TITLE, CLASSES_TITLE)
            charts.append(step_chart(title, lines, last_step=last_step, are_scores=are_scores))
    return charts


def step_chart(title: str, lines: Sequence[Line], *, last_step: float, are_scores: bool) -> Chart:
    """Make a chart over the steps. Scores have the range 0 to 1, other values start at 0 if none is negative."""
    values = np.concatenate([thin(line.x, line.y)[1] for line in lines])
    y_range = (0.0, 1.0) if are_scores else None
    if not are_scores and len(values) and values.min() >= 0 and values.max() > 0:
        y_range = (0.0, 1.04 * float(values.max()))
    return line_chart(title, lines, x_label="step", x_range=(0, last_step), y_range=y_range)


def curve_line(label: str, curve: Curve, slot: int) -> Line:
    """Make a line from a logged curve. Lightning counts logged steps from 0."""
    return Line(label, curve.steps + 1, curve.values, slot, with_points=len(curve.steps) <= FEW_POINTS)
