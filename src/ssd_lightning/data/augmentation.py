"""The augmentation of the SSD paper (sections 2.2 and 3.6) in the order of the Caffe code."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, get_args

from ssd_lightning.checks import require_bool, require_choice, require_number
from ssd_lightning.data.augmentation_steps import Compose, DistortExpandCropWarp
from ssd_lightning.data.colour import PhotometricDistortion
from ssd_lightning.data.random_iou_crop import CropRule, RandomIoUCrop
from ssd_lightning.data.resize import as_resize_mode
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.ops.priors import as_height_width


class SSDAugmentation(Compose):
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
        super().__init__(
            DistortExpandCropWarp(
                image_size=as_height_width(image_size, "image_size"),
                photometric=distortion if photometric else None,
                max_expand_ratio=max_expand_ratio if expand else None,
                fill=(fill[0], fill[1], fill[2]),
                crop=search if crop else None,
                resize=as_resize_mode(resize),
            ),
            flip=flip,
            vertical_flip=vertical_flip,
            extra_transforms=() if extra_transforms is None else extra_transforms,
        )


def _are_numbers(values: object) -> bool:
    return isinstance(values, Sequence) and all(isinstance(value, Real) and math.isfinite(value) for value in values)
