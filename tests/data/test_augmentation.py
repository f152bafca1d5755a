import inspect
import os
import pickle
import subprocess
import sys
from collections import Counter
from random import Random

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from helpers.no_warnings import no_warnings
from helpers.pixels import noise
from ssd_lightning.config import compose_config
from ssd_lightning.data.augmentation import MIN_SIDE, SSDAugmentation
from ssd_lightning.data.colour import PhotometricDistortion
from ssd_lightning.data.detection_data import REDUCED_TO
from ssd_lightning.errors import ConfigurationError

MEAN = (123, 117, 104)
COLOURS = np.array([(255, 0, 0), (0, 0, 255), (0, 200, 0)])
NOTHING = {"photometric": False, "expand": False, "crop": False, "flip": False}
QUARTERS = [0, 0.25, 0.5, 0.75, 1]
NOISE = noise(60, 80)
NO_BOXES = np.zeros((0, 4), dtype=np.float32)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Three rectangles of different colours, on the colour that the canvas has too."""
    boxes_px = np.array([[40, 30, 180, 290], [200, 200, 460, 350], [250, 20, 370, 160]])
    image = np.full((375, 500, 3), MEAN, dtype=np.uint8)
    for (left, top, right, bottom), colour in zip(boxes_px, COLOURS, strict=True):
        image[top:bottom, left:right] = colour
    return image, (boxes_px / [500, 375, 500, 375]).astype(np.float32)


def boxes_in_pixels(image: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Find the rectangle of a colour again, xyxy in pixels."""
    towards = (colour - np.array(MEAN)).astype(float)
    share = (image.astype(float) - MEAN) @ towards / (towards @ towards)
    others = [np.abs(image.astype(float) - other).sum(-1) for other in COLOURS]
    mine = np.abs(image.astype(float) - colour).sum(-1)
    rows, columns = np.nonzero((share > 0.5) & (mine <= np.min(others, axis=0)))
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_boxes_follow_the_pixels(resize):
    image, boxes = scene()
    augment = SSDAugmentation(image_size=(120, 150), photometric=False, vertical_flip=True, resize=resize)
    found = 0
    for seed in range(25):  # crops lose about half of the 3 boxes
        result, new_boxes, kept = augment(image, boxes, seed)
        assert (result.shape, result.dtype) == ((120, 150, 3), np.uint8)
        assert (new_boxes.dtype, kept.dtype) == (np.float32, np.int64)
        for box, index in zip(new_boxes, kept, strict=True):
            in_pixels = boxes_in_pixels(result, COLOURS[index])
            np.testing.assert_allclose(box * [150, 120, 150, 120], in_pixels, atol=2)
            found += 1
    assert found > 25


def test_expansion_happens_half_the_time_with_a_uniform_ratio_and_place():
    whole = np.array([[0.0, 0.0, 1.0, 1.0]], dtype=np.float32)
    # Places are rounded to whole pixels of the sample: one of 10 x 10 has only 10 ratios and places.
    augment = SSDAugmentation(image_size=(300, 300), **{**NOTHING, "expand": True})
    image = noise(400, 300)
    boxes = np.concatenate([augment(image, whole, seed)[1] for seed in range(800)])
    expanded = boxes[(boxes != whole).any(1)]
    assert 0.45 < len(expanded) / 800 < 0.55
    ratios = 1 / (expanded[:, 2] - expanded[:, 0])
    np.testing.assert_allclose(np.quantile(ratios, QUARTERS), [1, 1.75, 2.5, 3.25, 4], atol=0.25)
    place = expanded[ratios > 1.2, 0] / (1 - 1 / ratios[ratios > 1.2])
    np.testing.assert_allclose(np.quantile(place, QUARTERS), QUARTERS, atol=0.08)


def test_photometric_draws_have_the_papers_probabilities_and_ranges():
    distortion = PhotometricDistortion(brightness_delta=32, contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue_delta=18)
    random = Random(0)
    draws = [distortion.draw(random) for _ in range(2000)]
    ranges = {"brightness": (-32, 32), "contrast": (0.5, 1.5), "saturation": (0.5, 1.5), "hue": (-18, 18)}
    for name, (low, high) in ranges.items():
        values = np.array([draw[name] for draw in draws if name in draw])
        assert 0.46 < len(values) / 2000 < 0.54
        quartiles = np.linspace(low, high, 5)
        np.testing.assert_allclose(np.quantile(values, QUARTERS), quartiles, atol=(high - low) / 15)
    assert 0.46 < np.mean([draw["contrast_first"] for draw in draws]) < 0.54
    together = Counter(frozenset(draw.keys() & ranges.keys()) for draw in draws)
    assert len(together) == 16
    assert max(together.values()) < 2 * min(together.values())


def test_steps_do_not_share_their_coins():
    # The same seed in every step would expand and flip the same images.
    image, boxes = scene()
    augment = SSDAugmentation(image_size=(64, 64), photometric=False, crop=False)
    outcomes: Counter[tuple[bool, bool]] = Counter()
    for seed in range(300):
        _, new_boxes, _ = augment(image, boxes, seed)
        expanded = new_boxes[0, 3] - new_boxes[0, 1] < 0.99 * (boxes[0, 3] - boxes[0, 1])
        outcomes[bool(expanded), bool(new_boxes[0, 0] > new_boxes[1, 0])] += 1
    assert len(outcomes) == 4
    assert min(outcomes.values()) > 50


def test_crops_have_the_scale_and_aspect_that_were_asked_for():
    rows, columns = np.mgrid[:250, :250].astype(np.uint8)
    image = np.stack([columns, rows, rows], axis=-1)  # every pixel tells its place
    settings = {**NOTHING, "crop": True, "min_crop_scale": 0.6, "max_crop_aspect_ratio": 1.3}
    augment = SSDAugmentation(image_size=300, **settings)
    samples = [augment(image, NO_BOXES, seed)[0].reshape(-1, 3) for seed in range(150)]
    sides = np.array([np.ptp(sample[:, :2].astype(int), axis=0) + 1 for sample in samples])
    crops = sides[(sides < 249).all(axis=1)]
    assert len(crops) > 45
    assert np.sqrt(crops.prod(axis=1)).min() / 250 == pytest.approx(0.6, rel=0.05)
    aspects = crops[:, 0] / crops[:, 1]
    assert [aspects.min(), aspects.max()] == pytest.approx([1 / 1.3, 1.3], rel=0.1)


@pytest.mark.parametrize(
    ("rule", "allow_empty", "is_lost"), [("any", True, True), ("any", False, False), ("center", True, False)]
)
def test_a_crop_may_lose_all_objects_unless_it_is_forbidden(rule, allow_empty, is_lost):
    boxes = np.array([[0.02, 0.02, 0.2, 0.25]], dtype=np.float32)
    augment = SSDAugmentation(image_size=(32, 32), crop_rule=rule, allow_empty_crop=allow_empty)
    lost = sum(len(augment(NOISE, boxes, seed)[1]) == 0 for seed in range(200))
    assert lost > 10 if is_lost else lost == 0


def test_images_without_objects_are_augmented_too():
    augment = SSDAugmentation(image_size=(32, 48))
    images = []
    for seed in range(50):
        result, boxes, kept = augment(NOISE, NO_BOXES, seed)
        assert (result.shape, boxes.shape, boxes.dtype) == ((32, 48, 3), (0, 4), np.float32)
        assert (kept.shape, kept.dtype) == ((0,), np.int64)
        images.append(result.tobytes())
    # A crop may show nothing but canvas; nothing asks it for an object.
    beside = images.count(np.full((32, 48, 3), MEAN, np.uint8).tobytes())
    assert beside < 8
    assert len(set(images)) >= 50 - beside


def test_what_survives_is_a_valid_box():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 1, (60, 2))
    sides = 10 ** rng.uniform(-6, 0, (60, 2))  # from a thousandth of a pixel to the whole image
    boxes = np.hstack([corners, np.minimum(corners + sides, 1)]).astype(np.float32)
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
    augment = SSDAugmentation(image_size=(64, 64), photometric=False)
    thin = 0
    for seed in range(30):
        _, new_boxes, kept = augment(NOISE, boxes, seed)
        assert (new_boxes[:, 2:] - new_boxes[:, :2] > 0.99 * MIN_SIDE).all()
        assert new_boxes.min(initial=1) >= 0
        assert new_boxes.max(initial=0) <= 1
        assert (np.diff(kept) > 0).all()
        thin += len(kept) < len(boxes)
    assert thin == 30


def test_warp_takes_one_of_opencvs_five_interpolations():
    image = NOISE
    augment = SSDAugmentation(image_size=(33, 47), **NOTHING)
    images = Counter(augment(image, NO_BOXES, seed)[0].tobytes() for seed in range(500))
    how = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_LANCZOS4)
    expected = {cv2.resize(image, (47, 33), interpolation=each).tobytes() for each in how}
    assert images.keys() == expected
    assert min(images.values()) > 70


def test_the_seed_decides_whatever_came_before_and_inputs_are_left_alone():
    (image, boxes), size = scene(), (375, 500)
    augment, other = (SSDAugmentation(image_size=size, vertical_flip=True) for _ in range(2))
    first = [augment(image, boxes, seed) for seed in range(8)]
    np.random.seed(1)  # noqa: NPY002
    restored = pickle.loads(pickle.dumps(augment))
    for seed in reversed(range(8)):
        other(image, boxes, seed + 100)
        for again in (augment, other, restored):
            for expected, actual in zip(first[seed], again(image, boxes, seed), strict=True):
                np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(image, scene()[0])
    np.testing.assert_array_equal(boxes, scene()[1])


@pytest.mark.parametrize(
    "setting",
    [
        *({"image_size": size} for size in ((300,), (0, 300), (300.5, 300), None, True, float("inf"), "300")),
        *({flag: "off"} for flag in ("photometric", "expand", "crop", "flip", "vertical_flip", "allow_empty_crop")),
        {"flip": 2},
        {"brightness_delta": -1},
        *({"contrast": ends} for ends in ((1.5, 0.5), None, (0.5, "x"), (None, 1), (0.5, float("inf")))),
        {"saturation": (-0.5, 1.5)},
        {"hue_delta": 200},
        {"max_expand_ratio": 0.5},
        *({"fill": fill} for fill in ((123, 117), (123, 117, 300), None)),
        {"crop_rule": "most"},
        *({"min_ious": ious} for ious in ((0.5, 1.5), None, ("x",))),
        {"min_crop_scale": 0},
        {"max_crop_aspect_ratio": 0.5},
        {"crop_trials": 0},
    ],
    ids=str,
)
def test_settings_out_of_range_are_named_with_their_value(setting):
    ((name, value),) = setting.items()
    with pytest.raises(ConfigurationError) as caught:
        SSDAugmentation(**{"image_size": (300, 300), **setting})
    assert name in str(caught.value)
    assert str(value) in str(caught.value)


def test_extra_transforms_follow_and_take_the_boxes_along_without_a_warning():
    image, boxes = scene()
    plain = SSDAugmentation(image_size=(64, 64), flip=False)
    with no_warnings():
        with pytest.raises(UserWarning, match="interpolatoin"):
            A.Resize(2, 2, interpolatoin=1)
        further = [A.HorizontalFlip(p=1.0), A.ToGray(p=1.0)]
        mirrored = SSDAugmentation(image_size=(64, 64), flip=False, extra_transforms=further)
        for seed in range(20):
            expected, expected_boxes, expected_kept = plain(image, boxes, seed)
            result, new_boxes, kept = mirrored(image, boxes, seed)
            np.testing.assert_array_equal(kept, expected_kept)
            np.testing.assert_allclose(new_boxes[:, [0, 2]], 1 - expected_boxes[:, [2, 0]], atol=1e-6)
            np.testing.assert_array_equal(result, A.ToGray(p=1.0)(image=expected[:, ::-1])["image"])
        SSDAugmentation(image_size=(64, 64), extra_transforms=[A.ToGray(p=1.0)])(image, boxes, 0)


def test_extra_transforms_leave_valid_boxes_and_draw_again_for_every_seed():
    image, boxes = scene()
    shift = A.Affine(translate_percent=(-0.6, 0.6), p=1.0)
    augment, again = (SSDAugmentation(**NOTHING, image_size=64, extra_transforms=[shift]) for _ in range(2))
    lost, images = 0, set()
    for seed in range(40):
        result, new_boxes, kept = augment(image, boxes, seed)
        assert ((new_boxes >= 0) & (new_boxes <= 1)).all()
        assert (new_boxes[:, 2:] > new_boxes[:, :2]).all()
        lost += len(kept) < 3
        images.add(result.tobytes())
        np.testing.assert_array_equal(result, again(image, boxes, seed)[0])
    assert lost > 5
    assert len(images) == 40
    assert augment(image, NO_BOXES, 0)[1].shape == (0, 4)


class TransposedToTensor(A.ImageOnlyTransform):
    def apply(self, img: np.ndarray, **_: object) -> torch.Tensor:
        return torch.from_numpy(img).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("transform", "given"),
    [
        (A.ToFloat(p=1.0), r"\(ToFloat\) gives an image of float32 \[32, 48, 3\]"),
        (A.RandomCrop(8, 9, p=1.0), r"\(RandomCrop\) gives an image of uint8 \[8, 9, 3\]"),
        (TransposedToTensor(p=1.0), r"\(TransposedToTensor\) gives an image of torch.uint8 \[3, 32, 48\]"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_extra_transforms_that_change_type_or_size_are_refused(transform, given):
    augment = SSDAugmentation(image_size=(32, 48), extra_transforms=[transform])
    with pytest.raises(ConfigurationError, match=r"augmentation\.extra_transforms " + given):
        augment(*scene(), 0)


def test_an_image_of_another_type_is_refused():
    with pytest.raises(ValueError, match=r"an image is uint8 \[H, W, 3\], not "):
        SSDAugmentation(image_size=32)(NOISE / 255, NO_BOXES, 0)


@pytest.mark.parametrize(("given", "named"), [("abc", "'abc'"), ([A.ToGray(), 3], "3"), ([A.ToGray], "ToGray")])
def test_extra_transforms_is_a_list(given, named):
    with pytest.raises(ConfigurationError, match=rf"augmentation\.extra_transforms has .*{named}.*; it is a list"):
        SSDAugmentation(image_size=(32, 48), extra_transforms=given)


def test_the_command_line_makes_extra_transforms():
    grey = "augmentation.extra_transforms=[{_target_:albumentations.ToGray,p:1.0}]"
    augment = instantiate(compose_config("train", [grey]).augmentation, _convert_="all")
    image, *_ = augment(NOISE, NO_BOXES, 0)
    assert (image == image[..., :1]).all()


def test_the_smallest_crop_of_a_reduced_image_has_the_inputs_pixels():
    settings = inspect.signature(SSDAugmentation).parameters
    scale, aspect_ratio = (settings[name].default for name in ("min_crop_scale", "max_crop_aspect_ratio"))
    assert REDUCED_TO * scale / aspect_ratio**0.5 >= 1


@pytest.mark.slow
def test_the_import_does_not_ask_the_network():
    program = """
import socket
def refuse(*args, **kwargs):
    raise SystemExit("the network was asked")
socket.socket.connect = socket.getaddrinfo = refuse
import ssd_lightning.data.augmentation
"""
    environment = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", program], env=environment, check=True)
