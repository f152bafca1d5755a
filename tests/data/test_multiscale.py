"""Which step of multi-scale training has which size, and what a sample of that size is."""

from collections import Counter

import numpy as np
import pytest

from helpers.pixels import noise
from ssd_lightning.data.augmentation import SSDAugmentation
from ssd_lightning.data.resize import Resize
from ssd_lightning.data.sampler import MultiScale, multiscale_sizes
from ssd_lightning.errors import ConfigurationError


@pytest.mark.parametrize(
    ("sides", "image_size", "sizes"),
    [
        ([256, 384], (320, 320), [(256, 256), (288, 288), (320, 320), (352, 352), (384, 384)]),
        ([250, 300], (300, 300), [(256, 256), (288, 288)]),
        ([64, 64], (64, 64), [(64, 64)]),
        ([64, 128], (64, 96), [(64, 96), (96, 128), (128, 192)]),  # 144 and 160 are as near; 144 is no multiple
        ([64, 96], (128, 64), [(128, 64), (192, 96)]),
    ],
)
def test_sizes_are_the_multiples_of_32_in_the_range(sides, image_size, sizes):
    assert list(multiscale_sizes(sides, image_size)) == sizes


@pytest.mark.parametrize(
    ("sides", "named"),
    [
        ([384, 256], r"data.multiscale is \[384, 256\]; it must be null or the least and the largest side"),
        ([0, 256], "it must be null or"),
        *((sides, "it must be null or") for sides in ([256], [256, 320, 384], ["a", 320])),
        ([330, 340], r"data.multiscale is \[330, 340\]; no multiple of 32 lies in this range"),
    ],
)
def test_what_is_no_range_is_refused(sides, named):
    with pytest.raises(ConfigurationError, match=named):
        multiscale_sizes(sides, (320, 320))


def test_each_size_has_its_share_and_epochs_differ():
    multiscale = MultiScale(multiscale_sizes([256, 384], (320, 320)), seed=0)
    epochs = [[multiscale.size_at(epoch, step) for step in range(400)] for epoch in range(2)]
    counts = Counter(epochs[0])
    assert counts.keys() == set(multiscale.sizes)
    assert all(50 < count < 110 for count in counts.values())  # 80 expected, standard deviation 8
    assert epochs[0] != epochs[1]
    other = MultiScale(multiscale.sizes, seed=1)
    assert [other.size_at(0, step) for step in range(400)] != epochs[0]
    assert multiscale.size_at(0, 399) == epochs[0][399]  # whatever was drawn before


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("make", [Resize, SSDAugmentation])
def test_a_sample_of_another_size_is_that_of_a_transform_made_for_it(make, resize):
    image, boxes = noise(90, 130), np.array([[0.1, 0.2, 0.5, 0.9], [0.4, 0.4, 0.8, 0.7]], dtype=np.float32)
    transform = make(image_size=64, resize=resize)
    scaled, wanted = transform.at_size((96, 128)), make(image_size=(96, 128), resize=resize)
    for seed in range(3):
        for one, other in zip(scaled(image, boxes, seed), wanted(image, boxes, seed), strict=True):
            np.testing.assert_array_equal(one, other)
        assert transform(image, boxes, seed)[0].shape == (64, 64, 3)
