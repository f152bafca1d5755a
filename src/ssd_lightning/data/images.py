"""Read images from disk, always as uint8 RGB, or raise an error that describes the problem.

Intact, plain JPEGs, the most common case, are decoded by `jpeg.py`. Pillow decodes all others and reports errors.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from ssd_lightning.data.image_suffixes import FORMAT_OF_SUFFIX
from ssd_lightning.data.jpeg import decode_plain_jpeg
from ssd_lightning.data.special_files import GIT_LFS_POINTER, is_git_lfs_pointer, refuse_special_file
from ssd_lightning.errors import DataError

# So strict that OpenCV finds the same size, since this one is checked before pixels are allocated.
_RADIANCE_HEADER = re.compile(rb"#\?(?:RADIANCE|RGBE)\n(?:[^\n\0]{1,100}\n)*\n-Y (\d{1,5}) \+X (\d{1,5})\n")


class RadianceFile(ImageFile.ImageFile):
    """8 bits of a Radiance image: 1.0 is white, and so is all that is brighter, as in `cv2.imread`.

    OpenCV reads such files, Pillow does not. As a format of Pillow they are read like all others.
    """

    format = "HDR"

    def _open(self) -> None:
        header = _RADIANCE_HEADER.match(self.fp.read(4096)) if self.fp else None
        if header is None:
            raise SyntaxError("not a Radiance image")
        height, width = map(int, header.groups())
        self._mode, self._size = "RGB", (width, height)

    def load(self) -> "Image.core.PixelAccess | None":
        """Decode the file on the first call."""
        if self.fp:
            self.fp.seek(0)
            pixels = cv2.imdecode(np.frombuffer(self.fp.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
            if pixels is None:
                raise OSError("the file is truncated or damaged")
            self.fp.close()
            self.fp = None
            self.im = Image.fromarray(pixels).im
        return Image.Image.load(self)


Image.register_open(RadianceFile.format, RadianceFile, lambda start: start.startswith(b"#?"))
_MISSING = set() if find_spec("PIL.AvifImagePlugin") else {"AVIF"}  # Pillow 11.3 and later
try:
    import_module("pillow_heif").register_heif_opener()
except ImportError:
    _MISSING.add("HEIF")
# A fixed list prevents Pillow from passing a PostScript file named .jpg to Ghostscript.
FORMATS = tuple(name for name in dict.fromkeys(FORMAT_OF_SUFFIX.values()) if name not in _MISSING)
NEW_SUBFILE_TYPE = 254
"""TIFF tag; its lowest bit marks a preview."""
REDUCTIONS = (1, 2, 4, 8)
"""Scale denominators of JPEG decoders."""
FLOATS = "floating-point numbers, whose range is unknown; scale them to 0..255 and save them as .png"
FLOAT_STARTS = {
    b"v/1\x01": "an EXR image",
    b"PF": "a PFM image",
    b"Pf": "a PFM image",
    b"II*\0": "a damaged TIFF, or one",
    b"MM\0*": "a damaged TIFF, or one",
}
"""First bytes of files that Pillow does not read -> what they are."""
QUARTER_TURNS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""


class ImageSizeError(DataError):
    """An image has another size than its annotation says."""


def read_image(path: Path | str, size_px: tuple[int, int] | None = None, *, reduction: int = 1) -> np.ndarray:
    """Read an image of any colour mode as RGB.

    Grey is repeated. 16-bit grey is scaled to 8 bits, not clipped. Transparent pixels become white, as annotators saw
    them on a viewer's page, since the colours stored beneath are arbitrary. Animations return the first frame.

    Args:
        path: file of the image.
        size_px: (height, width) in the annotation. It decides about EXIF: the image is upright, as in a viewer,
            unless only the stored pixels have this size; then they are used as stored. None always returns the
            image upright.
        reduction: 1, 2, 4 or 8: divide the sides by this number, see `reduced_size_px`. A JPEG is decoded at that
            size, which is much faster.

    Returns:
        uint8 `[H, W, 3]`, RGB, C-contiguous.

    Raises:
        DataError: the file is missing, truncated, not an image, too large, or of another size than `size_px`.
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
    """Return (height, width) of a reduced image. JPEG decoders round up."""
    height, width = size_px
    return -(-height // reduction), -(-width // reduction)


def choose_reduction(size_px: tuple[int, int], at_least_px: tuple[int, int]) -> int:
    """Return the largest `reduction` that keeps an image (height, width) at least this large."""
    ratio = min(side / least for side, least in zip(size_px, at_least_px, strict=True))
    return max((reduction for reduction in REDUCTIONS if reduction <= ratio), default=1)


def _read_by_pillow(path: Path, size_px: tuple[int, int] | None) -> np.ndarray:
    with _opened(path) as image:
        stored_size_px = (image.height, image.width)
        image.load()  # `getexif` would do it for a PNG, and hide damage
        orientation = _orientation(image.getexif)
        if size_px is None or (orientation != 1 and _upright_size_px(image, orientation) == size_px):
            image = ImageOps.exif_transpose(image)
        pixels = to_rgb(image)
    if size_px is not None and pixels.shape[:2] != size_px:
        stored, stated = (f"{width} x {height} px (width x height)" for height, width in (stored_size_px, size_px))
        turned = " and its EXIF tag turns it," if orientation != 1 else ""
        raise ImageSizeError(f"{path}: the image is {stored},{turned} but its annotation says {stated}")
    return pixels


def image_size_px(path: Path, *, upright: bool = True) -> tuple[int, int]:
    """Read (height, width) from the header alone: `upright`, after the rotation of the EXIF tag, or as stored.

    Raises:
        DataError: the file is missing or not an image.
    """
    with _opened(path) as image:
        # The general `getexif`: the one for PNG decodes all pixels to find a tag behind them.
        orientation = _orientation(partial(Image.Image.getexif, image)) if upright else 1
        return _upright_size_px(image, orientation)


def image_format(path: Path) -> str:
    """Return the format of the content, as in `FORMAT_OF_SUFFIX`. Raises `DataError` if it is missing or no image."""
    with _opened(path) as image:
        return "JPEG" if image.format == "MPO" else str(image.format)


def _orientation(read_exif: Callable[[], Image.Exif]) -> int:
    try:
        return read_exif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # the tag is damaged, but the pixels are readable
        return 1


def _upright_size_px(image: Image.Image, orientation: int) -> tuple[int, int]:
    # Pillow rotates TIFFs by itself.
    is_turned = orientation in QUARTER_TURNS and image.format != "TIFF"
    return (image.width, image.height) if is_turned else (image.height, image.width)


def to_rgb(image: Image.Image) -> np.ndarray:
    """Convert an image of any mode to uint8 `[H, W, 3]`.

    Raises:
        ValueError: the value range of the pixels is unknown.
    """
    if image.mode == "F":
        raise ValueError(f"its pixels are {FLOATS}")
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
    refuse_special_file(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(NEW_SUBFILE_TYPE, 0) & 1:
                raise ValueError("its first image is a preview, as in camera raw files; convert it to .jpg or .png")
            yield image
    except UnidentifiedImageError:
        raise DataError(f"{path}: {_what_it_is_instead(path)}") from None
    except Image.DecompressionBombError as error:  # raised from the header; nothing was decoded
        raise DataError(
            f"{path}: the image is taken for a decompression bomb and not decoded: {error}; scale it down or cut "
            "it into tiles with another tool, and its boxes with it"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot read the image: {error.strerror or error}") from error
    except Exception as error:  # decoders raise nearly any type for broken files
        raise DataError(f"{path}: cannot read the image: {error or type(error).__name__}") from error


def _what_it_is_instead(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(512).lstrip()
    if path.stat().st_size == 0:
        return "the file is empty (0 bytes), not an image"
    if is_git_lfs_pointer(start):
        return GIT_LFS_POINTER
    if start.startswith(b"<"):
        beginning = start[:20].decode(errors="replace")
        return f"this is an HTML or XML page, not an image (it begins with {beginning!r})"
    if start[4:8] == b"ftyp" and start[8:11] in (b"hei", b"hev", b"mif", b"msf") and "HEIF" in _MISSING:
        return "this HEIC image needs an extra; install it with pip install 'ssd-lightning[heic]'"
    for magic, kind in FLOAT_STARTS.items():
        if start.startswith(magic):
            return f"this is {kind} whose pixels are {FLOATS}"
    return f"this is not an image in a known format ({', '.join(FORMATS)})"
