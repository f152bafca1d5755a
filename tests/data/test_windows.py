import numpy as np
import pytest

from helpers.slow_augmentation import meets
from ssd_lightning.data.windows import CropRule, RandomIoUCrop, centres_inside, normalise_windows, sample_windows

NO_BOXES = np.zeros((0, 4))


def draw(seed: int, count: int, size_px: tuple[int, int] = (3000, 4000)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return sample_windows(rng, count, size_px, scale=(0.3, 1.0), aspect_ratio=(0.5, 2.0))


def satisfying_windows(
    windows: np.ndarray, boxes: np.ndarray, min_ious: tuple[float, ...], rule: CropRule, allow_empty: bool
) -> np.ndarray:
    """Ask for a row of windows a condition, and for a last row without: bool `[R + 1, T]`."""
    ours = RandomIoUCrop(min_ious, rule, scale=(0.3, 1.0), aspect_ratio=(0.5, 2.0), trials=1, allow_empty=allow_empty)
    rows = zip(windows, (*min_ious, None), strict=True)
    return np.stack([ours.fits(row, boxes, min_iou=min_iou) for row, min_iou in rows])


def test_centres_on_the_edge_are_inside():
    windows = np.array([[0.0, 0.0, 0.5, 1.0], [0.4, 0.0, 1.0, 1.0]])
    boxes = np.array([[0.4, 0.0, 0.6, 0.2], [0.0, 0.0, 0.2, 0.2], [0.5, 0.5, 0.6, 0.6], [0.3, 0.0, 0.5, 0.2]])
    assert centres_inside(boxes, windows).tolist() == [[True, True, False, True], [True, False, True, True]]
    assert centres_inside(NO_BOXES, windows).shape == (2, 0)


def test_crops_lie_within_the_image_and_have_the_stated_distribution():
    windows = normalise_windows(draw(0, 20_000), (3000, 4000))
    widths, heights = (windows[:, 2:] - windows[:, :2]).T
    assert windows.min() >= 0
    assert windows.max() <= 1
    scales = np.sqrt(widths * heights)
    np.testing.assert_allclose(np.quantile(scales, [0, 0.25, 0.5, 0.75, 1]), [0.3, 0.475, 0.65, 0.825, 1], atol=0.01)
    aspects = widths / heights
    assert [aspects.min(), aspects.max()] == pytest.approx([0.5, 2.0], rel=0.01)
    small = scales < 0.5  # both sides fit for every aspect ratio, so that it is uniform
    np.testing.assert_allclose(np.quantile(aspects[small], [0.25, 0.5, 0.75]), [0.875, 1.25, 1.625], atol=0.04)
    for offset, side in ((windows[:, 0], widths), (windows[:, 1], heights)):
        fits_loosely = side < 0.9
        place = offset[fits_loosely] / (1 - side[fits_loosely])
        np.testing.assert_allclose(np.quantile(place, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.02)


@pytest.mark.parametrize("size_px", [(1, 1), (2, 1), (3, 5)])
def test_crops_of_tiny_images_have_pixels(size_px):
    height, width = size_px
    low, high = np.split(draw(3, 500, size_px), 2, axis=1)
    assert ((low >= 0) & (low < high) & (high <= [width, height])).all()


@pytest.mark.parametrize("rule", ["any", "all", "center"])
@pytest.mark.parametrize("allow_empty", [True, False])
def test_conditions_hold_by_a_slow_loop(rule, allow_empty):
    min_ious = (0.1, 0.3, 0.5)
    boxes = np.array([[0.1, 0.1, 0.5, 0.6], [0.3, 0.2, 0.9, 0.8]])
    windows = normalise_windows(draw(5, 4 * 60), (3000, 4000)).reshape(4, 60, 4)
    result = satisfying_windows(windows, boxes, min_ious, rule, allow_empty)
    for row, trial in np.ndindex(4, 60):
        expected = meets(windows[row, trial], boxes, (*min_ious, None)[row], rule, allow_empty)
        assert result[row, trial] == expected
    assert 0 < result[:3].sum() < 180


@pytest.mark.parametrize("rule", ["any", "all", "center"])
@pytest.mark.parametrize("allow_empty", [True, False])
def test_without_boxes_only_the_crop_without_a_condition_remains(rule, allow_empty):
    result = satisfying_windows(draw(6, 6).reshape(3, 2, 4) / 4000, NO_BOXES, (0.1, 0.9), rule, allow_empty)
    assert result.tolist() == [[False, False], [False, False], [True, True]]
