import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from helpers.pixels import soft_noise
from ssd_lightning.data.colour import distort_colours, to_planes


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return soft_noise(40, 50)


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.astype(np.float64) - b.astype(np.float64))


def by_torchvision(function, image: np.ndarray, amount: float) -> np.ndarray:
    return function(torch.from_numpy(image).permute(2, 0, 1), amount).permute(1, 2, 0).numpy()


def assert_near(found: np.ndarray, expected: np.ndarray, before: np.ndarray, gain: float) -> None:
    """8-bit HSV keeps the hue to 1 degree: 255 / 60 levels where two channels cross, .5 on the mean."""
    off = difference(found, expected)
    assert off.max() <= 7
    assert off.mean() < 1
    assert difference(before, expected).mean() > gain * off.mean()


@pytest.mark.parametrize("shift", [-7.4, 31.5])
def test_brightness_is_added_and_saturated(image, shift):
    expected = np.clip(image + shift, 0, 255)
    assert difference(distort_colours(image, brightness=shift), expected).max() <= 0.5


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_contrast_multiplies_as_torchvisions_brightness_does(image, factor):
    expected = by_torchvision(tv.adjust_brightness, image, factor)
    assert difference(distort_colours(image, contrast=factor), expected).max() <= 1


@pytest.mark.parametrize("shift", [-18, 5])
def test_hue_turns_as_torchvisions_does(image, shift):
    expected = by_torchvision(tv.adjust_hue, image, shift / 180)
    assert_near(distort_colours(image, hue=shift), expected, image, 10)


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_saturation_moves_channels_away_from_the_largest(image, factor):
    # In HSV, c = V (1 - S f): a factor of S is one of V - c, until the least channel reaches 0.
    largest, least = image.max(-1, keepdims=True).astype(float), image.min(-1, keepdims=True).astype(float)
    spread = np.maximum(largest - least, 1)
    expected = largest - np.minimum(factor, largest / spread) * (largest - image)
    assert_near(distort_colours(image, saturation=factor), expected, image, 3)


@pytest.mark.parametrize("change", [{"saturation": 1.5}, {"saturation": 0.5}, {"hue": 18.0}, {"hue": -18.0}])
def test_grey_has_neither_hue_nor_saturation(change):
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    np.testing.assert_array_equal(distort_colours(greys, **change), greys)


def test_contrast_comes_before_or_after_the_hue_and_brightness_always_first(image):
    change = {"brightness": 30.0, "contrast": 1.5, "saturation": 1.4, "hue": 11.0}
    bright = distort_colours(image, brightness=30.0)
    hsv = {"saturation": 1.4, "hue": 11.0}
    first = distort_colours(distort_colours(bright, contrast=1.5), **hsv)
    last = distort_colours(distort_colours(bright, **hsv), contrast=1.5)
    np.testing.assert_array_equal(distort_colours(image, **change, contrast_first=True), first)
    np.testing.assert_array_equal(distort_colours(image, **change, contrast_first=False), last)
    assert (first != last).any()


def test_the_given_image_is_left_alone_and_nothing_is_changed_by_default(image):
    before = image.copy()
    assert distort_colours(image, brightness=20, contrast=0.5, saturation=1.5, hue=9).dtype == np.uint8
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(distort_colours(image), image)


def test_planes_are_a_transposed_copy_of_a_image_and_of_nothing_else(image):
    for view in (image, image[::-1, ::-2], image[3:4, 5:6]):
        planes = to_planes(view)
        np.testing.assert_array_equal(planes, view.transpose(2, 0, 1))
        assert not np.shares_memory(planes, image)
    floats, planes_of_six = image.astype(np.float32), np.dstack([image] * 2)
    for other in (floats, image.astype(np.int8), image[..., 0], image[..., :1], planes_of_six):
        with pytest.raises(ValueError, match=r"an image is uint8 \[H, W, 3\], not "):
            to_planes(other)
