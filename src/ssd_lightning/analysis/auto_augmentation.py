"""`auto_augmentation=true`: how far expansion and crops may scale, from the sizes of a run's own training boxes."""

from typing import NamedTuple

import numpy as np

from ssd_lightning.analysis.objects import sides_px

LEAST_PX = 32.0
"""Side that expansion leaves the median object in the input: that of the smallest prior on a map of stride 8."""
LARGEST_SHARE = 0.5
"""Of the input's shorter side that the median object may fill after a crop."""
LEAST_EXPANSION = 1.2
"""A smaller one is not worth its time."""


class ScaleBounds(NamedTuple):
    """How far an augmentation may scale."""

    max_expand_ratio: float
    """1: no expansion."""
    min_crop_scale: float | None
    """None: no crops."""
    median_px: float
    """Root of the area of the median training box, in pixels of the input."""

    def describe(self) -> str:
        """Say in one line what was chosen, and why."""
        expansion = f"expansion up to {self.max_expand_ratio:g}" if self.max_expand_ratio > 1 else "no expansion"
        crops = f", and crops of at least {self.min_crop_scale:g} of the image's sides" if self.min_crop_scale else ""
        size = f"the median training box has {self.median_px:.0f} px in the input"
        return f"auto_augmentation: {size}, so {expansion}{crops}"


def choose_scale_bounds(
    boxes_xyxy: np.ndarray, image_size: tuple[int, int], *, max_expand_ratio: float, min_crop_scale: float | None
) -> ScaleBounds:
    """Bound expansion and crops so that the median object neither vanishes nor outgrows the input.

    Args:
        boxes_xyxy: `[N, 4]`, normalised, with areas; of the training split. Without boxes the given bounds stay.
        image_size: of the network's input, (height, width).
        max_expand_ratio: largest side of the canvas, relative to the image's, that may be chosen.
        min_crop_scale: least side of a crop, relative to the image's, that may be chosen; None for no crops.
    """
    if not len(boxes_xyxy):
        return ScaleBounds(max_expand_ratio, min_crop_scale, float("nan"))
    median_px = float(np.median(np.sqrt(sides_px(boxes_xyxy, image_size).prod(axis=1))))
    expansion = min(median_px / LEAST_PX, max_expand_ratio)
    if min_crop_scale is not None:
        min_crop_scale = round(min(max(median_px / (LARGEST_SHARE * min(image_size)), min_crop_scale), 1.0), 2)
    return ScaleBounds(round(expansion, 2) if expansion >= LEAST_EXPANSION else 1.0, min_crop_scale, median_px)
