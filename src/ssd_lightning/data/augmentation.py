"""The augmentation of the SSD paper (sections 2.2 and 3.6) in the order of the Caffe code."""

import os
from collections.abc import Sequence
from copy import copy
from random import Random
from typing import Any, NamedTuple, get_args

import cv2
import numpy as np

from ssd_lightning.checks import require_choice, require_number
from ssd_lightning.data.colour import PhotometricDistortion, distort_colours
from ssd_lightning.data.random_iou_crop import CropRule, RandomIoUCrop
from ssd_lightning.data.resize import as_resize_mode, boxes_into_input, checked_size
from ssd_lightning.data.windows import (
    Window,
    boxes_in_view,
    centres_inside,
    normalise_windows,
    random_zoom_out,
    view_through,
)
from ssd_lightning.errors import ConfigurationError

# Otherwise the import of albumentations, also by the configuration of `extra_transforms`, checks online for updates.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

INTERPOLATIONS = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_LANCZOS4)
EXPANSION_PROBABILITY = 0.5
FLIP_PROBABILITY = 0.5
MIN_SIDE = 1e-4
"""Boxes with a side below this fraction of the image (.03 of 300 pixels) are dropped: too thin for useful offsets."""


class Drawn(NamedTuple):
    """The random parameters of one sample."""

    changes: dict[str, Any] | None
    """Arguments of `distort_colours`."""
    window_px: Window
    """The visible window, in pixels of the image."""
    interpolation: int


class SSDAugmentation:
    """Photometric distortion, expansion (p .5), crop, warp with one of five interpolations, flip (p .5).

    The mean is not subtracted here; the network's preprocessing does it.

    Args:
        image_size: output size in pixels, (height, width) or one number.
        photometric: distort colours (`PhotometricDistortion`).
        expand: make objects smaller, on a larger canvas (`random_zoom_out`).
        crop: make objects larger (`RandomIoUCrop`).
        flip: mirror left and right.
        vertical_flip: mirror top and bottom, for images that have no top, such as microscope images.
        brightness_delta: largest shift of the brightness, in grey levels.
        contrast: range of the factor (low, high).
        saturation: range of the factor (low, high).
        hue_delta: largest shift of the hue, in OpenCV's units of 2 degrees.
        max_expand_ratio: largest side of the canvas, relative to the image.
        fill: RGB colour of the canvas.
        crop_rule: with which boxes a crop must reach the minimum IoU: `any` (at least one, as in the paper), `all`
            (mmdet, gluon) or `center` (at least one of those with their centre in the crop, as in torchvision).
        min_ious: minimum IoUs. Each sample uses one of them, or no condition, or the whole image.
        min_crop_scale: smallest square root of a crop's relative area.
        max_crop_aspect_ratio: largest aspect ratio of a crop, relative to the image; the smallest is 1 / this.
        crop_trials: number of crops drawn for each condition.
        allow_empty_crop: accept crops without the centre of any object. With `crop_rule` `center` it has no effect.
        resize: how the sample is resized to the input: `stretch` (as in the paper), `letterbox` or a `ResizeMode`.
        extra_transforms: albumentations transforms that are added at the end, e.g. `A.ToGray(p=0.1)`. They also move
            the boxes. Images must stay uint8 and of `image_size`.

    Raises:
        ConfigurationError: a setting is out of its range, or `extra_transforms` is not a list of transforms.
    """

    def __init__(
        self,
        *,
        image_size: int | Sequence[int],
        photometric: bool = True,
        expand: bool = True,
        crop: bool = True,
        flip: bool = True,
        vertical_flip: bool = False,
        brightness_delta: float = 32,
        contrast: tuple[float, float] = (0.5, 1.5),
        saturation: tuple[float, float] = (0.5, 1.5),
        hue_delta: float = 18,
        max_expand_ratio: float = 4.0,
        fill: tuple[int, int, int] = (123, 117, 104),
        crop_rule: CropRule = "any",
        min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
        min_crop_scale: float = 0.3,
        max_crop_aspect_ratio: float = 2.0,
        crop_trials: int = 50,
        allow_empty_crop: bool = True,
        resize: Any = "stretch",
        extra_transforms: Sequence[Any] | None = (),
    ) -> None:
        require_number("augmentation.brightness_delta", brightness_delta, 0, 255)
        for name, ends in (("contrast", contrast), ("saturation", saturation)):
            if len(ends) != 2 or not 0 <= ends[0] <= ends[1]:
                raise ConfigurationError(f"augmentation.{name} is {ends}; it must be a range of factors (low, high)")
        require_number("augmentation.hue_delta", hue_delta, 0, 90)
        require_number("augmentation.max_expand_ratio", max_expand_ratio, 1)
        if len(fill) != 3 or not 0 <= min(fill) <= max(fill) <= 255:
            raise ConfigurationError(f"augmentation.fill is {fill}; it must be an RGB colour, three numbers in 0..255")
        require_choice("augmentation.crop_rule", crop_rule, get_args(CropRule))
        if not all(0 < iou <= 1 for iou in min_ious):
            raise ConfigurationError(f"augmentation.min_ious is {min_ious}; all must be above 0 and at most 1")
        require_number("augmentation.min_crop_scale", min_crop_scale, 0, 1, above_low=True)
        require_number("augmentation.max_crop_aspect_ratio", max_crop_aspect_ratio, 1)
        require_number("augmentation.crop_trials", crop_trials, 1, whole=True)
        distortion = PhotometricDistortion(
            brightness_delta=brightness_delta, contrast=contrast, saturation=saturation, hue_delta=hue_delta
        )
        search = RandomIoUCrop(
            min_ious=tuple(min_ious),
            rule=crop_rule,
            scale=(min_crop_scale, 1.0),
            aspect_ratio=(1 / max_crop_aspect_ratio, max_crop_aspect_ratio),
            trials=crop_trials,
            allow_empty=allow_empty_crop,
        )
        self._image_size = checked_size(image_size)
        self._distortion = distortion if photometric else None
        self._max_expand_ratio = max_expand_ratio if expand else None
        self._fill = tuple(fill)
        self._crop = search if crop else None
        self._resize = as_resize_mode(resize)
        self._flips = [*[(1, [0, 2])] * flip, *[(0, [1, 3])] * vertical_flip]  # OpenCV's code, and the coordinates
        self._extra = None
        if extra_transforms:
            from ssd_lightning.data.extra_transforms import ExtraTransforms

            self._extra = ExtraTransforms(extra_transforms)

    def at_size(self, image_size: tuple[int, int]) -> "SSDAugmentation":
        """Return the same augmentation for another output size (height, width)."""
        other = copy(self)
        other._image_size = image_size
        return other

    def __call__(
        self, image: np.ndarray, boxes_xyxy: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Augment one sample, see `Transform`. Boxes with a side below `MIN_SIDE` are dropped."""
        # All steps share these streams. If each had the same seed, expansion and flips would be correlated.
        rng, random = np.random.default_rng(seed), Random(seed)  # noqa: S311
        boxes = boxes_xyxy.astype(np.float64)
        drawn = self.draw(random, rng, boxes, (image.shape[0], image.shape[1]))
        image, boxes, kept = self.apply(image, boxes, drawn)
        for code, ends in self._flips:
            if random.random() < FLIP_PROBABILITY:
                image = cv2.flip(image, code)
                boxes[:, ends] = 1 - boxes[:, ends[::-1]]
        # Padded after the flips, so that the image is in the same corner as in evaluation.
        placement = self._resize.placement((image.shape[0], image.shape[1]), self._image_size)
        image, boxes = self._resize.pad(image, self._image_size), boxes_into_input(boxes, placement)
        if self._extra is not None:
            image, indexed = self._extra(image, np.column_stack([boxes, kept]), rng, random)
            boxes, kept = indexed[:, :4], indexed[:, 4]
        large = (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(axis=1)
        return image, boxes[large].astype(np.float32), kept[large].astype(np.int64)

    def draw(self, random: Random, rng: np.random.Generator, boxes: np.ndarray, size_px: tuple[int, int]) -> Drawn:
        """Draw the parameters for an image of (height, width) with boxes `[N, 4]`, in the order of the paper."""
        changes = None if self._distortion is None else self._distortion.draw(random)
        window_px = (0, 0, size_px[1], size_px[0])
        if self._max_expand_ratio is not None and random.random() < EXPANSION_PROBABILITY:
            window_px = random_zoom_out(random, size_px, self._max_expand_ratio)
        if self._crop is not None:
            window_px = self._crop.choose(random, rng, boxes, window_px, size_px)
        return Drawn(changes, window_px, random.choice(INTERPOLATIONS))

    def apply(self, image: np.ndarray, boxes: np.ndarray, drawn: Drawn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Build a sample from the original image, uint8 `[H, W, 3]` RGB, and its boxes `[N, 4]`, normalised xyxy.

        Returns:
            The new image, the boxes whose centre is visible, and their indices.
        """
        size_px = (image.shape[0], image.shape[1])
        left, top, right, bottom = drawn.window_px
        shown_size = self._resize.fitted_size((bottom - top, right - left), self._image_size)
        view = view_through(drawn.window_px, size_px, shown_size)
        kept = np.flatnonzero(centres_inside(boxes, normalise_windows(np.array(drawn.window_px), size_px)))
        boxes = boxes_in_view(boxes[kept], view, size_px, shown_size)
        left, top, right, bottom = view.part_px
        part = image[top:bottom, left:right]
        if part.size == 0:
            return np.full((*shown_size, 3), self._fill, dtype=np.uint8), boxes, kept
        left, top, right, bottom = view.place_px
        shown = (right - left, bottom - top)
        # The paper distorts colours first. After the warp, the result differs only by rounding. So this is done where
        # there are fewer pixels.
        first = part.shape[0] * part.shape[1] <= shown[0] * shown[1]
        if drawn.changes is not None and first:
            part = distort_colours(part, **drawn.changes)
        part = cv2.resize(part, shown, interpolation=drawn.interpolation)
        if drawn.changes is not None and not first:
            part = distort_colours(part, **drawn.changes)
        borders = (top, shown_size[0] - bottom, left, shown_size[1] - right)
        if any(borders):
            part = cv2.copyMakeBorder(part, *borders, cv2.BORDER_CONSTANT, value=self._fill)
        return part, boxes, kept
