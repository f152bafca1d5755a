"""Suffixes of image files. Files are found by this list, but their format is determined by their content."""

import logging
from collections.abc import Iterable
from pathlib import PurePath

log = logging.getLogger(__name__)

# fmt: off
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".jfif", ".jpe", ".avif", ".jp2", ".j2k",
    ".mpo", ".apng", ".dib", ".ppm", ".pgm", ".pbm", ".pnm",
)
"""Suffixes that are read, in any case. If files differ only in suffix, the first of these is used."""
UNREADABLE_SUFFIXES = (
    ".heic", ".heif", ".hif", ".jxl", ".jxr", ".svg", ".psd", ".tga", ".exr", ".hdr", ".ico", ".pcx", ".eps", ".pfm",
    ".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".dcm", ".jls", ".avifs", ".xcf", ".qoi",
)
"""Image formats that are not supported. Such files are reported, never silently ignored."""
# fmt: on
KNOWN_SUFFIXES = IMAGE_SUFFIXES + UNREADABLE_SUFFIXES
BROWSER_MEDIA_TYPES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "image/jpeg"),
    **dict.fromkeys((".png", ".apng"), "image/png"),
    **{f".{kind}": f"image/{kind}" for kind in ("webp", "gif", "bmp", "avif")},
}
"""Suffix -> media type, of images that browsers can show."""


def is_image_name(path: PurePath) -> bool:
    """Tell by its suffix whether a file is read as an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_unreadable_image_name(path: PurePath) -> bool:
    """Tell by its suffix whether a file is an image in an unsupported format."""
    return path.suffix.lower() in UNREADABLE_SUFFIXES


def describe_unreadable(paths: Iterable[PurePath], *, at_most: int = 5) -> str:
    """List the images in unsupported formats among some files; empty if there are none."""
    names = sorted(path.name for path in paths if is_unreadable_image_name(path))
    if not names:
        return ""
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return f"{len(names)} images of formats that are not read ({', '.join(names[:at_most])}{more})"


def log_unreadable(folder: PurePath, paths: Iterable[PurePath]) -> None:
    """Warn about images in a folder with unsupported formats."""
    described = describe_unreadable(paths)
    if described:
        log.warning("%s: skipped %s; convert them to .jpg or .png", folder, described)
