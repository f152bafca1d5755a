"""Resize images to the network's input, and map boxes back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.ops.boxes import clip_boxes
from ssd_lightning.ops.priors import as_height_width
from ssd_lightning.types import Detections, Placement, Target

# DataLoader workers are already separate processes: threads inside them would compete for the same cores.
cv2.setNumThreads(0)

WHOLE = Placement(1.0, 1.0)


class ResizeMode:
    """A way to resize images to one size. All modes put the image in the top left corner; this one fills the input."""

    def fitted_size(self, size_px: tuple[int, int], image_size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) of an image of `size_px` within an input of `image_size`."""
        return image_size

    def pad(self, image: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Pad an image of fitted size on the right or at the bottom."""
        return image

    def placement(self, size_px: tuple[int, int], image_size: tuple[int, int]) -> Placement:
        """Return the part of an input of `image_size` that an image of `size_px` takes."""
        height, width = self.fitted_size(size_px, image_size)
        return Placement(width / image_size[1], height / image_size[0])

    def apply(self, image: np.ndarray, image_size: tuple[int, int]) -> tuple[np.ndarray, Placement]:
        """Resize an image `[H, W, 3]` bilinearly to `[*image_size, 3]`, and return the part that the original takes."""
        size_px = (image.shape[0], image.shape[1])
        height, width = self.fitted_size(size_px, image_size)
        resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return self.pad(resized, image_size), self.placement(size_px, image_size)


@dataclass(frozen=True)
class Stretch(ResizeMode):
    """Warp the image to the input size regardless of its aspect ratio, as in the paper."""


@dataclass(frozen=True)
class Letterbox(ResizeMode):
    """Scale the image to fit into the input with its aspect ratio kept, and fill the rest with one colour.

    The image is in the top left corner, so boxes are mapped back by a division without an offset. This is also the
    simplest for users of exported files.

    Args:
        fill: RGB colour of the padding; preprocessing maps the default to about zero.

    Raises:
        ConfigurationError: `fill` is not a colour.
    """

    fill: tuple[int, int, int] = (123, 117, 104)

    def __post_init__(self) -> None:
        if len(self.fill) != 3 or not all(type(level) is int and 0 <= level <= 255 for level in self.fill):
            raise ConfigurationError(f"resize: fill is {self.fill!r}; it is an RGB colour of whole numbers 0..255")
        object.__setattr__(self, "fill", tuple(self.fill))  # files contain lists

    def fitted_size(self, size_px: tuple[int, int], image_size: tuple[int, int]) -> tuple[int, int]:
        """Scale until one side matches the input; round the other to whole pixels, at least one."""
        scale = min(image_size[0] / size_px[0], image_size[1] / size_px[1])
        height, width = (max(1, min(round(side * scale), most)) for side, most in zip(size_px, image_size, strict=True))
        return height, width

    def pad(self, image: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Pad on the right or at the bottom."""
        bottom, right = image_size[0] - image.shape[0], image_size[1] - image.shape[1]
        return cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=self.fill)


MODES: dict[str, type[ResizeMode]] = {"stretch": Stretch, "letterbox": Letterbox}


def as_resize_mode(value: Any) -> ResizeMode:
    """Convert a mode, its name, or the result of `plain_mode` to a mode; None means `stretch`.

    Raises:
        ConfigurationError: it is neither.
    """
    if isinstance(value, ResizeMode):
        return value
    settings = dict(value) if isinstance(value, Mapping) else {"kind": "stretch" if value is None else value}
    kind = settings.pop("kind", None)
    if not isinstance(kind, str) or kind not in MODES:
        raise ConfigurationError(f"resize is {value!r:.200}; it can be {' or '.join(MODES)}")
    try:
        return MODES[kind](**settings)
    except TypeError as error:
        raise ConfigurationError(f"resize is {value!r:.200}: {error}") from error


def plain_mode(mode: ResizeMode) -> dict[str, Any]:
    """Return a mode in plain values, for checkpoints and exported files.

    Raises:
        ConfigurationError: its class cannot be saved.
    """
    kind = next((name for name, known in MODES.items() if type(mode) is known), None)
    if kind is None:
        raise ConfigurationError(f"resize is {mode!r}, which no checkpoint can hold; it can be {' or '.join(MODES)}")
    settings = asdict(mode)  # type: ignore[call-overload]
    return {"kind": kind, **{name: list(v) if isinstance(v, tuple) else v for name, v in settings.items()}}


def boxes_into_input(boxes_xyxy: np.ndarray, placement: Placement) -> np.ndarray:
    """Convert boxes `[N, 4]` from coordinates of an image to those of the input that contains it."""
    return boxes_xyxy * np.array([*placement, *placement], dtype=boxes_xyxy.dtype)


def undo(boxes_xyxy: Tensor, placement: Placement) -> Tensor:
    """Convert boxes `[N, 4]` from the input back to the image in it. They may extend beyond the image."""
    return boxes_xyxy / boxes_xyxy.new_tensor([*placement, *placement])


def undo_detections(detections: Sequence[Detections], placements: Sequence[Placement]) -> list[Detections]:
    """Convert boxes normalised to the input back to the original images, by their placements, and clip them."""
    if all(placement == WHOLE for placement in placements):
        return list(detections)
    undone = [clip_boxes(undo(found["boxes"], place)) for found, place in zip(detections, placements, strict=True)]
    return [Detections(**{**found, "boxes": boxes}) for found, boxes in zip(detections, undone, strict=True)]


def placements_of(targets: Sequence[Target]) -> list[Placement]:
    """Return the placements of the images of a batch in the input."""
    return [target.get("placement", WHOLE) for target in targets]


def undo_targets(targets: Sequence[Target]) -> list[Target]:
    """Convert the boxes of a batch back to the original images."""
    undone = []
    for target, placement in zip(targets, placements_of(targets), strict=True):
        if placement != WHOLE:
            boxes = clip_boxes(undo(target["boxes"], placement))
            target = Target(**{**target, "boxes": boxes, "placement": WHOLE})
        undone.append(target)
    return undone


class Resize:
    """Resize images to the network's input; the `Transform` of evaluation.

    Args:
        image_size: output size in pixels, (height, width) or one number.
        resize: `stretch`, `letterbox` or a `ResizeMode`.

    Raises:
        ConfigurationError: the size is not a pair of positive whole numbers, or the mode is unknown.
    """

    def __init__(self, *, image_size: int | Sequence[int], resize: Any = "stretch") -> None:
        self.image_size = as_height_width(image_size, "image_size")
        self.mode = as_resize_mode(resize)

    def __call__(
        self, image: np.ndarray, boxes_xyxy: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Resize one sample; the seed is ignored."""
        resized, placement = self.mode.apply(image, self.image_size)
        return resized, boxes_into_input(boxes_xyxy, placement), np.arange(len(boxes_xyxy))

    def at_size(self, image_size: tuple[int, int]) -> "Resize":
        """Return the same transform for another output size (height, width)."""
        return Resize(image_size=image_size, resize=self.mode)

    def placement(self, size_px: tuple[int, int]) -> Placement:
        """Return the part of the result that an image of `size_px` takes."""
        return self.mode.placement(size_px, self.image_size)
