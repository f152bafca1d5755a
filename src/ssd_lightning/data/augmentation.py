"""The augmentation of the SSD paper (sections 2.2 and 3.6) in the order of the Caffe code."""

import math
from collections.abc import Sequence
from copy import copy
from numbers import Real
from random import Random
from typing import Any, Self, get_args

import albumentations as A
import numpy as np

from ssd_lightning.checks import require_bool, require_choice, require_number
from ssd_lightning.data.augmentation_steps import DistortExpandCropWarp, compose
from ssd_lightning.data.colour import PhotometricDistortion, require_rgb
from ssd_lightning.data.resize import as_resize_mode, boxes_into_input
from ssd_lightning.data.windows import CropRule, RandomIoUCrop
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.ops.priors import as_height_width

MIN_SIDE = 1e-4
"""Boxes with a side below this fraction of the image (.03 of 300 pixels) are dropped: too thin for useful offsets."""


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
        ConfigurationError: a setting is out of its range, or `extra_transforms` is not a list of transforms; or, for a
            sample, they change the type or size of the image.
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
        flags = {"photometric": photometric, "expand": expand, "crop": crop, "flip": flip}
        flags |= {"vertical_flip": vertical_flip, "allow_empty_crop": allow_empty_crop}
        for name, flag in flags.items():
            require_bool(f"augmentation.{name}", flag)
        require_number("augmentation.brightness_delta", brightness_delta, 0, 255)
        for name, ends in (("contrast", contrast), ("saturation", saturation)):
            if not _are_numbers(ends) or len(ends) != 2 or not 0 <= ends[0] <= ends[1]:
                raise ConfigurationError(f"augmentation.{name} is {ends}; it must be a range of factors (low, high)")
        require_number("augmentation.hue_delta", hue_delta, 0, 90)
        require_number("augmentation.max_expand_ratio", max_expand_ratio, 1)
        if not _are_numbers(fill) or len(fill) != 3 or not 0 <= min(fill) <= max(fill) <= 255:
            raise ConfigurationError(f"augmentation.fill is {fill}; it must be an RGB colour, three numbers in 0..255")
        require_choice("augmentation.crop_rule", crop_rule, get_args(CropRule))
        if not _are_numbers(min_ious) or not all(0 < iou <= 1 for iou in min_ious):
            raise ConfigurationError(f"augmentation.min_ious is {min_ious}; all must be numbers above 0 and at most 1")
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
        self._first = DistortExpandCropWarp(
            image_size=as_height_width(image_size, "image_size"),
            photometric=distortion if photometric else None,
            max_expand_ratio=max_expand_ratio if expand else None,
            fill=(fill[0], fill[1], fill[2]),
            crop=search if crop else None,
            resize=as_resize_mode(resize),
        )
        # `A.Compose` would check the boxes before and after each step, so only the user's transforms are in one.
        self._flips = [*[A.HorizontalFlip(p=0.5)] * flip, *[A.VerticalFlip(p=0.5)] * vertical_flip]
        self._extra_transforms = compose(() if extra_transforms is None else extra_transforms)

    def at_size(self, image_size: tuple[int, int]) -> Self:
        """Return the same transform for another output size (height, width)."""
        other = copy(self)
        other._first = copy(self._first)
        other._first.image_size = image_size
        return other

    def __call__(
        self, image: np.ndarray, boxes_xyxy: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Transform one sample, see `Transform`. Boxes with a side below `MIN_SIDE` are dropped.

        Raises:
            ValueError: the image is not uint8 `[H, W, 3]`.
        """
        require_rgb(image)
        # All steps share one random generator. If each had the same seed, expansion and flips would be correlated.
        streams = np.random.default_rng(seed), Random(seed)  # noqa: S311
        sample = {
            "image": image,
            "bboxes": np.column_stack([boxes_xyxy.astype(np.float64), np.arange(len(boxes_xyxy))]),
        }
        for step in (self._first, *self._flips):
            step.set_random_state(*streams)
            sample = step(**sample)
        sample = self._fill_up(**sample)
        if self._extra_transforms is not None:
            self._extra_transforms.set_random_state(*streams)
            sample = self._extra_transforms(**sample)
            self._require_image(sample["image"], self._extra_transforms)
        boxes = sample["bboxes"].reshape(-1, 5)
        boxes = boxes[(boxes[:, 2:4] - boxes[:, :2] >= MIN_SIDE).all(axis=1)]
        return sample["image"], boxes[:, :4].astype(np.float32), boxes[:, 4].astype(np.int64)

    def _fill_up(self, image: np.ndarray, bboxes: np.ndarray) -> dict[str, Any]:
        """Pad a sample to the input size, after the flips, so that the image is in the same corner as in evaluation."""
        shown_size, bboxes = (image.shape[0], image.shape[1]), bboxes.copy()
        resize, image_size = self._first.resize, self._first.image_size
        bboxes[:, :4] = boxes_into_input(bboxes[:, :4], resize.placement(shown_size, image_size))
        return {"image": resize.pad(image, image_size), "bboxes": bboxes}

    def _require_image(self, image: Any, extra_transforms: A.Compose) -> None:
        shape = (*self._first.image_size, 3)
        if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape == shape:
            return
        names = ", ".join(type(step).__name__ for step in extra_transforms.transforms[1:])
        raise ConfigurationError(
            f"augmentation.extra_transforms ({names}) gives an image of {image.dtype} {list(image.shape)}; "
            f"it must leave uint8 {list(shape)}, which the network's preprocessing expects"
        )


def _are_numbers(values: object) -> bool:
    return isinstance(values, Sequence) and all(isinstance(value, Real) and math.isfinite(value) for value in values)
