"""Plots of a training: its logged curves, the matching of its priors, and the validation results per class."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssd_lightning.visualization.bars import draw_columns
from ssd_lightning.visualization.charts import INK, Line, draw_lines, line_colour, new_figure, pixels_of, short
from ssd_lightning.visualization.confusion_plot import confusion_figure
from ssd_lightning.visualization.fonts import drawable_names

GREY = "#b9bdc4"
MOST_NAMED = 10
"""Number of lines that a reader can distinguish; of more, the best and the worst are named."""
CLASSES_PX = (590, 360)


class LevelCount(NamedTuple):
    """Priors of a feature map in some training images."""

    matched: int
    priors: int
    grid: tuple[int, int]
    """(rows, columns)."""


def draw_level_counts(levels: Sequence[LevelCount], *, title: str) -> np.ndarray:
    """Draw how many priors of each feature map are matched, with their fraction: uint8 `[H, W, 3]`."""
    figure = new_figure(max(360, 72 * len(levels) + 108), 288)
    axes = figure.subplots()
    draw_columns(
        axes,
        [f"level {number}\n{level.grid[0]} x {level.grid[1]}" for number, level in enumerate(levels, start=1)],
        [("matched priors", [level.matched for level in levels])],
        above=[f"{level.matched}\n{level.matched / max(level.priors, 1):.2%}" for level in levels],
    )
    axes.set_title(title, fontsize=12, color=INK)
    return pixels_of(figure)


def draw_pr_curves(
    curves: Sequence[tuple[np.ndarray, np.ndarray]], aps: Sequence[float], class_names: Sequence[str], *, title: str
) -> np.ndarray:
    """Draw precision against recall of each class; with many, the best and the worst in colour: uint8 `[H, W, 3]`.

    The `curves` are recall `[P]`, ascending, and precision `[P]`; `aps` are NaN for a class without objects.
    """
    drawn = [
        ([0.0, *recall], [*precision[:1], *precision]) if len(recall) else ([], []) for recall, precision in curves
    ]
    return _draw_classes(
        drawn, class_names, aps, heading="AP (area)", title=title,
        x_label="recall", y_label="precision", x_range=(0, 1.01),
    )  # fmt: skip


def draw_class_ap(epochs: Sequence[float], values: np.ndarray, class_names: Sequence[str], *, title: str) -> np.ndarray:
    """Draw the AP of every class over the epochs, and their mean in black: uint8 `[H, W, 3]`.

    `values` are float `[V, C]`, one row for each of the `epochs`; NaN for a class without objects.
    """
    means = []
    if len(class_names) > 1 and np.isfinite(values).any():
        mean = [np.mean(row[np.isfinite(row)]) if np.isfinite(row).any() else math.nan for row in values]
        means.append(Line(f"mean  {mean[-1]:.3f}", epochs, mean, colour=INK, width=2.6))
    last = values[-1].tolist() if len(values) else [math.nan] * len(class_names)
    return _draw_classes(
        [(epochs, column) for column in values.T], class_names, last, heading="last", title=title, further=means,
        x_label="epoch", y_label="AP, 11-point",
    )  # fmt: skip


def draw_confusion(counts: np.ndarray, class_names: Sequence[str], *, title: str) -> np.ndarray:
    """Draw how classes were detected, see `confusion_figure`: uint8 `[H, W, 3]`."""
    return pixels_of(confusion_figure(counts, drawable_names(class_names), title=title))


def named_lines(scores: Sequence[float]) -> list[int]:
    """Choose the lines to name, best score first: all if there are few, else the best and the worst; never NaN."""
    ranked = sorted((i for i, score in enumerate(scores) if score == score), key=lambda i: -scores[i])
    half = MOST_NAMED // 2
    return ranked if len(ranked) <= MOST_NAMED else [*ranked[:half], *ranked[-half:]]


def _draw_classes(drawn, class_names, scores, *, heading, title, further=(), x_range=None, **labels):  # type: ignore[no-untyped-def]
    """Draw a line per class: the named ones in the colours of their classes, the others grey below them."""
    names, named = drawable_names(class_names), named_lines(scores)
    lines = [Line("_", xy[0], xy[1], colour=GREY, width=0.8) for index, xy in enumerate(drawn) if index not in named]
    for index in named:
        label = f"{short(names[index], 28)}  {scores[index]:.3f}"
        lines.append(Line(label, drawn[index][0], drawn[index][1], colour=line_colour(index + 1)))
    figure = new_figure(*CLASSES_PX)
    axes = figure.subplots()
    draw_lines(axes, [*lines, *further], x_range=x_range, y_range=(0, 1.03), **labels)
    axes.set_title(title, fontsize=12, color=INK)
    if named:
        heading += "" if len(named) == len(names) else f", {len(named)} of {len(names)} classes"
        place = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "alignment": "left"}
        axes.legend(title=heading, frameon=False, **place)
    return pixels_of(figure)
