from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssd_lightning.visualization import sheet
from ssd_lightning.visualization.sheet import GAP_PX, Key, Panel, lay_out, save_png

RED = np.full((40, 60, 3), (200, 0, 0), dtype=np.uint8)


def test_a_sheet_has_columns_as_wide_as_the_widest_panel_and_all_its_panels() -> None:
    small = np.full((10, 20, 3), (0, 200, 0), dtype=np.uint8)
    drawn = lay_out([Panel(RED), Panel(small), Panel(RED)], columns=2, title="title")

    assert drawn.shape[1] == 2 * (60 + GAP_PX) + GAP_PX
    assert (drawn == (200, 0, 0)).all(-1).sum() == 2 * RED[..., 0].size
    assert (drawn == (0, 200, 0)).all(-1).sum() == small[..., 0].size
    assert (drawn[:4] == 255).all()


@pytest.mark.parametrize("text", ["x" * 3000, "Ünïcödé 猫 \x1b[31m\n{}%s<b>", "\udce4", "  "])
def test_any_text_fits_the_sheet(text: str) -> None:
    panel = Panel(RED, text, (text, text))
    plain = lay_out([Panel(RED, "a", ("a", "a"))], columns=1, title="a", lines=["a"], keys=[Key("a", (1, 2, 3))])
    drawn = lay_out([panel], columns=1, title=text, lines=[text], keys=[Key(text, (1, 2, 3))])

    assert drawn.shape == plain.shape
    assert (drawn[:, -2:] == 255).all()  # nothing runs out of the sheet


def test_a_legend_wraps_and_shows_every_colour() -> None:
    keys = [Key(f"class number {i}", (i, 10, 10), is_dashed=i % 2 == 0) for i in range(30)]
    drawn = lay_out([Panel(np.zeros((30, 300, 3), dtype=np.uint8))], columns=1, title="t", keys=keys)
    for key in keys:
        assert (drawn == key.colour).all(-1).any(), key


def test_a_png_holds_the_image_and_a_large_one_gets_a_palette(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    size = save_png(noise, tmp_path / "a.png")
    assert size == (tmp_path / "a.png").stat().st_size
    assert (np.asarray(Image.open(tmp_path / "a.png")) == noise).all()
    monkeypatch.setattr(sheet, "MOST_BYTES", size - 1)
    assert save_png(noise, tmp_path / "b.png") < size / 2
    assert Image.open(tmp_path / "b.png").size == (80, 80)
