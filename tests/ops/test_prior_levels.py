import math
from itertools import pairwise

import pytest
import torch

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.ops.prior_levels import linear_levels, octave_levels
from ssd_lightning.ops.priors import fit_to_grids, make_priors


@pytest.mark.parametrize("count", [1, 6, 7])
def test_linear_levels_grow_in_equal_steps(count: int) -> None:
    """SSD paper, equation 4; and section 2.2: the large square lies between a level's own size and the next."""
    levels = linear_levels(num_levels=count, smallest=0.2, largest=0.9, aspect_ratios=[2, 3], image_size=(200, 400))
    expected = [0.2 + 0.7 * k / (count - 1) for k in range(count)] if count > 1 else [0.2]
    assert [level.min_size for level in levels] == pytest.approx([200 * scale for scale in expected])
    for level, following in pairwise(levels):
        assert level.max_size == pytest.approx(following.min_size)
        assert level.boxes_per_cell == 6


@pytest.mark.parametrize("wrong", [{"num_levels": 0}, {"smallest": 0}, {"smallest": 0.9}, {"largest": -1}])
def test_wrong_linear_levels_are_refused(wrong: dict) -> None:
    right = {"num_levels": 3, "smallest": 0.1, "largest": 0.9, "aspect_ratios": [2], "image_size": 100}
    name, value = next(iter(wrong.items()))
    with pytest.raises(ConfigurationError, match=f"{name}={value}"):
        linear_levels(**right | wrong)


@pytest.mark.parametrize(("side", "count"), [(320, 12_804), (640, 51_150)])
def test_octave_levels_are_the_anchors_of_the_detection_api(side: int, count: int) -> None:
    """multiscale_grid_anchor_generator.py: anchor_scale 4, two scales an octave, ratios 1, 2, .5, from level 3 to 7."""
    strides = [2**level for level in range(3, 8)]
    grids = [(math.ceil(side / stride),) * 2 for stride in strides]
    levels = fit_to_grids(octave_levels(strides=strides, scale=4.0, aspect_ratios=[2]), grids)
    priors = make_priors(levels, side) * side
    assert len(priors) == count
    start = 0
    for stride, (rows, columns) in zip(strides, grids, strict=True):
        cells = priors[start : start + rows * columns * 6].reshape(rows, columns, 6, 4)
        start += rows * columns * 6
        anchors = [
            (4 * stride * 2 ** (octave / 2) * math.sqrt(ratio), 4 * stride * 2 ** (octave / 2) / math.sqrt(ratio))
            for octave in range(2)
            for ratio in (1, 2, 0.5)
        ]
        for cell in (cells[0, 0], cells[-1, -1]):
            torch.testing.assert_close(torch.tensor(sorted(cell[:, 2:].tolist())), torch.tensor(sorted(anchors)))
        if side % stride == 0:
            assert cells[1, 2, :, :2].tolist() == [[2.5 * stride, 1.5 * stride]] * 6


@pytest.mark.parametrize("wrong", [{"scale": 0}, {"strides": [8, -16]}])
def test_wrong_octave_levels_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigurationError, match="must be positive"):
        octave_levels(**{"strides": [8], "scale": 4.0, "aspect_ratios": [2]} | wrong)
