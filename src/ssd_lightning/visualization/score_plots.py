"""Plots of validation results per class: precision-recall curves, confusion, AP over the epochs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssd_lightning.visualization.figures import (
    GREY,
    INK,
    RULE,
    line_colour,
    literal,
    named_lines,
    new_figure,
    pixels_of,
    tidy,
)
from ssd_lightning.visualization.fonts import drawable_names

MOST_WRITTEN = 25
"""Number of classes up to which the cells of a confusion matrix have numbers."""


class PRLine(NamedTuple):
    """Precision against recall of a class."""

    name: str
    recall: np.ndarray
    """`[P]`, ascending."""
    precision: np.ndarray
    """`[P]`."""
    ap: float
    """NaN for a class without objects."""


def draw_pr_curves(lines: Sequence[PRLine], *, title: str) -> np.ndarray:
    """Draw precision against recall; with many classes the best and the worst in colour: uint8 `[H, W, 3]`.

    Args:
        lines: lines of the classes 1..C.
        title: title of the image.
    """
    figure = new_figure(8.2, 5)
    axes = figure.subplots()
    names = drawable_names([line.name for line in lines])
    named = named_lines([line.ap for line in lines])
    for index, line in enumerate(lines):
        if index not in named and len(line.recall):
            axes.plot([0.0, *line.recall], [line.precision[0], *line.precision], color=GREY, linewidth=0.8)
    for index in named:
        line = lines[index]
        label = f"{literal(names[index])}  {line.ap:.3f}"
        has_points = len(line.recall) > 0
        recall, precision = ([0.0, *line.recall], [line.precision[0], *line.precision]) if has_points else ([], [])
        axes.plot(recall, precision, color=line_colour(index + 1), linewidth=1.8, label=label)
    axes.set(xlim=(0, 1.01), ylim=(0, 1.03), xlabel="recall", ylabel="precision")
    axes.set_title(title, fontsize=11)
    tidy(axes)
    if named:
        heading = "AP (area)" if len(named) == len(lines) else f"AP, {len(named)} of {len(lines)} classes"
        axes.legend(title=heading, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, alignment="left")
    return pixels_of(figure)


def draw_confusion(counts: np.ndarray, class_names: Sequence[str], *, title: str) -> np.ndarray:
    """Draw how classes were detected; colours are fractions of each row: uint8 `[H, W, 3]`.

    Args:
        counts: int64 `[C + 1, C + 1]`: row the true class, column the detected one, 0 the background, drawn last.
        class_names: names of the classes 1..C.
        title: title of the image.
    """
    counts = np.roll(counts, -1, axis=(0, 1))
    names = [*(literal(name, most=18) for name in drawable_names(class_names)), "background"]
    size = len(names)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    side = min(18.0, max(4.6, 2.6 + 0.42 * size) if size <= MOST_WRITTEN + 1 else 4.0 + 0.17 * size)
    figure = new_figure(side + 1.6, side)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the row")
    fontsize = 9 if size <= MOST_WRITTEN + 1 else 6
    axes.set_xticks(range(size), names, rotation=90 if size > 4 else 0, fontsize=fontsize)
    axes.set_yticks(range(size), names, fontsize=fontsize)
    axes.set(xlabel="found as", ylabel="is")
    axes.set_title(title, fontsize=11)
    axes.tick_params(length=0)
    axes.axhline(size - 1.5, color=INK, linewidth=0.8)  # the background is not a class
    axes.axvline(size - 1.5, color=INK, linewidth=0.8)
    if size <= MOST_WRITTEN + 1:
        for row, column in np.argwhere(counts):
            colour = "white" if shares[row, column] > 0.55 else INK
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8, color=colour)
    return pixels_of(figure)


def draw_class_ap(epochs: Sequence[float], values: np.ndarray, class_names: Sequence[str], *, title: str) -> np.ndarray:
    """Draw the AP of every class over the epochs, and their mean in black: uint8 `[H, W, 3]`.

    Args:
        epochs: `[V]`, epochs of the validations.
        values: float `[V, C]`; NaN for a class without objects.
        class_names: names of the classes 1..C.
        title: title of the image.
    """
    figure = new_figure(8.2, 5)
    axes = figure.subplots()
    names = drawable_names(class_names)
    named = named_lines(values[-1].tolist()) if len(values) else []
    marker = "o" if len(epochs) == 1 else "None"
    for index in range(len(class_names)):
        if index not in named:
            axes.plot(epochs, values[:, index], color=GREY, linewidth=0.8)
    for index in named:
        label = f"{literal(names[index])}  {values[-1, index]:.3f}"
        axes.plot(epochs, values[:, index], marker=marker, color=line_colour(index + 1), linewidth=1.6, label=label)
    if len(class_names) > 1 and np.isfinite(values).any():
        has_score = np.isfinite(values).any(axis=1)
        mean = np.full(len(values), np.nan)
        mean[has_score] = np.nanmean(values[has_score], axis=1)
        axes.plot(epochs, mean, marker=marker, ls="--", color=INK, linewidth=2, label=f"mean  {mean[-1]:.3f}")
    axes.set(ylim=(0, 1.03), xlabel="epoch", ylabel="AP, 11-point")
    axes.set_title(title, fontsize=11)
    tidy(axes)
    if named:
        heading = "last" if len(named) == len(class_names) else f"last, {len(named)} of {len(class_names)} classes"
        axes.legend(title=heading, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, alignment="left")
    axes.grid(color=RULE)
    return pixels_of(figure)
