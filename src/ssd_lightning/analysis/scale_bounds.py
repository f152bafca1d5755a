"""`auto_augmentation=true`: limits of expansion and crops, from the sizes of the training boxes."""

from typing import NamedTuple

import numpy as np

from ssd_lightning.analysis.objects import median_side_px

LEAST_PX = 32.0
"""Smallest side of the median object in the input after expansion: the smallest prior on a map of stride 8."""
LARGEST_SHARE = 0.5
"""Fraction of the input's shorter side that the median object may fill after a crop."""
LEAST_EXPANSION = 1.2
"""A smaller expansion is not worth its time."""


class ScaleBounds(NamedTuple):
    """Limits of the scale of an augmentation."""

    max_expand_ratio: float
    """1 means no expansion."""
    min_crop_scale: float | None
    """None means no crops."""
    median_px: float
    """See `median_side_px`."""

    def describe(self) -> str:
        """Describe the choice and its reason in one line."""
        expansion = f"expansion up to {self.max_expand_ratio:g}" if self.max_expand_ratio > 1 else "no expansion"
        crops = f", and crops of at least {self.min_crop_scale:g} of the image's sides" if self.min_crop_scale else ""
        size = f"the median training box has {self.median_px:.0f} px in the input"
        return f"auto_augmentation: {size}, so {expansion}{crops}"


def choose_scale_bounds(
    boxes_xyxy: np.ndarray, image_size: tuple[int, int], *, max_expand_ratio: float, min_crop_scale: float | None
) -> ScaleBounds:
    """Limit expansion and crops so that the median object becomes neither too small nor larger than the input.

    Boxes `[N, 4]` are normalised and have areas; without any, the given limits are kept. `max_expand_ratio` limits the
    side of the canvas relative to the image from above, `min_crop_scale` that of a crop from below; None for no crops.
    """
    median_px = median_side_px(boxes_xyxy, image_size)
    if not len(boxes_xyxy):
        return ScaleBounds(max_expand_ratio, min_crop_scale, median_px)
    expansion = min(median_px / LEAST_PX, max_expand_ratio)
    if min_crop_scale is not None:
        min_crop_scale = round(min(max(median_px / (LARGEST_SHARE * min(image_size)), min_crop_scale), 1.0), 2)
    return ScaleBounds(round(expansion, 2) if expansion >= LEAST_EXPANSION else 1.0, min_crop_scale, median_px)
