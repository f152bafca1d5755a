"""Plots of a training show what was counted, and no more."""

import numpy as np

from ssd_lightning.visualization.training_plots import LevelCount, draw_level_counts


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
