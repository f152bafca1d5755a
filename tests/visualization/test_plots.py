"""Plots of a training, of a sweep and of the coverage by priors show what they are given, and no more."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_lightning.visualization.charts import line_colour, new_figure
from ssd_lightning.visualization.coverage_plot import MOST_POINTS, PriorSet, draw_coverage
from ssd_lightning.visualization.sweep_plots import draw_parameter, positions_of, save_sweep_plot, summaries, ticks_of
from ssd_lightning.visualization.training_plots import (
    LevelCount,
    draw_class_ap,
    draw_level_counts,
    draw_pr_curves,
    named_lines,
)

ODD = ("$x_1$", "a\nb\udc80", "é" * 90, "<b>&amp;")


def names(count: int) -> list[str]:
    return [ODD[index] if index < len(ODD) else f"class {index}" for index in range(count)]


def has(image: np.ndarray, colour: tuple[float, ...]) -> np.ndarray:
    return np.abs(image.astype(int) - np.array(colour) * 255).max(axis=-1) < 12


def test_levels_are_drawn_by_their_counts() -> None:
    levels = [LevelCount(100, 400, (4, 4)), LevelCount(50, 100, (2, 2)), LevelCount(0, 25, (1, 1))]
    image = draw_level_counts(levels, title="matched")
    columns = has(image, (0x00 / 255, 0x72 / 255, 0xB2 / 255)).sum(axis=0)
    full, half = columns.max(), columns[image.shape[1] // 2]
    assert 0.45 < half / full < 0.58
    assert (columns > 0).sum() < 0.6 * image.shape[1]  # nothing on the third
    assert draw_level_counts([LevelCount(0, 0, (1, 1))], title="").shape[2] == 3


@pytest.mark.parametrize("count", [1, 80])
def test_pr_curves_of_the_best_and_the_worst_are_coloured(count: int) -> None:
    recall, empty = np.linspace(0.01, 0.9, 50), np.zeros(0)
    curves = [*((recall, 1 - recall * index / max(1, count)) for index in range(count)), (empty, empty), (empty, empty)]
    aps = [*(1 - index / count for index in range(count)), 0.0, float("nan")]
    image = draw_pr_curves(curves, aps, [*names(count), "found nothing", "no objects"], title="title")
    assert has(image, line_colour(1)).sum() > 60


@pytest.mark.parametrize(("count", "validations"), [(1, 0), (80, 1), (4, 30)])
def test_ap_is_drawn_over_the_epochs(count: int, validations: int) -> None:
    values = np.tile(np.linspace(0.05, 0.95, count), (validations, 1))
    values[:, 0] = np.nan
    image = draw_class_ap(range(1, validations + 1), values, names(count), title="title")
    if validations > 1:
        assert has(image, line_colour(count)).sum() > 60


def test_few_lines_are_all_named_of_many_the_best_and_the_worst() -> None:
    assert named_lines([0.1, float("nan"), 0.3]) == [2, 0]
    assert named_lines([index / 80 for index in range(80)]) == [79, 78, 77, 76, 75, 4, 3, 2, 1, 0]


def prior_set(name: str, count: int, *shapes: tuple[float, float]) -> PriorSet:
    part = {"objects": count, "reached": count // 2, "share": 0.5 if count else None, "mean_iou": 0.5}
    by_ratio = {"about square": part, "wider than 3:1": part}
    summary = {"threshold": 0.5, "by_size": {"16 to 32 px": part}, "by_ratio": by_ratio}
    return PriorSet(name, summary, np.random.default_rng(0).random(count), shapes)


@pytest.mark.parametrize(("count", "fitted"), [(1, False), (MOST_POINTS + 5, True)])
def test_coverage_is_drawn_for_any_number_of_objects(tmp_path: Path, count: int, fitted: bool) -> None:
    sides_px = np.exp(np.random.default_rng(1).uniform(1, 5, (count, 2)))
    sets = [prior_set("these priors", count, (30.0, 30.0), (60.0, 30.0)), prior_set("fitted", count, (25.0, 25.0))]
    draw_coverage(tmp_path / "c.png", sides_px, sets if fitted else sets[:1])
    with Image.open(tmp_path / "c.png") as image:
        assert image.size == (1298, 947)
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    shown = (np.abs(colours.astype(int) - (213, 94, 0)).max(axis=1) < 10).sum()
    assert (shown > 500) == fitted


def test_numbers_stand_where_they_are_and_names_side_by_side() -> None:
    assert positions_of(["1e-3", "2", "0.5"]) == ([0.001, 2.0, 0.5], None)
    assert positions_of(["sgd", "adamw", "sgd"]) == ([0.0, 1.0, 0.0], ["sgd", "adamw"])
    assert positions_of(["nan", "1"]) == ([0.0, 1.0], ["nan", "1"])
    assert positions_of(["[300,300]"]) == ([0.0], ["[300,300]"])


@pytest.mark.parametrize("values", ["1e-4 1e-2", "16 64", "0 1", "-1 10", "5"])
def test_learning_rates_get_a_logarithmic_axis(values: str) -> None:
    axes = new_figure(300, 200).subplots()
    draw_parameter(axes, values.split(), [0.1, 0.2][: len(values.split())])
    assert (axes.get_xscale() == "log") == (values == "1e-4 1e-2")


def test_few_values_are_the_ticks_themselves() -> None:
    assert ticks_of([2, 0, 1, 1], by_factors=False) == [0, 1, 2]
    assert ticks_of([0.001, 0.003, 0.01], by_factors=True) == [0.001, 0.003, 0.01]
    assert ticks_of([0.001, 0.003, 0.1], by_factors=False) is None  # the first two would overlap
    assert ticks_of(range(7), by_factors=False) is None
    assert ticks_of([3], by_factors=False) == [3]


def test_mean_and_deviation_at_every_value() -> None:
    places, means, deviations = summaries([2, 1, 1, 1], [5.0, 1.0, 2.0, 6.0])
    assert (places, means) == ([1, 2], [3.0, 5.0])
    assert deviations == pytest.approx([math.sqrt(7), 0.0])  # ((1-3)^2 + (2-3)^2 + (6-3)^2) / 2
    assert summaries([1, 2, 3], [1.0, 2.0, 3.0]) == ([], [], [])


@pytest.mark.parametrize(("panels", "runs"), [(1, 1), (5, 3)])
def test_an_image_with_a_panel_a_parameter(tmp_path: Path, panels: int, runs: int) -> None:
    values = {f"p{index}": ("1", "x", "1")[:runs] for index in range(panels)}
    save_sweep_plot(tmp_path / "plot.png", values, (0.1, 0.2, 0.4)[:runs], objective="val/map", title="a sweep")
    with Image.open(tmp_path / "plot.png") as image:
        assert image.width >= 540 * min(panels, 4)
        assert image.height >= 480 * math.ceil(panels / 4)
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 20
