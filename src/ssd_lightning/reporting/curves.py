"""Charts of what a run logged over its steps."""

from collections.abc import Sequence

import numpy as np

from ssd_lightning.reporting.charts import Chart, Series, line_chart, thin
from ssd_lightning.reporting.metric_log import Curve
from ssd_lightning.reporting.run import Run
from ssd_lightning.reporting.summary import SCORES

SHARED_LOSSES = {"loss_cls": "Loss of the classes", "loss_box": "Loss of the boxes"}
"""Logged name after the stage -> title, for values of both training and validation."""
SCORES_TITLE, CLASSES_TITLE = "mAP on the validation images", "AP of each class, 11 points"
MOST_CLASS_CURVES = 7
FEW_POINTS = 30
"""Number of points up to which each is marked."""


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
    groups += [("Learning rate", {"lr": "learning rate"}), ("Images a second", {"speed/images_per_s": "training"})]
    last_step = max((int(curve.steps[-1]) + 1 for curve in run.curves.values()), default=1)
    charts = []
    for title, names in groups:
        series = [
            curve_series(label, curve, slot)
            for slot, (name, label) in enumerate(names.items())
            if (curve := run.curves.get(name)) is not None
        ]
        if series:
            is_score = title in (SCORES_TITLE, CLASSES_TITLE)
            y_range = (0.0, 1.0) if is_score else from_zero(series)
            charts.append(line_chart(title, series, x_label="step", x_range=(0, last_step), y_range=y_range))
    return charts


def curve_series(label: str, curve: Curve, slot: int) -> Series:
    """Make a line from a logged curve. Lightning counts logged steps from 0."""
    return Series(label, curve.steps + 1, curve.values, slot, with_points=len(curve.steps) <= FEW_POINTS)


def from_zero(series: Sequence[Series]) -> tuple[float, float] | None:
    """Return a range from 0 to the largest value; None if a value is negative or none is positive."""
    values = np.concatenate([thin(one.x, one.y)[1] for one in series])
    return (0.0, float(values.max())) if len(values) and values.min() >= 0 and values.max() > 0 else None
