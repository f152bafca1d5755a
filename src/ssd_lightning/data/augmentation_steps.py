"""The steps of SSD's augmentation as albumentations transforms: the only module that knows this library."""

import os
from collections.abc import Sequence
from typing import Any, TypeAlias

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else the import asks the network for a newer version

import albumentations as A
import cv2
import numpy as np

from ssd_lightning.data.colour import distort_colours
from ssd_lightning.data.geometry import (
    CropRule,
    boxes_in_window,
    centres_inside,
    normalise_windows,
    sample_windows,
    satisfying_windows,
)

Step: TypeAlias = A.BasicTransform | A.OneOf


class PhotometricDistortion(A.ImageOnlyTransform):
    """Change brightness, contrast, saturation and hue, each with probability .5.

    Args:
        brightness_delta: largest shift, in grey levels.
        contrast: range of the factor.
        saturation: range of the factor.
        hue_delta: largest shift, in OpenCV's units of 2 degrees.
    """

    def __init__(
        self,
        *,
        brightness_delta: float,
        contrast: tuple[float, float],
        saturation: tuple[float, float],
        hue_delta: float,
    ) -> None:
        super().__init__(p=1.0)
        self.ranges = {
            "brightness": (-brightness_delta, brightness_delta),
            "contrast": contrast,
            "saturation": saturation,
            "hue": (-hue_delta, hue_delta),
        }

    def get_params(self) -> dict[str, Any]:
        """Draw the arguments of `distort_colours`."""
        changes = {name: self.py_random.uniform(*ends) for name, ends in self.ranges.items() if self._coin()}
        return {"changes": {**changes, "contrast_first": self._coin()}}

    def apply(self, img: np.ndarray, changes: dict[str, Any], **params: Any) -> np.ndarray:
        """Distort the picture, uint8 `[H, W, 3]` RGB."""
        return distort_colours(img, **changes)

    def _coin(self) -> bool:
        return self.py_random.random() < 0.5


class ExpandWithMean(A.DualTransform):
    """Place the picture at random on a larger canvas of one colour: smaller objects (section 3.6).

    Args:
        max_ratio: the canvas has U(1, max_ratio) times the sides of the picture.
        fill: RGB colour of the canvas. The network's preprocessing subtracts it, and so sees zeros there.
        p: probability of the expansion.
    """

    def __init__(self, *, max_ratio: float, fill: tuple[int, int, int], p: float = 0.5) -> None:
        super().__init__(p=p)
        self.max_ratio = max_ratio
        self.fill = tuple(fill)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the borders (top, bottom, left, right) in pixels."""
        height, width = params["shape"][:2]
        ratio = self.py_random.uniform(1.0, self.max_ratio)
        more_height, more_width = int(height * (ratio - 1)), int(width * (ratio - 1))
        top, left = self.py_random.randint(0, more_height), self.py_random.randint(0, more_width)
        return {"borders_px": (top, more_height - top, left, more_width - left)}

    def apply(self, img: np.ndarray, borders_px: tuple[int, int, int, int], **params: Any) -> np.ndarray:
        """Paint the canvas around the picture `[H, W, 3]`."""
        return cv2.copyMakeBorder(img, *borders_px, cv2.BORDER_CONSTANT, value=self.fill)

    def apply_to_bboxes(self, bboxes: np.ndarray, borders_px: tuple[int, int, int, int], **params: Any) -> np.ndarray:
        """Shrink the boxes, columns 0..3 of `[N, 4 + ...]`, with the picture."""
        top, bottom, left, right = borders_px
        height, width = params["shape"][:2]
        canvas_px = np.array([-left, -top, width + right, height + bottom])
        canvas = normalise_windows(canvas_px, (height, width))
        return np.hstack([boxes_in_window(bboxes[:, :4], canvas), bboxes[:, 4:]])


class MinIoUCrop(A.DualTransform):
    """Cut out a part of the picture that shows an object well enough (section 2.2, Caffe's batch sampler).

    For each value of `min_ious`, and once without a condition, crops are drawn until one overlaps at least
    one box by that IoU, `trials` times at most; then one is chosen at random among those found and the whole
    picture. Boxes with their centre in the crop stay, and are clipped to it.

    A crop may overlap a box and yet hold no centre, and the one without a condition may miss all objects.
    Such a sample has no boxes, which is legal, as in Caffe; `allow_empty=False` asks for a centre as well.
    Pictures without objects have two candidates, the whole and the crop without a condition.

    Args:
        min_ious: the conditions.
        rule: `any` asks the IoU of at least one box, as the paper does; `all` of every box, as some ports do;
            `center` of at least one of those with their centre in the crop, as torchvision does.
        scale: range of the square root of a crop's relative area.
        aspect_ratio: range of width over height, relative to those of the picture.
        trials: crops drawn for each condition.
        allow_empty: accept crops in which no object has its centre; `center` never does.
    """

    def __init__(
        self,
        *,
        min_ious: Sequence[float],
        rule: CropRule,
        scale: tuple[float, float],
        aspect_ratio: tuple[float, float],
        trials: int,
        allow_empty: bool,
    ) -> None:
        super().__init__(p=1.0)
        self.min_ious = tuple(min_ious)
        self.rule = rule
        self.scale = scale
        self.aspect_ratio = aspect_ratio
        self.trials = trials
        self.allow_empty = allow_empty

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Choose the window."""
        height, width = params["shape"][:2]
        whole_px = np.array([0, 0, width, height])
        candidates_px = [whole_px, *self.find_crops(data["bboxes"][:, :4], (height, width))]
        window_px = self.py_random.choice(candidates_px)
        return {"window_px": window_px, "window": normalise_windows(window_px, (height, width))}

    def find_crops(self, boxes: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
        """Draw crops: int64 `[F, 4]` xyxy in pixels, one for every condition that a trial satisfied."""
        drawn_px = sample_windows(
            self.random_generator,
            (len(self.min_ious) + 1, self.trials),
            size_px,
            scale=self.scale,
            aspect_ratio=self.aspect_ratio,
        )
        fits = satisfying_windows(
            normalise_windows(drawn_px, size_px),
            boxes,
            min_ious=self.min_ious,
            rule=self.rule,
            allow_empty=self.allow_empty,
        )
        first_fit = fits.argmax(axis=1)
        return drawn_px[np.arange(len(first_fit)), first_fit][fits.any(axis=1)]

    def apply(self, img: np.ndarray, window_px: np.ndarray, **params: Any) -> np.ndarray:
        """Cut the window out of the picture `[H, W, 3]`."""
        left, top, right, bottom = window_px
        return img[top:bottom, left:right]

    def apply_to_bboxes(self, bboxes: np.ndarray, window: np.ndarray, **params: Any) -> np.ndarray:
        """Keep boxes, columns 0..3 of `[N, 4 + ...]`, by their centres and clip them."""
        kept = bboxes[centres_inside(bboxes[:, :4], window)]
        return np.hstack([boxes_in_window(kept[:, :4], window).clip(0, 1), kept[:, 4:]])


def random_warp(image_size: tuple[int, int]) -> Step:
    """Resize to (height, width) with one of OpenCV's five interpolations."""
    height, width = image_size
    how = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_LANCZOS4)
    return A.OneOf([A.Resize(height, width, interpolation=interpolation) for interpolation in how], p=1.0)


def random_flips(*, horizontal: bool, vertical: bool) -> list[Step]:
    """Mirror along the chosen axes, each with probability .5."""
    return [A.HorizontalFlip(p=0.5)] * horizontal + [A.VerticalFlip(p=0.5)] * vertical


def compose(steps: Sequence[Step]) -> A.Compose:
    """Chain steps over `image` and `bboxes` `[N, 4 + ...]`, normalised xyxy and columns that travel along."""
    # The data set checks boxes and the crop drops them; the library's filter shall not act between the steps.
    return A.Compose(list(steps), bbox_params=A.BboxParams("albumentations", check_each_transform=False))
