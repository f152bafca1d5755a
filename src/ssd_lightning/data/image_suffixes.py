"""Formats of images. Suffixes find the files of a folder; the content alone decides how a file is read."""

from collections.abc import Iterable
from pathlib import PurePath

from ssd_lightning.errors import listed

# fmt: off
FORMAT_OF_SUFFIX = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP", ".gif": "GIF",
    ".tif": "TIFF", ".tiff": "TIFF", ".jfif": "JPEG", ".jpe": "JPEG", ".avif": "AVIF", ".avifs": "AVIF",
    ".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF", ".jp2": "JPEG2000", ".j2k": "JPEG2000", ".mpo": "JPEG",
    ".apng": "PNG", ".dib": "DIB", ".pnm": "PPM", ".ppm": "PPM", ".pgm": "PPM", ".pbm": "PPM",
    ".psd": "PSD", ".pcx": "PCX", ".ico": "ICO", ".dds": "DDS", ".qoi": "QOI", ".sgi": "SGI", ".ras": "SUN",
    ".hdr": "HDR", ".tga": "TGA",
}
"""Suffix -> Pillow's name of the usual content. TGA is last: it has no signature, so the others are tried before."""
UNREADABLE_SUFFIXES = (
    ".jxl", ".jxr", ".jls", ".svg", ".eps", ".exr", ".pfm", ".xcf", ".dcm",
    ".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf",
)
"""Image formats that are not supported. Such files are reported, never silently ignored."""
# fmt: on
IMAGE_SUFFIXES = tuple(FORMAT_OF_SUFFIX)
"""Suffixes that are read, in any case. If files differ only in suffix, the first of these is used."""
KNOWN_SUFFIXES = IMAGE_SUFFIXES + UNREADABLE_SUFFIXES
BROWSER_MEDIA_TYPES = {
    suffix: f"image/{name.lower()}"
    for suffix, name in FORMAT_OF_SUFFIX.items()
    if name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")
}
"""Suffix -> media type, of images that browsers can show."""


def is_image_name(path: PurePath) -> bool:
    """Tell by its suffix whether a file is read as an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_unreadable_image_name(path: PurePath | str) -> bool:
    """Tell by its suffix whether a file is an image in an unsupported format."""
    return str(path).lower().endswith(UNREADABLE_SUFFIXES)


def describe_unreadable(paths: Iterable[PurePath]) -> str:
    """List the images in unsupported formats among some files; empty if there are none."""
    names = sorted(path.name for path in paths if is_unreadable_image_name(path))
    if not names:
        return ""
    return f"{len(names)} images of formats that are not read ({listed(names, 5)})"
