import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssd_lightning.models.layers import init_normal
from ssd_lightning.models.neck import FPNLite

GRIDS = [(9, 13), (5, 7), (3, 4)]  # not each half of the one before, as with an image of 300 pixels


def test_fpnlite_is_that_of_the_detection_api() -> None:
    """Project, add what is above, smooth; and what was smoothed is what the next finer level gets."""
    torch.manual_seed(0)
    neck = FPNLite([3, 4, 5], out_channels=8, init=functools.partial(init_normal, std=0.5)).eval()
    given = [torch.randn(2, channels, *grid) for channels, grid in zip([3, 4, 5], GRIDS, strict=True)]
    with torch.no_grad():
        for layer in neck.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_()
                layer.weight.normal_()
        found = neck(given)
        lateral = [conv(feature) for conv, feature in zip(neck.projections, given, strict=True)]
        middle = neck.smoothings[1](lateral[1] + F.interpolate(lateral[2], GRIDS[1]))
        finest = neck.smoothings[0](lateral[0] + F.interpolate(middle, GRIDS[0]))
        coarse = neck.levels[0](lateral[2])
        expected = [finest, middle, lateral[2], coarse, neck.levels[1](coarse)]
    torch.testing.assert_close(found, expected)
    assert neck.out_channels == (8,) * 5
    assert found[0].max() == 6  # ReLU6 behind a batch norm, not behind the projection
    assert found[2].min() < 0


@pytest.mark.parametrize("separable", [True, False])
def test_all_first_weights_of_fpnlite_scatter_alike(separable: bool) -> None:
    """Xavier takes a depthwise layer for one with as many inputs as channels, and starts it far smaller."""
    neck = FPNLite([64, 64], out_channels=256, separable=separable)
    convolutions = [layer for layer in neck.modules() if isinstance(layer, nn.Conv2d)]
    assert any(conv.groups > 1 for conv in convolutions) == separable
    for conv in convolutions:
        assert conv.weight.std().item() == pytest.approx(0.03, rel=0.1)
        assert conv.bias is None or not conv.bias.any()
