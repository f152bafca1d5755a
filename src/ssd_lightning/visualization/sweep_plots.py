"""Plot the results of a sweep."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from PIL import Image

from ssd_lightning.visualization.charts import INK, PALETTE, new_figure, pixels_of, short, tidy
from ssd_lightning.visualization.fonts import spell

PANEL_PX = (260, 230)


def save_sweep_plot(
    path: Path, values: Mapping[str, Sequence[str]], scores: Sequence[float], *, objective: str, title: str
) -> None:
    """Draw a panel for each parameter: a point per run, and mean +- standard deviation for repeated values.

    `values` has each parameter's value in each run, as on the command line; `scores` has the objective of each run.
    """
    columns = min(len(values), 4)
    rows = math.ceil(len(values) / columns)
    figure = new_figure(max(PANEL_PX[0] * columns, 345), PANEL_PX[1] * rows + 36)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes, (parameter, of_runs) in zip(grid.flat, values.items(), strict=False):
        draw_parameter(axes, of_runs, scores)
        axes.set_xlabel(parameter)
    for axes in grid.flat[len(values) :]:
        axes.remove()
    for axes in grid[:, 0]:
        axes.set_ylabel(objective)
    figure.suptitle(short(title, 99), fontsize=11, color=INK)
    Image.fromarray(pixels_of(figure, dpi=150)).save(path)


def draw_parameter(axes: Any, values: Sequence[str], scores: Sequence[float]) -> None:
    """Draw the runs over the values of one parameter."""
    positions, names = positions_of(values)
    places, means, deviations = summaries(positions, scores)
    if places:
        line = "-" if names is None else ""  # there is nothing between two names
        bars = {"markersize": 5, "capsize": 4, "linewidth": 1.2, "zorder": 3}
        axes.errorbar(places, means, deviations, fmt=f"o{line}", color=PALETTE[0], **bars)
    axes.scatter(positions, scores, s=20, color=PALETTE[1], alpha=0.7, linewidths=0, zorder=2)
    # Values that differ by factors, such as learning rates, need a logarithmic axis.
    by_factors = names is None and min(positions) > 0 and max(positions) / min(positions) >= 10
    axes.set_xscale("log" if by_factors else "linear")
    tidy(axes)
    if names is not None:
        steep = max(map(len, names)) * len(names) > 30
        style = {"rotation": 30, "ha": "right"} if steep else {}
        axes.set_xticks(range(len(names)), [short(spell(name)[0], 28) for name in names], **style)
        axes.set_xlim(-0.5, len(names) - 0.5)
    elif (ticks := ticks_of(positions, by_factors=by_factors)) is not None:
        axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
        axes.minorticks_off()


def ticks_of(values: Sequence[float], *, by_factors: bool) -> list[float] | None:
    """Use the values as ticks if they are few and far apart, `by_factors` on a logarithmic axis; None if not."""
    distinct = sorted(set(values))
    places = [math.log(value) if by_factors else value for value in distinct]
    width = places[-1] - places[0]
    crowded = any(right - left < width / 8 for left, right in pairwise(places))
    return None if len(distinct) > 6 or crowded else distinct


def positions_of(values: Sequence[str]) -> tuple[list[float], list[str] | None]:
    """Place values on an axis: finite numbers at their value, names at 0, 1, ... in order; and return the names."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = [math.nan]
    if all(map(math.isfinite, numbers)):
        return numbers, None
    names = list(dict.fromkeys(values))
    return [float(names.index(value)) for value in values], names


def summaries(positions: Sequence[float], objectives: Sequence[float]) -> tuple[list[float], list[float], list[float]]:
    """Return ascending positions, with means and standard deviations (n - 1 in the denominator; 0 for a single run).

    They are empty if no position has several runs.
    """
    groups: dict[float, list[float]] = {}
    for place, objective in sorted(zip(positions, objectives, strict=True)):
        groups.setdefault(place, []).append(objective)
    if len(groups) == len(positions):
        return [], [], []
    spreads = [stdev(group) if len(group) > 1 else 0.0 for group in groups.values()]
    return [*groups], [fmean(group) for group in groups.values()], spreads
