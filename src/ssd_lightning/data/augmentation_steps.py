"""The steps of SSD's augmentation as transforms of albumentations, which move boxes with the image."""

import os
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise the import checks online for updates

import albumentations as A
import cv2
import numpy as np

from ssd_lightning.data.colour import PhotometricDistortion, distort_colours
from ssd_lightning.data.resize import ResizeMode
from ssd_lightning.data.windows import (
    CropWindow,
    RandomIoUCrop,
    boxes_in_view,
    centres_inside,
    normalise_windows,
    random_zoom_out,
    view_through,
)
from ssd_lightning.errors import ConfigurationError

INTERPOLATIONS = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_LANCZOS4)
EXPANSION_PROBABILITY = 0.5


class DistortExpandCropWarp(A.DualTransform):
    """The paper's steps up to the flip in one pass: draw all parameters, then process only visible pixels.

    One step after the other would be slow. It would recolour the whole image and paint a canvas of up to 16 times its
    area, although the crop and the warp remove most of these pixels.

    Args:
        image_size: (height, width) of the input. The result has this size, or the part of it that `resize` fills.
        photometric: colour distortion; None disables it.
        max_expand_ratio: largest side of the canvas, relative to the image; None disables expansion.
        fill: RGB colour of the canvas. The network's preprocessing subtracts it, so the network sees zeros there.
        crop: how a crop is chosen; None disables cropping. Boxes with their centre inside stay, clipped to the crop.
        resize: how the visible part is resized to the input. `SSDAugmentation` fills the rest of the input.
    """

    def __init__(
        self,
        *,
        image_size: tuple[int, int],
        photometric: PhotometricDistortion | None,
        max_expand_ratio: float | None,
        fill: tuple[int, int, int],
        crop: RandomIoUCrop | None,
        resize: ResizeMode,
    ) -> None:
        super().__init__(p=1.0)
        self.image_size = image_size
        self.photometric = photometric
        self.max_expand_ratio = max_expand_ratio
        self.fill = fill
        self.crop = crop
        self.resize = resize

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the parameters of the sample, in the order of the paper."""
        size_px = params["shape"][:2]
        changes = None if self.photometric is None else self.photometric.draw(self.py_random)
        window_px = (0, 0, size_px[1], size_px[0])
        if self.max_expand_ratio is not None and self.py_random.random() < EXPANSION_PROBABILITY:
            window_px = random_zoom_out(self.py_random, size_px, self.max_expand_ratio)
        if self.crop is not None:
            boxes = data["bboxes"][:, :4]
            window_px = self.crop.choose(self.py_random, self.random_generator, boxes, window_px, size_px)
        left, top, right, bottom = window_px
        shown_size = self.resize.fitted_size((bottom - top, right - left), self.image_size)
        return {
            "changes": changes,
            "window_px": window_px,
            "shown_size": shown_size,
            "view": view_through(window_px, size_px, shown_size),
            "interpolation": self.py_random.choice(INTERPOLATIONS),
        }

    def apply(
        self,
        img: np.ndarray,
        changes: dict[str, Any] | None,
        shown_size: tuple[int, int],
        view: CropWindow,
        interpolation: int,
        **params: Any,
    ) -> np.ndarray:
        """Build the sample's image from the original, both uint8 `[H, W, 3]` RGB."""
        left, top, right, bottom = view.part_px
        place_left, place_top, place_right, place_bottom = view.place_px
        shown = (place_right - place_left, place_bottom - place_top)
        part = img[top:bottom, left:right]
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

    def apply_to_bboxes(
        self, bboxes: np.ndarray, window_px: Any, shown_size: tuple[int, int], view: CropWindow, **params: Any
    ) -> np.ndarray:
        """Keep boxes (columns 0..3 of `[N, 4 + ...]`) whose centre is visible, and move them with the image."""
        size_px = params["shape"][:2]
        kept = bboxes[centres_inside(bboxes[:, :4], normalise_windows(np.array(window_px), size_px))]
        kept[:, :4] = boxes_in_view(kept[:, :4], view, size_px, shown_size)
        return kept


def compose(transforms: Any) -> A.Compose | None:
    """Chain the transforms of a user; None without any.

    Raises:
        ConfigurationError: they are not a list of transforms.
    """
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
