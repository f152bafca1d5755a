"""Plots of a training show what was logged, and no more."""

import numpy as np
import pytest

from ssd_lightning.visualization.charts import line_colour
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
