"""The plot of coverage is drawn for any number of objects."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_lightning.visualization.coverage_plot import MOST_POINTS, PriorSet, draw_coverage


def prior_set(name: str, count: int, *shapes: tuple[float, float]) -> PriorSet:
    part = {"objects": count, "reached": count // 2, "share": 0.5 if count else None, "mean_iou": 0.5}
    by_ratio = {"about square": part, "wider than 3:1": part}
    summary = {"threshold": 0.5, "by_size": {"16 to 32 px": part}, "by_ratio": by_ratio}
    return PriorSet(name, summary, np.random.default_rng(0).random(count), shapes)


@pytest.mark.parametrize(("count", "fitted"), [(1, False), (MOST_POINTS + 5, True)])
def test_it_is_an_image(tmp_path: Path, count: int, fitted: bool) -> None:
    sides_px = np.exp(np.random.default_rng(1).uniform(1, 5, (count, 2)))
    sets = [prior_set("these priors", count, (30.0, 30.0), (60.0, 30.0)), prior_set("fitted", count, (25.0, 25.0))]
    draw_coverage(tmp_path / "c.png", sides_px, sets if fitted else sets[:1])
    with Image.open(tmp_path / "c.png") as image:
        assert image.size == (1298, 947)
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    shown = (np.abs(colours.astype(int) - (213, 94, 0)).max(axis=1) < 10).sum()
    assert (shown > 500) == fitted
