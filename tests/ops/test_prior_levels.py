import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import torch

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.ops.prior_levels import levels_from_scales, linear_levels, octave_levels
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


@pytest.mark.parametrize(("side", "count"), [(320, 12_804), (640, 51_150)])
def test_octave_levels_are_the_anchors_of_the_detection_api(side: int, count: int) -> None:
    """multiscale_grid_anchor_generator.py: anchor_scale 4, two scales an octave, ratios 1, 2, .5, from level 3 to 7."""
    strides = [2**level for level in range(3, 8)]
    grids = [(math.ceil(side / stride),) * 2 for stride in strides]
    levels = fit_to_grids(octave_levels(strides=strides, scale=4.0, aspect_ratios=[2]), grids)
    assert len(make_priors(levels, side)) == count
    for stride, level in zip(strides, levels, strict=True):
        squares = [4 * stride * 2 ** (octave / 2) for octave in range(2)]
        expected = [(square * ratio**0.5, square / ratio**0.5) for square in squares for ratio in (1, 2, 0.5)]
        torch.testing.assert_close(torch.tensor(sorted(level.sizes())), torch.tensor(sorted(expected)))


LINEAR = partial(linear_levels, num_levels=3, smallest=0.1, largest=0.9, aspect_ratios=[2], image_size=100)
OCTAVE = partial(octave_levels, strides=[8], scale=4.0, aspect_ratios=[2])
SCALES = partial(levels_from_scales, scales=[(0.1, 0.2)], aspect_ratios=[[2]], image_size=100)


@pytest.mark.parametrize(
    ("make", "wrong", "message"),
    [
        (LINEAR, {"num_levels": 0}, "num_levels=0"),
        (LINEAR, {"smallest": 0}, "smallest=0"),
        (LINEAR, {"smallest": 0.9}, "smallest=0.9"),
        (OCTAVE, {"scale": 0}, "must be positive"),
        (OCTAVE, {"strides": [8, -16]}, "must be positive"),
        (SCALES, {"aspect_ratios": [[2], [2]]}, "1 scales but 2 lists"),
        (SCALES, {"scales": [(0.1, 0.0)]}, "two positive numbers"),
        (SCALES, {"scales": [(0.1,)]}, "two positive numbers"),
    ],
)
def test_wrong_levels_are_refused(make: Callable[..., object], wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make(**wrong)
