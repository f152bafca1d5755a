"""Plots of a training show what was logged, and no more."""

import numpy as np
import pytest

from ssd_lightning.visualization.training_plots import PANELS, Curve, LevelCount, draw_curves, draw_level_counts


def test_nothing_logged_is_no_image() -> None:
    assert draw_curves({}, title="") is None
    assert draw_curves({"lr": Curve([1], [float("nan")]), "other": Curve([1], [1.0])}, title="") is None


@pytest.mark.parametrize("points", [1, 2, 500])
def test_every_panel_has_its_place(points: int) -> None:
    sizes = set()
    for count in (1, 4, 5, len(PANELS)):
        steps = list(range(points))
        curves = {key: Curve(steps, [0.5] * points) for keys in list(PANELS.values())[:count] for key in keys}
        image = draw_curves(curves, title="run $1$")
        assert image is not None
        assert image.std() > 5
        sizes.add(image.shape)
    assert len(sizes) == 3  # one, four, and two rows of four


def test_a_curve_is_where_its_values_are() -> None:
    high = draw_curves({"val/map_11point": Curve([0, 10], [0.95, 0.95])}, title="")
    low = draw_curves({"val/map_11point": Curve([0, 10], [0.05, 0.05])}, title="")
    assert high is not None
    assert low is not None
    different = np.abs(high.astype(int) - low).max(axis=-1) > 40
    rows_of_high = (different & (low.min(axis=-1) > 200)).sum(axis=1).argmax()
    rows_of_low = (different & (high.min(axis=-1) > 200)).sum(axis=1).argmax()
    assert rows_of_high < rows_of_low


def test_bars_are_as_high_as_their_counts() -> None:
    levels = [LevelCount(100, 400, (4, 4)), LevelCount(50, 100, (2, 2)), LevelCount(0, 25, (1, 1))]
    image = draw_level_counts(levels, title="matched")
    blue = np.abs(image.astype(int) - (0x1F, 0x4E, 0x79)).max(axis=-1) < 8
    columns = blue.sum(axis=0)
    full, half = columns.max(), columns[image.shape[1] // 2]
    assert 0.45 < half / full < 0.58
    assert (columns > 0).sum() < 0.6 * image.shape[1]  # nothing on the third


def test_one_level_without_images() -> None:
    assert draw_level_counts([LevelCount(0, 0, (1, 1))], title="").shape[2] == 3
