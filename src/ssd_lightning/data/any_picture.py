"""Pictures as callers have them - paths, PIL, arrays, tensors - as the one form that all else works on."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from ssd_lightning.data.images import read_image, to_rgb
from ssd_lightning.errors import DataError

Picture = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor
"""A path; PIL of any mode; uint8 `[H, W, 3]` RGB, `[H, W, 4]` RGBA or `[H, W]` grey; a uint8 tensor `[3, H, W]`."""


def as_sequence(given: Picture | Sequence[Picture]) -> tuple[Sequence[Picture], bool]:
    """Give pictures as a sequence, and whether it was one picture alone.

    Raises:
        DataError: it is neither.
    """
    if isinstance(given, np.ndarray | Tensor):
        return (list(given), False) if given.ndim == 4 else ([given], True)
    if isinstance(given, str | os.PathLike | Image.Image):
        return [given], True
    if isinstance(given, Sequence):
        return given, False
    raise DataError(f"a {type(given).__name__} is neither a picture nor a list of pictures")


def as_rgb(picture: Picture) -> np.ndarray:
    """Give a picture as uint8 `[H, W, 3]` RGB, upright; an array that is so already is not copied.

    Files and PIL pictures are turned by their EXIF tag, and transparent pixels become white, as `read_image` has it.

    Raises:
        DataError: a file cannot be read; an array or tensor has another type or shape.
    """
    if isinstance(picture, str | os.PathLike):
        return read_image(os.fspath(picture))
    if isinstance(picture, Image.Image):
        return _from_pil(picture)
    if isinstance(picture, Tensor):
        return _from_tensor(picture)
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    raise DataError(f"a picture is a path, a PIL image, an array or a tensor, not a {type(picture).__name__}")


def _from_pil(picture: Image.Image) -> np.ndarray:
    try:
        return to_rgb(ImageOps.exif_transpose(picture))
    except Exception as error:  # decoders answer broken files with nearly any type
        name = getattr(picture, "filename", "") or f"PIL image of mode {picture.mode}"
        raise DataError(f"{name}: cannot read the picture: {error or type(error).__name__}") from error


def _from_tensor(picture: Tensor) -> np.ndarray:
    _check_values(str(picture.dtype).removeprefix("torch."), "tensor")
    if picture.ndim != 3 or picture.shape[0] not in (1, 3, 4) or 0 in picture.shape:
        raise DataError(f"a picture as a tensor is [3, H, W], got {list(picture.shape)}")
    return _from_array(picture.detach().cpu().permute(1, 2, 0).numpy())


def _from_array(picture: np.ndarray) -> np.ndarray:
    _check_values(str(picture.dtype), "array")
    planes = picture if picture.ndim != 2 else picture[..., None]
    if planes.ndim != 3 or planes.shape[2] not in (1, 3, 4) or 0 in picture.shape:
        raise DataError(f"a picture as an array is [H, W, 3], got {list(picture.shape)}")
    if planes.shape[2] == 4:
        return _from_pil(Image.fromarray(np.ascontiguousarray(picture), "RGBA"))
    return np.ascontiguousarray(np.broadcast_to(planes, (*picture.shape[:2], 3)))


def _check_values(dtype: str, kind: str) -> None:
    if dtype != "uint8":
        raise DataError(
            f"a picture as {'an' if kind == 'array' else 'a'} {kind} is uint8, 0..255, got {dtype}: values of 0..1 "
            "become so by (255 * x).round() and the type's change"
        )
