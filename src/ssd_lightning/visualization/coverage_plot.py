"""Plot how well priors cover the objects of a data set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssd_lightning.visualization.charts import INK, PALETTE, draw_columns, new_figure, pixels_of, tidy

MOST_POINTS = 8000
BINS = 20

Shapes = Sequence[tuple[float, float]]


def draw_coverage(
    path: Path,
    *,
    sides_px: np.ndarray,
    threshold: float,
    before: Mapping[str, Any],
    iou_before: np.ndarray,
    shapes_before: Shapes,
    after: Mapping[str, Any] | None = None,
    iou_after: np.ndarray | None = None,
    shapes_after: Shapes = (),
) -> None:
    """Plot the reached objects: by width and height, by size, by aspect ratio, and the best IoUs.

    Args:
        path: path of the PNG.
        sides_px: `[N, 2]`, width and height of the objects in pixels of the network's input.
        threshold: IoU from which an object is reached.
        before: result of `analysis.coverage.coverage_summary`.
        iou_before: `[N]`, best IoU of each object.
        shapes_before: (width, height) of the priors in pixels.
        after: the same for fitted priors.
        iou_after: the same for fitted priors.
        shapes_after: the same for fitted priors.
    """
    figure = new_figure(850, 620)
    (plane, ious), (sizes, ratios) = figure.subplots(2, 2)
    _draw_plane(plane, sides_px, iou_before >= threshold, shapes_before, shapes_after)
    draw_ious(ious, [("these priors", iou_before), *([] if iou_after is None else [("fitted priors", iou_after)])])
    ious.axvline(threshold * BINS - 0.5, color=INK, linestyle=":", linewidth=1)
    ious.set(title="Best IoU of each object with a prior")
    for axes, section, title in ((sizes, "by_size", "size (root of the area)"), (ratios, "by_ratio", "width : height")):
        summaries = [("these priors", before[section]), *([("fitted priors", after[section])] if after else [])]
        draw_shares(axes, summaries)
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

    Args:
        axes: where.
        summaries: name and a section of `analysis.coverage.coverage_summary`, for one or two sets of priors.
        x_label: text below the ranges.
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


def _draw_plane(axes: Any, sides_px: np.ndarray, is_reached: np.ndarray, before: Shapes, after: Shapes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    chosen = np.arange(len(sides_px))
    if len(chosen) > MOST_POINTS:
        chosen = np.random.default_rng(0).choice(chosen, MOST_POINTS, replace=False)
    sides, reached = sides_px[chosen], is_reached[chosen]
    axes.scatter(*sides[reached].T, s=4, color=PALETTE[0], alpha=0.5, linewidths=0, label="reached")
    axes.scatter(*sides[~reached].T, s=9, color=PALETTE[3], alpha=0.9, linewidths=0, label="not reached")
    axes.scatter(*zip(*before, strict=True), marker="x", s=45, color=INK, linewidths=1.3, label="these priors")
    if after:
        axes.scatter(
            *zip(*after, strict=True), marker="o", s=45, facecolors="none", edgecolors=PALETTE[1], linewidths=1.6,
            label="fitted priors",
        )  # fmt: skip
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
    for long, short in (
        ("below ", "<"), (" px and more", "+"), (" px", ""), ("taller than ", "<"), ("wider than ", ">"), (" to ", "–"),
        ("about square", "square"), ("1:1.5", "2:3"), ("1.5:1", "3:2"),
    ):  # fmt: skip
        name = name.replace(long, short)
    return name
