"""Convert images in any common form (paths, PIL, arrays, tensors) to one form."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from ssd_lightning.data.images import read_image, to_rgb
from ssd_lightning.errors import DataError

ImageInput = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor
"""A path; PIL of any mode; uint8 `[H, W, 3]` RGB, `[H, W, 4]` RGBA or `[H, W]` grey; a uint8 tensor `[3, H, W]`."""


def as_sequence(given: ImageInput | Sequence[ImageInput]) -> tuple[Sequence[ImageInput], bool]:
    """Return images as a sequence, and whether the input was a single image.

    Raises:
        DataError: the input is neither.
    """
    if isinstance(given, np.ndarray | Tensor):
        return (list(given), False) if given.ndim == 4 else ([given], True)
    if isinstance(given, str | os.PathLike | Image.Image):
        return [given], True
    if isinstance(given, Sequence):
        return given, False
    raise DataError(f"a {type(given).__name__} is neither an image nor a list of images")


def as_rgb(image: ImageInput) -> np.ndarray:
    """Convert an image to uint8 `[H, W, 3]` RGB, upright. An array in this form is not copied.

    Files and PIL images are rotated by their EXIF tag, and transparent pixels become white, as in `read_image`.

    Raises:
        DataError: a file cannot be read; an array or tensor has another type or shape.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(os.fspath(image))
    if isinstance(image, Image.Image):
        return _from_pil(image)
    if not isinstance(image, np.ndarray | Tensor):
        raise DataError(f"an image is a path, a PIL image, an array or a tensor, not a {type(image).__name__}")
    kind, shape = ("a tensor", "[3, H, W]") if isinstance(image, Tensor) else ("an array", "[H, W, 3]")
    dtype = str(image.dtype).removeprefix("torch.")
    if dtype != "uint8":
        raise DataError(
            f"an image as {kind} is uint8, 0..255, got {dtype}: convert values of 0..1 by (255 * x).round() and a cast "
            "to uint8"
        )
    if isinstance(image, Tensor):
        pixels = image.detach().cpu().movedim(0, -1).numpy() if image.ndim == 3 else np.empty(0)
    else:
        pixels = image if image.ndim != 2 else image[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise DataError(f"an image as {kind} is {shape}, got {list(image.shape)}")
    if pixels.shape[2] == 4:
        return _from_pil(Image.fromarray(np.ascontiguousarray(pixels), "RGBA"))
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _from_pil(image: Image.Image) -> np.ndarray:
    try:
        return to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # decoders raise nearly any type for broken files
        name = getattr(image, "filename", "") or f"PIL image of mode {image.mode}"
        raise DataError(f"{name}: cannot read the image: {error or type(error).__name__}") from error
