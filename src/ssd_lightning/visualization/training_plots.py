"""Plots of a training: its logged curves, and the matching of its priors."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ssd_lightning.visualization.figures import INK, SCORE, SPREAD, line_colour, new_figure, pixels_of, tidy

PANELS: Mapping[str, Mapping[str, str]] = {
    "losses": {
        "train/loss_box": "training, boxes", "train/loss_cls": "training, classes",
        "val/loss_box": "validation, boxes", "val/loss_cls": "validation, classes",
    },
    "mean AP": {
        "val/map_11point": "11-point", "val/map_area": "area", "val/map_50": "COCO .5", "val/map_75": "COCO .75",
        "val/map": "COCO .5:.95",
    },
    "COCO AP by size": {"val/map_small": "small", "val/map_medium": "medium", "val/map_large": "large"},
    "learning rate": {"lr": "weights"},
    "images a second": {"speed/images_per_s": "training"},
    "share of time that waits for data": {"speed/data_wait": "training"},
    "peak memory, MiB": {"speed/peak_memory_mib": "training"},
}  # fmt: skip
"""Title of each panel -> names in the log and their labels."""


class Curve(NamedTuple):
    """The values logged under a name."""

    steps: Sequence[float]
    values: Sequence[float]


class LevelCount(NamedTuple):
    """Priors of a feature map in some training images."""

    matched: int
    priors: int
    grid: tuple[int, int]
    """(rows, columns)."""


def draw_curves(curves: Mapping[str, Curve], *, title: str) -> np.ndarray | None:
    """Draw the panels with logged values: uint8 `[H, W, 3]`; None if there are none.

    Args:
        curves: curves by name in the log.
        title: title of the image.
    """
    panels = {name: [key for key in keys if _finite(curves.get(key))] for name, keys in PANELS.items()}
    panels = {name: keys for name, keys in panels.items() if keys}
    if not panels:
        return None
    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(4.2 * columns, 3.1 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False)
    last = max(max(curves[key].steps) for keys in panels.values() for key in keys)
    for axes, (name, keys) in zip(grid.flat, panels.items(), strict=False):
        for index, key in enumerate(keys):
            steps, values = curves[key]
            marker = "." if len(steps) < 30 else ""
            kind = {"linestyle": "--"} if key.startswith("val/loss") else {}
            axes.plot(
                steps, values, marker=marker, color=line_colour((7, 1, 2, 5, 6)[index % 5]), linewidth=1.4,
                label=PANELS[name][key], **kind,
            )  # fmt: skip
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        is_share = "AP" in name or "share" in name
        highest = max(value for key in keys for value in curves[key].values if math.isfinite(value))
        axes.set(xlim=(0, max(1, last) * 1.02), ylim=(0, 1.02 if is_share or highest <= 0 else 1.08 * highest))
        tidy(axes)
        if len(keys) > 1:
            axes.legend(fontsize=8, frameon=False)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    figure.suptitle(title, fontsize=11)
    return pixels_of(figure)


def draw_level_counts(levels: Sequence[LevelCount], *, title: str) -> np.ndarray:
    """Draw how many priors of each feature map are matched, with their fraction: uint8 `[H, W, 3]`."""
    figure = new_figure(max(5.0, 1.0 * len(levels) + 1.5), 4)
    axes = figure.subplots()
    names = [f"level {number}\n{level.grid[0]} x {level.grid[1]}" for number, level in enumerate(levels, start=1)]
    bars = axes.bar(names, [level.matched for level in levels], color=SCORE, width=0.7)
    for bar, level in zip(bars, levels, strict=True):
        share = level.matched / level.priors if level.priors else 0.0
        colour = INK if level.matched else SPREAD  # a level that learns nothing
        axes.annotate(
            f"{level.matched}\n{share:.2%}", (bar.get_x() + bar.get_width() / 2, bar.get_height()), xytext=(0, 3),
            textcoords="offset points", ha="center", fontsize=9, color=colour,
        )  # fmt: skip
    axes.margins(y=0.22)
    axes.set_ylabel("matched priors")
    axes.set_title(title, fontsize=11)
    tidy(axes)
    axes.grid(visible=False, axis="x")
    return pixels_of(figure)


def _finite(curve: Curve | None) -> bool:
    return curve is not None and any(map(math.isfinite, curve.values))
