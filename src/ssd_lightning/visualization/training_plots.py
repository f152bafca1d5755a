"""Panels of the logged curves of a training, and a plot of the matching of its priors."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ssd_lightning.visualization.figures import INK, SCORE, SPREAD, new_figure, pixels_of, tidy

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


class LevelCount(NamedTuple):
    """Priors of a feature map in some training images."""

    matched: int
    priors: int
    grid: tuple[int, int]
    """(rows, columns)."""


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
