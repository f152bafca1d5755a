"""Plot how well priors cover the objects of a data set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ssd_lightning.visualization.bars import draw_columns
from ssd_lightning.visualization.charts import INK, PALETTE, new_figure, pixels_of, tidy

MOST_POINTS = 8000
BINS = 20
ABBREVIATIONS = (
    ("below ", "<"), (" px and more", "+"), (" px", ""), ("taller than ", "<"), ("wider than ", ">"), (" to ", "–"),
    ("about square", "square"), ("1:1.5", "2:3"), ("1.5:1", "3:2"),
)  # fmt: skip


class PriorSet(NamedTuple):
    """Priors, and how well they cover N objects."""

    name: str
    summary: Mapping[str, Any]
    """See `analysis.coverage.coverage_summary`."""
    iou: np.ndarray
    """`[N]`: best IoU of each object."""
    shapes_px: Sequence[tuple[float, float]]
    """(width, height) of the priors in pixels of the network's input."""


def draw_coverage(path: Path, sides_px: np.ndarray, sets: Sequence[PriorSet]) -> None:
    """Plot the reached objects: by width and height, by size, by aspect ratio, and the best IoUs.

    `sides_px` `[N, 2]` are width and height of the objects in pixels of the network's input. `sets` are the run's
    priors, and perhaps fitted ones.
    """
    threshold = sets[0].summary["threshold"]
    figure = new_figure(850, 620)
    (plane, ious), (sizes, ratios) = figure.subplots(2, 2)
    _draw_plane(plane, sides_px, sets[0].iou >= threshold, sets)
    draw_ious(ious, [(one.name, one.iou) for one in sets])
    ious.axvline(threshold * BINS - 0.5, color=INK, linestyle=":", linewidth=1)
    ious.set(title="Best IoU of each object with a prior")
    for axes, section, title in ((sizes, "by_size", "size (root of the area)"), (ratios, "by_ratio", "width : height")):
        draw_shares(axes, [(one.name, one.summary[section]) for one in sets])
        axes.set(title=f"Objects with a prior of IoU >= {threshold:g}, by {title}", ylim=(0, 1.2))
    for axes in figure.axes:
        axes.title.set(fontsize=12, color=INK)
        axes.legend(loc="upper left", fontsize=9, frameon=False, ncols=1 if axes in (plane, ious) else 2)
    Image.fromarray(pixels_of(figure)).save(path)


def draw_ious(axes: Any, series: Sequence[tuple[str, np.ndarray]]) -> None:
    """Draw histograms of the best IoU of each object with a prior, for one or two sets of priors."""
    counts = [(name, np.histogram(ious.clip(0, 1), bins=BINS, range=(0, 1))[0].tolist()) for name, ious in series]
    edges = [f"{place / BINS:.2f}" for place in range(BINS)]
    hints = [[f"{count} objects" for count in row] for _, row in counts]
    draw_columns(axes, edges, counts, hints=hints, x_label="IoU, from")


def draw_shares(axes: Any, summaries: Sequence[tuple[str, Mapping[str, Any]]], *, x_label: str = "") -> None:
    """Draw the fraction of objects with a prior in each range of size or shape, and their number above it.

    There are one or two `summaries`: the name of the priors, and a section of their `coverage_summary`.
    """
    ranges = [name for name, entry in summaries[0][1].items() if entry["objects"]]
    draw_columns(
        axes,
        [_short_range(name) for name in ranges],
        [(label, [section[name]["share"] for name in ranges]) for label, section in summaries],
        hints=[[f"{part[name]['reached']} of {part[name]['objects']}" for name in ranges] for _, part in summaries],
        above=[str(summaries[0][1][name]["objects"]) for name in ranges],
        x_label=x_label,
        high=1.08,
    )


def _draw_plane(axes: Any, sides_px: np.ndarray, is_reached: np.ndarray, sets: Sequence[PriorSet]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    chosen = np.arange(len(sides_px))
    if len(chosen) > MOST_POINTS:
        chosen = np.random.default_rng(0).choice(chosen, MOST_POINTS, replace=False)
    sides, reached = sides_px[chosen], is_reached[chosen]
    axes.scatter(*sides[reached].T, s=4, color=PALETTE[0], alpha=0.5, linewidths=0, label="reached")
    axes.scatter(*sides[~reached].T, s=9, color=PALETTE[3], alpha=0.9, linewidths=0, label="not reached")
    crosses = {"marker": "x", "color": INK, "linewidths": 1.3}
    circles = {"marker": "o", "facecolors": "none", "edgecolors": PALETTE[1], "linewidths": 1.6}
    for priors, style in zip(sets, (crosses, circles), strict=False):
        axes.scatter(*zip(*priors.shapes_px, strict=True), s=45, label=priors.name, **style)
    axes.set(
        xscale="log", yscale="log", xlabel="width in px of the network's input", ylabel="height in px",
        title=f"{len(sides_px)} training objects and the priors",
    )  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    tidy(axes, grid="both")


def _short_range(name: str) -> str:
    for long, short in ABBREVIATIONS:
        name = name.replace(long, short)
    return name
