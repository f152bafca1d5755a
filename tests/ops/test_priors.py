import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.ops.prior_levels import levels_from_scales
from ssd_lightning.ops.priors import SSD300_VOC, PriorLevel, fit_to_grids, make_priors, published_levels

TINY_SCALES = [(0.2, 0.272), (0.37, 0.447), (0.54, 0.619), (0.71, 0.79), (0.88, 0.961)]
TINY_GRIDS = [(32, 32), (16, 16), (8, 8), (4, 4), (1, 1)]


@pytest.mark.parametrize(("name", "size"), [("ssd300_voc", 300), ("ssd300_coco", 300), ("ssd512_voc", 512)])
def test_priors_equal_those_of_the_ports(reference_dir: Path, name: str, size: int) -> None:
    reference = torch.from_numpy(np.load(reference_dir / "priors.npz")[name])
    torch.testing.assert_close(make_priors(published_levels(name), size, clip=True), reference, rtol=0, atol=1e-6)


def test_clipping_is_a_choice() -> None:
    free, clipped, sizes = (make_priors(SSD300_VOC, 300, clip=clip) for clip in (False, True, "size"))
    assert (free.amax(dim=0) > 1).all()  # 10 cells of 32 pixels reach out of 300, and so do the widest boxes
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


ANY = PriorLevel(None, None, 10, None, ())


@pytest.mark.parametrize(
    ("levels", "grids", "marked"),
    [
        (SSD300_VOC, [(38, 38), (18, 19), (10, 10), (5, 5), (3, 3)], [["2", "18x19", "19x19"], ["6", "-", "1x1"]]),
        (SSD300_VOC[:1], [(38, 38), (19, 19)], [["2", "19x19", "-"]]),
        ([ANY] * 2, [(4, 4)], [["2", "-", "any"]]),
    ],
)
def test_grids_that_do_not_fit_are_shown_as_a_table(levels: list, grids: list, marked: list) -> None:
    with pytest.raises(ConfigurationError) as caught:
        fit_to_grids(levels, grids)
    assert [line.split()[:3] for line in str(caught.value).splitlines() if "differs" in line] == marked


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_priors([ANY], 100), "has no grid_size"),
        (lambda: make_priors(SSD300_VOC, 300, clip="centre"), "clip is 'centre'; it can be false, true or size"),
        (lambda: published_levels("ssd300"), "'ssd300'.*ssd300_voc"),
        (lambda: published_levels("ssd300_voc", -1), "whole and at least 1, got -1"),
        (lambda: make_priors(SSD300_VOC, "300"), "whole and at least 1, got 300"),
        (lambda: make_priors(SSD300_VOC, None), "whole and at least 1, got None"),
        (lambda: make_priors(SSD300_VOC, (300, 300.5)), r"whole and at least 1, got \(300, 300.5\)"),
        (lambda: make_priors(SSD300_VOC, True), "whole and at least 1, got True"),
        (lambda: PriorLevel(0, None, 10, 20, (2,)), "grid_size of priors is one number .*, got 0"),
        (lambda: PriorLevel((2.5, 2), None, 10, 20, (2,)), "grid_size of priors is one number"),
        (lambda: PriorLevel(None, None, "10", 20, (2,)), "are above 0, got 10 in "),
        (lambda: PriorLevel(None, None, 10, 20, (2, 0)), "are above 0, got 0 in "),
        (lambda: PriorLevel(None, None, 10, math.inf, ()), "are above 0, got inf in "),
        (lambda: published_levels("ssd300_voc", (1, 2, 3)), r"one number or \(height, width\), .* got \(1, 2, 3\)"),
    ],
)
def test_settings_that_cannot_work(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_published_levels_follow_the_shorter_side_of_the_image() -> None:
    assert published_levels("ssd300_voc", [300, 300]) == published_levels("ssd300_voc") == SSD300_VOC
    for level, published in zip(published_levels("ssd300_voc", (600, 900)), SSD300_VOC, strict=True):
        assert (level.grid_size, level.step) == (None, None)
        assert level.sizes() == [(2 * width, 2 * height) for width, height in published.sizes()]
