"""The augmentation of the SSD paper (sections 2.2 and 3.6) in the order of the Caffe code."""

import math
import os
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from numbers import Real
from random import Random
from typing import Any, Self, get_args

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise the import checks online for updates

import albumentations as A
import cv2
import numpy as np

from ssd_lightning.checks import require_bool, require_choice, require_number
from ssd_lightning.data.colour import PhotometricDistortion, distort_colours, require_rgb
from ssd_lightning.data.resize import ResizeMode, as_resize_mode, boxes_into_input
from ssd_lightning.data.windows import (
    CropRule,
    CropWindow,
    RandomIoUCrop,
    Window,
    boxes_in_view,
    centres_inside,
    normalise_windows,
    random_zoom_out,
    view_through,
)
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.ops.priors import as_height_width

INTERPOLATIONS = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_LANCZOS4)
PROBABILITY = 0.5
"""Of the expansion, and of each flip."""
MIN_SIDE = 1e-4
"""Boxes with a side below this fraction of the image (.03 of 300 pixels) are dropped: too thin for useful offsets."""


@dataclass(frozen=True, kw_only=True)
class DistortExpandCropWarp:
    """The paper's steps up to the flip in one pass: draw all parameters, then process only visible pixels.

    One step after the other would be slow. It would recolour the whole image and paint a canvas of up to 16 times its
    area, although the crop and the warp remove most of these pixels.
    """

    image_size: tuple[int, int]
    """(height, width) of the input. The result has this size, or the part of it that `resize` fills."""
    photometric: PhotometricDistortion | None
    """Colour distortion; None disables it."""
    max_expand_ratio: float | None
    """Largest side of the canvas, relative to the image; None disables expansion."""
    fill: tuple[int, int, int]
    """RGB colour of the canvas. The network's preprocessing subtracts it, so the network sees zeros there."""
    crop: RandomIoUCrop | None
    """How a crop is chosen; None disables cropping. Boxes with their centre inside stay, clipped to the crop."""
    resize: ResizeMode
    """How the visible part is resized to the input. `SSDAugmentation` fills the rest of the input."""

    def draw(
        self, random: Random, rng: np.random.Generator, boxes: np.ndarray, size_px: tuple[int, int]
    ) -> dict[str, Any]:
        """Draw the parameters of a sample, the arguments of `apply`, in the order of the paper."""
        changes = None if self.photometric is None else self.photometric.draw(random)
        window_px = (0, 0, size_px[1], size_px[0])
        if self.max_expand_ratio is not None and random.random() < PROBABILITY:
            window_px = random_zoom_out(random, size_px, self.max_expand_ratio)
        if self.crop is not None:
            window_px = self.crop.choose(random, rng, boxes, window_px, size_px)
        return {"changes": changes, "window_px": window_px, "interpolation": random.choice(INTERPOLATIONS)}

    def apply(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        *,
        changes: dict[str, Any] | None,
        window_px: Window,
        interpolation: int,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Show a window of an image, uint8 `[H, W, 3]` RGB, and move its boxes, float64 `[N, 4]`, with it.

        Returns:
            The new image; the boxes whose centre is visible, clipped; and their indices.
        """
        size_px, (left, top, right, bottom) = image.shape[:2], window_px
        shown_size = self.resize.fitted_size((bottom - top, right - left), self.image_size)
        view = view_through(window_px, size_px, shown_size)
        kept = np.flatnonzero(centres_inside(boxes, normalise_windows(np.array(window_px), size_px)))
        shown = self._show(image, view, shown_size, changes, interpolation)
        return shown, boxes_in_view(boxes[kept], view, size_px, shown_size), kept

    def _show(
        self,
        image: np.ndarray,
        view: CropWindow,
        shown_size: tuple[int, int],
        changes: dict[str, Any] | None,
        interpolation: int,
    ) -> np.ndarray:
        left, top, right, bottom = view.part_px
        place_left, place_top, place_right, place_bottom = view.place_px
        part, shown = image[top:bottom, left:right], (place_right - place_left, place_bottom - place_top)
        if part.size == 0:
            return np.full((*shown_size, 3), self.fill, dtype=np.uint8)
        # The paper distorts colours first. After the warp, the result differs only by rounding. So this is done where
        # there are fewer pixels.
        first = part.shape[0] * part.shape[1] <= shown[0] * shown[1]
        if changes is not None and first:
            part = distort_colours(part, **changes)
        part = cv2.resize(part, shown, interpolation=interpolation)
        if changes is not None and not first:
            part = distort_colours(part, **changes)
        borders = (place_top, shown_size[0] - place_bottom, place_left, shown_size[1] - place_right)
        return cv2.copyMakeBorder(part, *borders, cv2.BORDER_CONSTANT, value=self.fill) if any(borders) else part


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
        self._steps = DistortExpandCropWarp(
            image_size=as_height_width(image_size, "image_size"),
            photometric=distortion if photometric else None,
            max_expand_ratio=max_expand_ratio if expand else None,
            fill=(fill[0], fill[1], fill[2]),
            crop=search if crop else None,
            resize=as_resize_mode(resize),
        )
        self._flip_axes = [axis for axis, is_on in enumerate((flip, vertical_flip)) if is_on]
        self._extra_transforms = _compose(() if extra_transforms is None else extra_transforms)

    def at_size(self, image_size: tuple[int, int]) -> Self:
        """Return the same transform for another output size (height, width)."""
        other = copy(self)
        other._steps = replace(self._steps, image_size=image_size)
        return other

    def __call__(
        self, image: np.ndarray, boxes_xyxy: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Transform one sample, see `Transform`. Boxes with a side below `MIN_SIDE` are dropped.

        Raises:
            ValueError: the image is not uint8 `[H, W, 3]`.
        """
        require_rgb(image)
        boxes = boxes_xyxy.astype(np.float64)
        random, rng = Random(seed), np.random.default_rng(seed)  # noqa: S311
        image, boxes, kept = self._steps.apply(
            image, boxes, **self._steps.draw(random, rng, boxes, (image.shape[0], image.shape[1]))
        )
        for axis in self._flip_axes:
            if random.random() < PROBABILITY:
                image = cv2.flip(image, 1 - axis)
                boxes[:, [axis, axis + 2]] = 1 - boxes[:, [axis + 2, axis]]
        # After the flips, so that the image is in the same corner as in evaluation.
        resize, image_size = self._steps.resize, self._steps.image_size
        boxes = boxes_into_input(boxes, resize.placement((image.shape[0], image.shape[1]), image_size))
        image = resize.pad(image, image_size)
        if self._extra_transforms is not None:
            self._extra_transforms.set_random_state(rng, random)
            sample = self._extra_transforms(image=image, bboxes=np.column_stack([boxes, kept]))
            image, rows = sample["image"], sample["bboxes"].reshape(-1, 5)
            boxes, kept = rows[:, :4], rows[:, 4].astype(np.int64)
            self._require_image(image, self._extra_transforms)
        is_thick = (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(axis=1)
        return image, boxes[is_thick].astype(np.float32), kept[is_thick]

    def _require_image(self, image: Any, extra_transforms: A.Compose) -> None:
        shape = (*self._steps.image_size, 3)
        if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape == shape:
            return
        names = ", ".join(type(step).__name__ for step in extra_transforms.transforms[1:])
        raise ConfigurationError(
            f"augmentation.extra_transforms ({names}) gives an image of {image.dtype} {list(image.shape)}; "
            f"it must leave uint8 {list(shape)}, which the network's preprocessing expects"
        )


def _are_numbers(values: object) -> bool:
    return isinstance(values, Sequence) and all(isinstance(value, Real) and math.isfinite(value) for value in values)


def _compose(transforms: Any) -> A.Compose | None:
    """Chain the user's transforms; None without any."""
    items = transforms if isinstance(transforms, Sequence) and not isinstance(transforms, str) else [transforms]
    wrong = [item for item in items if not isinstance(item, A.BasicTransform | A.BaseCompose)]
    if wrong or items is not transforms:
        raise ConfigurationError(
            f"augmentation.extra_transforms has {(wrong or items)[0]!r}; it is a list of transforms of albumentations, "
            "such as [{_target_: albumentations.ToGray, p: 0.1}]"
        )
    # The library warns about boxes if no step handles them, for example if all steps only change colours.
    steps, boxes = [A.NoOp(p=1.0), *transforms], A.BboxParams("albumentations", clip=True)
    return A.Compose(steps, bbox_params=boxes) if transforms else None
