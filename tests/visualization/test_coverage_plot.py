"""The plot of coverage is drawn for any number of objects."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_lightning.visualization.coverage_plot import MOST_POINTS, draw_coverage


def summary(count: int) -> dict[str, object]:
    part = {"objects": count, "reached": count // 2, "share": 0.5 if count else None, "mean_iou": 0.5}
    return {"by_size": {"16 to 32 px": part}, "by_ratio": {"about square": part, "wider than 3:1": part}}


@pytest.mark.parametrize("count", [1, 50, MOST_POINTS + 5])
@pytest.mark.parametrize("fitted", [False, True])
def test_it_is_a_image(tmp_path: Path, count: int, fitted: bool) -> None:
    rng = np.random.default_rng(0)
    after = {"after": summary(count), "iou_after": rng.random(count), "shapes_after": [(25.0, 25.0)]} if fitted else {}
    draw_coverage(
        tmp_path / "c.png",
        sides_px=np.exp(rng.uniform(1, 5, (count, 2))),
        threshold=0.5,
        before=summary(count),
        iou_before=rng.random(count),
        shapes_before=[(30.0, 30.0), (60.0, 30.0)],
        **after,  # type: ignore[arg-type]
    )
    with Image.open(tmp_path / "c.png") as image:
        assert image.size == (1298, 947)
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    shown = (np.abs(colours.astype(int) - (213, 94, 0)).max(axis=1) < 10).sum()
    assert (shown > 500) == fitted
