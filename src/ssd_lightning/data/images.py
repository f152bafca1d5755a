"""Images from disk: always uint8 RGB, or one sentence that says what is wrong with the file.

Whole, plain JPEGs, which most images are, take the quick way of `jpeg.py`; Pillow decodes all others and finds the
messages for what is broken.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ssd_lightning.data.jpeg import decode_plain_jpeg
from ssd_lightning.data.special_files import refuse_special_file
from ssd_lightning.errors import DataError

# A fixed list keeps Pillow from handing a PostScript file named .jpg to Ghostscript.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "BMP", "DIB", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000")
if find_spec("PIL.AvifImagePlugin"):  # Pillow 11.3 and later
    FORMATS += ("AVIF",)
REDUCTIONS = (1, 2, 4, 8)
"""What JPEG decoders offer."""
QUARTER_TURNS = (5, 6, 7, 8)
"""Values of EXIF's orientation that exchange width and height."""


def read_image(path: Path | str, size_px: tuple[int, int] | None = None, *, reduction: int = 1) -> np.ndarray:
    """Read an image of any colour mode as RGB.

    Grey is repeated; 16-bit grey is scaled to 8 bits, not clipped; transparent pixels become white, since the
    colours stored beneath them are arbitrary and a viewer's page is what the annotator saw. An animation
    gives its first frame.

    Args:
        path: file of the image.
        size_px: (height, width) that the annotation states. It decides about EXIF: the image is upright, as a
            viewer shows it, unless only the pixels as stored have this size; then they are taken as they are. None
            gives the image upright.
        reduction: 1, 2, 4 or 8: give the image with sides so many times smaller, see `reduced_size_px`. A JPEG
            is decoded at that size, which is much quicker.

    Returns:
        uint8 `[H, W, 3]`, RGB, C-contiguous.

    Raises:
        DataError: the file is missing, truncated, no image, too large, or of another size than `size_px`.
    """
    path, stated = Path(path), None if size_px is None else (size_px[0], size_px[1])
    refuse_special_file(path)
    pixels = decode_plain_jpeg(path, stated, reduction=reduction)
    if pixels is None:
        pixels = _read_by_pillow(path, stated)
        if reduction > 1:
            height, width = reduced_size_px(pixels.shape[:2], reduction)
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return pixels


def reduced_size_px(size_px: tuple[int, int], reduction: int) -> tuple[int, int]:
    """Give (height, width) of a reduced image: JPEG decoders round up."""
    height, width = size_px
    return -(-height // reduction), -(-width // reduction)


def choose_reduction(size_px: tuple[int, int], at_least_px: tuple[int, int]) -> int:
    """Give the largest `reduction` that leaves an image (height, width) at least so large."""
    ratio = min(side / least for side, least in zip(size_px, at_least_px, strict=True))
    return max((reduction for reduction in REDUCTIONS if reduction <= ratio), default=1)


def _read_by_pillow(path: Path, size_px: tuple[int, int] | None) -> np.ndarray:
    with _opened(path) as image:
        stored_size_px = (image.height, image.width)
        image.load()  # of a PNG `getexif` would do it, and hide what is broken
        orientation = _orientation(image.getexif)
        if size_px is None or (orientation != 1 and _upright_size_px(image, orientation) == size_px):
            image = ImageOps.exif_transpose(image)
        pixels = to_rgb(image)
    if size_px is not None and pixels.shape[:2] != size_px:
        stored, stated = _as_text(stored_size_px), _as_text(size_px)
        turned = " and its EXIF tag turns it," if orientation != 1 else ""
        raise DataError(f"{path}: the image is {stored},{turned} but its annotation says {stated}")
    return pixels


def image_size_px(path: Path, *, upright: bool = True) -> tuple[int, int]:
    """Read (height, width) from the header alone.

    Args:
        path: file of the image.
        upright: the size after the turn that the EXIF tag asks for, as `read_image` has it; False gives that of the
            pixels as stored.

    Raises:
        DataError: the file is missing or no image.
    """
    refuse_special_file(path)
    with _opened(path) as image:
        # The general `getexif`: that of PNG decodes all pixels to look behind them for a tag.
        orientation = _orientation(partial(Image.Image.getexif, image)) if upright else 1
        return _upright_size_px(image, orientation)


def image_format(path: Path) -> str:
    """Give Pillow's name of the format that the content has, whatever the ending says.

    Raises:
        DataError: the file is missing or no image.
    """
    refuse_special_file(path)
    with _opened(path) as image:
        return image.format or ""


def _orientation(read_exif: Callable[[], Image.Exif]) -> int:
    try:
        return read_exif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # of a damaged tag; the pixels can be read
        return 1


def _upright_size_px(image: Image.Image, orientation: int) -> tuple[int, int]:
    # Pillow itself turns TIFFs.
    is_turned = orientation in QUARTER_TURNS and image.format != "TIFF"
    return (image.width, image.height) if is_turned else (image.height, image.width)


def to_rgb(image: Image.Image) -> np.ndarray:
    """Give the pixels of an image of any mode as uint8 `[H, W, 3]`.

    Raises:
        ValueError: they are of no known range.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of an unknown range")
    if image.mode.startswith("I"):  # "I;16" and its byte orders; older Pillows open 16-bit PNG as "I"
        grey = np.asarray(image, dtype=np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"its grey values run from {grey.min()} to {grey.max()}, beyond 16 bits")
        grey = ((grey + 128) // 257).astype(np.uint8)  # 65535 / 257 = 255, rounded
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except UnidentifiedImageError:
        raise DataError(f"{path}: {_what_it_is_instead(path)}") from None
    except Image.DecompressionBombError as error:  # from the header; nothing was decoded
        raise DataError(
            f"{path}: the image is taken for a decompression bomb and not decoded: {error}; make it smaller, or set "
            "PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot read the image: {error.strerror or error}") from error
    except Exception as error:  # decoders answer broken files with nearly any type
        raise DataError(f"{path}: cannot read the image: {error or type(error).__name__}") from error


def _what_it_is_instead(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(512).lstrip()
    if path.stat().st_size == 0:
        return "the file is empty (0 bytes), not an image"
    if start.startswith(b"<"):
        beginning = start[:20].decode(errors="replace")
        return f"this is an HTML or XML page, not an image (it begins with {beginning!r})"
    return f"this is no image in a known format ({', '.join(FORMATS)})"


def _as_text(size_px: tuple[int, int]) -> str:
    height, width = size_px
    return f"{width} x {height} px (width x height)"
