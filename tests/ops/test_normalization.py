import math
from typing import Any

import pytest
import torch
from torchvision.models import VGG16_Weights

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.ops.normalization import (
    IDENTITY,
    IMAGENET,
    SUBTRACT_MEAN_BGR,
    SUBTRACT_MEAN_RGB,
    TORCHVISION_SSD,
    Normalization,
)

IMAGES = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)


@pytest.mark.parametrize(("preset", "weights"), [(IMAGENET, "IMAGENET1K_V1"), (TORCHVISION_SSD, "IMAGENET1K_FEATURES")])
def test_presets_are_what_torchvision_does_to_its_weights(preset: Normalization, weights: str) -> None:
    transforms = VGG16_Weights[weights].transforms()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (transforms.mean, transforms.std))
    torch.testing.assert_close(preset(IMAGES), (IMAGES / 255 - mean) / std, rtol=1e-5, atol=1e-5)


def test_mean_is_subtracted_in_the_order_of_the_weights() -> None:
    red = torch.tensor([200, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    assert SUBTRACT_MEAN_RGB(red).flatten().tolist() == [77, -117, -104]
    assert SUBTRACT_MEAN_BGR(red).flatten().tolist() == [-104, -117, 77]


def test_integers_become_float_and_floats_stay_as_they_are() -> None:
    assert IDENTITY(IMAGES).dtype is torch.float32
    assert torch.equal(IDENTITY(IMAGES), IMAGES.float())
    assert IMAGENET(IMAGES[:0].double()).dtype is torch.float64


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((1, 2), (1, 1, 1)),
        ((1, 2, 3), (1, 1)),
        ((1, 2, 3), (1, 0, 1)),
        ((1, math.nan, 3), (1, 1, 1)),
        (("1", 2, 3), (1, 1, 1)),
    ],
)
def test_what_cannot_normalise_is_refused(mean: Any, std: Any) -> None:
    with pytest.raises(ConfigurationError, match="three means and three std above 0"):
        Normalization(mean, std)
