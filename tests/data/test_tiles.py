"""Tiles cover an image, lie inside it and overlap."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd_lightning.data.tiles import check_tiles, tile_windows
from ssd_lightning.errors import ConfigurationError


@given(
    size_px=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    tiles=st.integers(32, 200),
    overlap=st.floats(0, 0.9),
)
def test_tiles_cover_the_image_and_overlap_enough(size_px: tuple[int, int], tiles: int, overlap: float) -> None:
    height, width = size_px
    windows = tile_windows(size_px, tiles, overlap)
    covered = np.zeros(size_px, bool)
    for x1, y1, x2, y2 in windows:
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert (x2 - x1, y2 - y1) == (min(tiles, width), min(tiles, height))
        covered[y1:y2, x1:x2] = True
    assert covered.all()
    assert len(set(windows)) == len(windows)
    for axis in (0, 1):
        spans = sorted({(window[axis], window[axis + 2]) for window in windows})
        assert all(end - start >= overlap * tiles for (_, end), (start, _) in itertools.pairwise(spans))


def test_the_last_tiles_are_shifted_inwards() -> None:
    assert tile_windows((100, 250), 100, 0.0) == [(0, 0, 100, 100), (100, 0, 200, 100), (150, 0, 250, 100)]
    assert tile_windows((50, 100), 100, 0.5) == [(0, 0, 100, 50)]


@pytest.mark.parametrize(
    ("tiles", "overlap", "named"),
    [
        (31, 0.2, "tiles is 31;"),
        (64.5, 0.2, "tiles is 64.5;"),
        (640, 1.0, "overlap is 1.0;"),
        (640, -0.1, "overlap is -0.1;"),
    ],
)
def test_what_cannot_be_used_is_named(tiles: object, overlap: object, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        check_tiles(tiles, overlap)
