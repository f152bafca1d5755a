"""Plot how well priors cover the objects of a data set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssd_lightning.visualization.colours import class_colour

MOST_POINTS = 8000
ORANGE, BLUE, GREEN, RED = (tuple(channel / 255 for channel in class_colour(label)) for label in (1, 2, 3, 5))

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
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9.5), layout="constrained", dpi=110)
    (plane, ious), (sizes, ratios) = figure.subplots(2, 2)
    _draw_plane(plane, sides_px, iou_before >= threshold, shapes_before, shapes_after)
    bins = np.linspace(0, 1, 41)
    ious.hist(iou_before, bins=bins, color=BLUE, label="these priors")
    if iou_after is not None:
        ious.hist(iou_after, bins=bins, histtype="step", color=ORANGE, linewidth=1.8, label="fitted priors")
    ious.axvline(threshold, color="black", linestyle=":", linewidth=1)
    ious.set(title="Best IoU of each object with a prior", xlabel="IoU", ylabel="objects", xlim=(0, 1))
    ious.legend(loc="upper left")
    for axes, section, title in ((sizes, "by_size", "size (root of the area)"), (ratios, "by_ratio", "width : height")):
        _draw_shares(axes, before[section], after[section] if after else None)
        axes.set(
            title=f"Share of objects with a prior of IoU >= {threshold:g}, by {title}",
            ylim=(0, 1.25),
            yticks=np.linspace(0, 1, 6),
        )
    figure.savefig(path)


def _draw_plane(axes: Any, sides_px: np.ndarray, is_reached: np.ndarray, before: Shapes, after: Shapes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    chosen = np.arange(len(sides_px))
    if len(chosen) > MOST_POINTS:
        chosen = np.random.default_rng(0).choice(chosen, MOST_POINTS, replace=False)
    sides, reached = sides_px[chosen], is_reached[chosen]
    axes.scatter(*sides[reached].T, s=4, color=BLUE, alpha=0.5, linewidths=0, label="reached")
    axes.scatter(*sides[~reached].T, s=9, color=RED, alpha=0.9, linewidths=0, label="not reached")
    axes.scatter(*zip(*before, strict=True), marker="x", s=45, color="black", linewidths=1.3, label="these priors")
    if after:
        axes.scatter(
            *zip(*after, strict=True), marker="o", s=45, facecolors="none", edgecolors=ORANGE, linewidths=1.6,
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
    axes.legend(loc="upper left")


def _draw_shares(axes: Any, before: Mapping[str, Any], after: Mapping[str, Any] | None) -> None:
    names = [name for name, values in before.items() if values["objects"]]
    places = np.arange(len(names))
    width = 0.38 if after else 0.7
    shift = width / 2 if after else 0.0
    axes.bar(places - shift, [before[name]["share"] for name in names], width, color=BLUE, label="these priors")
    if after:
        axes.bar(places + shift, [after[name]["share"] for name in names], width, color=ORANGE, label="fitted priors")
    for place, name in zip(places, names, strict=True):
        highest = max(side[name]["share"] for side in (before, after) if side)
        axes.text(place, highest + 0.02, f"{before[name]['objects']}", ha="center", fontsize=9)
    axes.set_xticks(places, [name.replace(" to ", "\nto ").replace(" than ", "\nthan ") for name in names])
    axes.legend(loc="upper center", ncols=2)
