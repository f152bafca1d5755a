"""The augmentation in one go against the same draws, step by step."""

from random import Random

import numpy as np
import pytest

from helpers.pixels import soft_noise
from helpers.slow_augmentation import choose_window, step_by_step
from ssd_lightning.data.augmentation_steps import DistortExpandCropWarp
from ssd_lightning.data.colour import PhotometricDistortion
from ssd_lightning.data.resize import Stretch
from ssd_lightning.data.windows import RandomIoUCrop, boxes_in_view, sample_windows, view_through, window_iou

MEAN = (123, 117, 104)
PAPER = PhotometricDistortion(brightness_delta=32, contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue_delta=18)
BOXES = np.array([[0.053, 0.107, 0.351, 0.803], [0.4, 0.501, 0.957, 0.953], [0.503, 0.057, 0.751, 0.401]])


def random_iou_crop(**settings) -> RandomIoUCrop:
    defaults = {
        "min_ious": (0.1, 0.3, 0.5, 0.7, 0.9),
        "rule": "any",
        "scale": (0.3, 1.0),
        "aspect_ratio": (0.5, 2.0),
        "trials": 50,
        "allow_empty": True,
    }
    return RandomIoUCrop(**{**defaults, **settings})


@pytest.mark.parametrize("photometric", [None, PAPER], ids=["plain", "colours"])
@pytest.mark.parametrize("expansion", [None, 4.0], ids=["cropped", "expanded"])
def test_one_go_gives_what_the_steps_give(photometric, expansion):
    image, size = soft_noise(150, 200), (120, 110)
    settings = {"image_size": size, "fill": MEAN, "max_expand_ratio": expansion, "crop": random_iou_crop()}
    step = DistortExpandCropWarp(**settings, photometric=photometric, resize=Stretch())
    indexed = np.column_stack([BOXES, np.arange(3)])
    beside, lost, clipped, differences = 0, 0, 0, []
    for seed in range(80):
        step.set_random_seed(seed)
        result = step(image=image, bboxes=indexed)
        drawn = {name: step.params[name] for name in ("changes", "window_px", "interpolation")}
        expected, boxes, kept = step_by_step(image, BOXES, **drawn, image_size=size, fill=MEAN)
        # The place is rounded by half a pixel at most; what survives is the same.
        np.testing.assert_array_equal(result["bboxes"][:, 4], kept)
        lost += len(BOXES) - len(kept)
        clipped += int(np.isin(boxes, (0.0, 1.0)).any(axis=1).sum())
        shift_px = np.abs(result["bboxes"][:, :4] - boxes) * [110, 120, 110, 120]
        assert shift_px.max(initial=0) <= (0.5 + 1e-6 if expansion else 1e-4)
        left, top, right, bottom = step.params["view"].place_px
        beside += right == left
        outside = np.ones(size, dtype=bool)
        outside[top:bottom, left:right] = False
        assert (result["image"][outside] == MEAN).all()
        if photometric is None and (right - left, bottom - top) == (110, 120):
            np.testing.assert_array_equal(result["image"], expected)
        differences.append(np.abs(result["image"].astype(float) - expected).mean())
    # On a canvas the slow way's edges are smeared, and Lanczos and cubic leave rings around them.
    assert np.median(differences) < (0.6 if photometric or expansion else 1e-9)
    assert np.max(differences) < 8
    assert beside < 10
    assert min(lost, clipped) > 15


@pytest.mark.parametrize("window_px", [(-395, 0, 5, 300), (399, 299, 800, 600), (-1000, -1000, 1, 1), (0, 0, 1, 1)])
def test_a_view_is_never_thinner_than_a_pixel_and_never_beside_the_sample(window_px):
    view = view_through(window_px, (300, 400), (10, 10))
    left, top, right, bottom = view.place_px
    assert 0 <= left < right <= 10
    assert 0 <= top < bottom <= 10
    boxes = boxes_in_view(np.array([[0.0, 0.0, 1.0, 1.0]]), view, (300, 400), (10, 10))
    assert (10 * boxes).tolist() == [[left, top, right, bottom]]


@pytest.mark.parametrize("window_px", [(-50, 0, 0, 10), (400, 0, 450, 10), (0, 300, 10, 400), (0, -9, 10, 0)])
def test_a_window_beside_the_image_shows_nothing(window_px):
    view = view_through(window_px, (300, 400), (30, 40))
    assert view == ((0, 0, 0, 0), (0, 0, 0, 0))
    assert boxes_in_view(np.zeros((0, 4)), view, (300, 400), (30, 40)).shape == (0, 4)


@pytest.mark.parametrize(("rule", "allow_empty"), [("any", True), ("all", False), ("center", True)], ids=str)
def test_a_search_that_stops_early_chooses_as_one_that_goes_to_the_end(rule, allow_empty):
    size_px, trials = (150, 200), 6  # few, so that some conditions stay unmet
    search = random_iou_crop(rule=rule, allow_empty=allow_empty, trials=trials)
    random, rng, slow_rng = Random(0), np.random.default_rng(1), np.random.default_rng(2)
    whole = (0, 0, 200, 150)
    settings = {"min_ious": search.min_ious, "rule": rule, "trials": trials, "allow_empty": allow_empty}
    quick = np.array([search.choose(random, rng, BOXES, whole, size_px) for _ in range(1200)])
    boxes_px = BOXES * [200, 150, 200, 150]
    slow = np.array([choose_window(slow_rng, boxes_px, size_px, **settings) for _ in range(1200)])
    for one, other in zip((area(quick), *quick.T), (area(slow), *slow.T), strict=True):
        assert largest_gap(one, other) < 0.065
    # The measure can tell: without its conditions, the search chooses others.
    free = np.array([random_iou_crop(min_ious=()).choose(random, rng, BOXES, whole, size_px) for _ in range(1200)])
    assert largest_gap(area(free), area(slow)) > 0.1


def area(windows_px: np.ndarray) -> np.ndarray:
    return (windows_px[:, 2:] - windows_px[:, :2]).prod(1)


def largest_gap(a: np.ndarray, b: np.ndarray) -> float:
    """Give Kolmogorov's and Smirnov's distance: .066 comes by chance once in a hundred draws of 1200."""
    levels = np.union1d(a, b)
    shares = [np.searchsorted(np.sort(values), levels, side="right") / len(values) for values in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


@pytest.mark.parametrize("canvas_px", [(0, 0, 200, 150), (-150, -20, 350, 400), (0, 0, 9, 7)])
def test_no_crop_overlaps_more_than_is_within_reach(canvas_px):
    search = random_iou_crop()
    left, top, right, bottom = canvas_px
    rng = np.random.default_rng(0)
    drawn = sample_windows(rng, 20_000, (bottom - top, right - left), scale=(0.3, 1.0), aspect_ratio=(0.5, 2.0))
    windows = (drawn + np.array([left, top, left, top])) / [200, 150, 200, 150]
    closest = 0.0
    for side in (0.02, 0.1, 0.3):
        for corner in ((0.0, 0.0), (0.4, 0.3)):
            boxes = np.array([[*corner, corner[0] + side, corner[1] + side]])
            bound = search.largest_iou(boxes, canvas_px, (150, 200))
            largest = window_iou(boxes, windows).max()
            assert largest <= bound
            closest = max(closest, largest / bound)
    assert closest > 0.5
    assert search.largest_iou(np.zeros((0, 4)), canvas_px, (150, 200)) == 0


def test_a_search_on_a_canvas_reaches_beyond_the_image():
    search, canvas_px = random_iou_crop(min_ious=()), (-100, -50, 300, 250)
    random, rng = Random(0), np.random.default_rng(0)
    windows = np.array([search.choose(random, rng, BOXES, canvas_px, (150, 200)) for _ in range(300)])
    assert (*windows[:, :2].min(0), *windows[:, 2:].max(0)) == canvas_px
