import math
from pathlib import Path

import pytest
from PIL import Image

from ssd_lightning.visualization.sweep_plots import (
    is_spread_by_factors,
    positions_of,
    save_sweep_plot,
    summaries,
    ticks_of,
)


@pytest.mark.parametrize(
    ("values", "placed"),
    [
        (["1e-3", "2", "0.5"], ([0.001, 2.0, 0.5], None)),
        (["sgd", "adamw", "sgd"], ([0.0, 1.0, 0.0], ["sgd", "adamw"])),
        (["nan", "1"], ([0.0, 1.0], ["nan", "1"])),
        (["[300,300]"], ([0.0], ["[300,300]"])),
    ],
)
def test_numbers_stand_where_they_are_and_names_side_by_side(values: list[str], placed: object) -> None:
    assert positions_of(values) == placed


@pytest.mark.parametrize(
    ("values", "answer"), [([1e-4, 1e-2], True), ([16, 64], False), ([0, 1], False), ([-1, 10], False), ([5], False)]
)
def test_learning_rates_get_a_logarithmic_axis(values: list[float], answer: bool) -> None:
    assert is_spread_by_factors(values) is answer


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
