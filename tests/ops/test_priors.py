import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.ops.prior_levels import levels_from_scales
from ssd_lightning.ops.priors import (
    PUBLISHED,
    SSD300_VOC,
    PriorLevel,
    as_height_width,
    fit_to_grids,
    make_priors,
    published_levels,
    rescale_levels,
)

TINY_SCALES = [(0.2, 0.272), (0.37, 0.447), (0.54, 0.619), (0.71, 0.79), (0.88, 0.961)]
TINY_GRIDS = [(32, 32), (16, 16), (8, 8), (4, 4), (1, 1)]
SIZES = {"ssd300_voc": 300, "ssd300_coco": 300, "ssd512_voc": 512}


@pytest.mark.parametrize("name", SIZES)
def test_priors_equal_those_of_the_ports(reference_dir: Path, name: str) -> None:
    reference = torch.from_numpy(np.load(reference_dir / "priors.npz")[name])
    priors = make_priors(published_levels(name), SIZES[name], clip=True)
    assert len(priors) == (24_564 if name == "ssd512_voc" else 8732)
    torch.testing.assert_close(priors, reference, rtol=0, atol=1e-6)


def test_a_cell_as_the_paper_has_it() -> None:
    """Row 3, column 7 of the second level: centre (7.5, 3.5) steps of 16 pixels, and six boxes in Caffe's order."""
    start = 5776 + (3 * 19 + 7) * 6
    boxes = make_priors(SSD300_VOC, 300)[start : start + 6] * 300
    assert torch.allclose(boxes[:, :2], torch.tensor([7.5 * 16, 3.5 * 16]))
    large = math.sqrt(60 * 111)
    expected = [(60, 60), (large, large)]
    for ratio in (2, 3):
        wide, tall = 60 * math.sqrt(ratio), 60 / math.sqrt(ratio)
        expected += [(wide, tall), (tall, wide)]
    torch.testing.assert_close(boxes[:, 2:], torch.tensor(expected), rtol=1e-5, atol=1e-4)


def test_clipping_is_a_choice() -> None:
    free, clipped, sizes = (make_priors(SSD300_VOC, 300, clip=clip) for clip in (False, True, "size"))
    assert free[:, :2].max() > 1  # the third grid, 10 cells of 32 pixels, reaches out of 300
    assert free[:, 2:].max() > 1  # the widest boxes of the last level
    assert torch.equal(clipped, free.clamp(0, 1))
    assert torch.equal(sizes, torch.cat([free[:, :2], free[:, 2:].clamp(max=1)], dim=1))  # as torchvision


def test_tiny_priors_equal_the_formula_of_the_book() -> None:
    """Dive into Deep Learning: sizes s1, s2 at ratio 1, then s1 at the other ratios; centres (col + .5) / grid."""
    expected = []
    for (side, _), (small, large) in zip(TINY_GRIDS, TINY_SCALES, strict=True):
        shapes = [(small, 1), (large, 1), (small, 2), (small, 0.5)]
        for row in range(side):
            for column in range(side):
                centre = ((column + 0.5) / side, (row + 0.5) / side)
                expected += [(*centre, s * math.sqrt(r), s / math.sqrt(r)) for s, r in shapes]
    levels = levels_from_scales(scales=TINY_SCALES, aspect_ratios=[[2]] * 5, image_size=(256, 256))
    priors = make_priors(fit_to_grids(levels, TINY_GRIDS), (256, 256))
    assert len(priors) == 5444
    torch.testing.assert_close(priors, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_images_that_are_not_square() -> None:
    level = PriorLevel((2, 4), None, 10, None, (4,))
    boxes = make_priors([level], (100, 200)).reshape(2, 4, 3, 4)
    assert torch.allclose(boxes[1, 2, :, 0], torch.tensor(2.5 / 4))  # columns go with the width
    assert torch.allclose(boxes[1, 2, :, 1], torch.tensor(1.5 / 2))
    sizes_px = boxes[0, 0, :, 2:] * torch.tensor([200.0, 100.0])
    torch.testing.assert_close(sizes_px, torch.tensor([[10.0, 10], [20, 5], [5, 20]]))
    stepped = make_priors([PriorLevel((2, 4), 40, 10, None, ())], (100, 200)).reshape(2, 4, 4)
    torch.testing.assert_close(stepped[1, 3, :2], torch.tensor([3.5 * 40 / 200, 1.5 * 40 / 100]))


@pytest.mark.parametrize(
    ("max_size", "ratios", "both_sizes", "count"),
    [(None, (), False, 1), (20.0, (), True, 2), (None, (2, 3), True, 5), (20, (2,), False, 4), (20, (2, 3), True, 10)],
)
def test_boxes_per_cell(max_size: float | None, ratios: tuple[float, ...], both_sizes: bool, count: int) -> None:
    level = PriorLevel(1, None, 10, max_size, ratios, both_sizes)
    assert level.boxes_per_cell == len(make_priors([level], 30)) == count


def test_grids_that_do_not_fit_are_shown_as_a_table() -> None:
    grids = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]
    assert fit_to_grids(SSD300_VOC, grids)[2].grid_size == (10, 10)
    with pytest.raises(ConfigurationError) as caught:
        fit_to_grids(SSD300_VOC, [(38, 38), (18, 19), *grids[2:5]])
    marked = [line.split() for line in str(caught.value).splitlines() if "differs" in line]
    assert [line[:3] for line in marked] == [["2", "18x19", "19x19"], ["6", "-", "1x1"]]
    with pytest.raises(ConfigurationError) as caught:
        fit_to_grids(SSD300_VOC[:5], grids)
    marked = [line.split() for line in str(caught.value).splitlines() if "differs" in line]
    assert [line[:3] for line in marked] == [["6", "1x1", "-"]]
    with pytest.raises(ConfigurationError) as caught:
        fit_to_grids([PriorLevel(None, None, 1, None, ())] * 2, [(4, 4)])
    assert [line.split()[1:3] for line in str(caught.value).splitlines()[2:]] == [["4x4", "any"], ["-", "any"]]


def test_settings_that_cannot_work() -> None:
    with pytest.raises(ConfigurationError, match="grid_size"):
        make_priors([PriorLevel(None, None, 10, None, ())], 100)
    with pytest.raises(ConfigurationError, match="2 scales but 1 lists"):
        levels_from_scales(scales=[(0.1, 0.2)] * 2, aspect_ratios=[[2]], image_size=100)
    for scales in ([(0.1, 0.0)], [(0.1,)], [(-0.1, 0.2)]):
        with pytest.raises(ConfigurationError, match="two positive numbers"):
            levels_from_scales(scales=scales, aspect_ratios=[[2]], image_size=100)
    with pytest.raises(ConfigurationError, match=r"'ssd300'.*ssd300_voc"):
        published_levels("ssd300")
    with pytest.raises(ConfigurationError, match=r"clip is 'centre'; it can be false, true or size"):
        make_priors(SSD300_VOC, 300, clip="centre")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_levels_follow_the_image(name: str) -> None:
    size, levels = PUBLISHED[name]
    assert published_levels(name, size) == published_levels(name, [size, size]) == levels
    doubled = published_levels(name, (2 * size, 3 * size))
    assert [level.min_size for level in doubled] == [2 * level.min_size for level in levels]
    assert all(level.grid_size is None and level.step is None for level in doubled)
    for level, larger in zip(levels, doubled, strict=True):
        assert larger.aspect_ratios == level.aspect_ratios


def test_sizes_are_height_before_width() -> None:
    assert as_height_width(300) == (300, 300)
    assert as_height_width([240, 320]) == (240, 320)
    (level,) = levels_from_scales(scales=[(0.5, 0.5)], aspect_ratios=[[]], image_size=[100, 200])
    assert level.sizes() == [(50, 50), (50, 50)]  # a fraction of the shorter side


def test_levels_of_another_size_keep_their_shares_of_the_image() -> None:
    grids = [(48, 48), (24, 24), (12, 12), (6, 6), (4, 4), (2, 2)]
    levels = fit_to_grids(rescale_levels(SSD300_VOC, 300, 384), grids)
    here, there = make_priors(SSD300_VOC, 300), make_priors(levels, 384)
    per_cell = [level.boxes_per_cell for level in levels]
    assert len(there) == sum(rows * columns * boxes for (rows, columns), boxes in zip(grids, per_cell, strict=True))
    starts = [0, 38 * 38 * 4], [0, 48 * 48 * 4]
    for first, second in zip(*starts, strict=True):
        torch.testing.assert_close(here[first : first + 4, 2:], there[second : second + 4, 2:])
    torch.testing.assert_close(there[0, :2], torch.full((2,), 0.5 / 48))  # in the middle of the first cell
