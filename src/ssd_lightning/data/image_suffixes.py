"""The endings of image files. Only this list decides what is looked for; what a file is, its content decides."""

import logging
from collections.abc import Iterable
from pathlib import PurePath

log = logging.getLogger(__name__)

# fmt: off
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".jfif", ".jpe", ".avif", ".jp2", ".j2k",
    ".mpo", ".apng", ".dib", ".ppm", ".pgm", ".pbm", ".pnm",
)
"""What is read, in any letter case. Where files of one name differ in their ending, the first of these is taken."""
UNREADABLE_SUFFIXES = (
    ".heic", ".heif", ".hif", ".jxl", ".jxr", ".svg", ".psd", ".tga", ".exr", ".hdr", ".ico", ".pcx", ".eps", ".pfm",
    ".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".dcm", ".jls", ".avifs", ".xcf", ".qoi",
)
"""Images too, but of formats that are not read: named, never passed over in silence."""
# fmt: on
KNOWN_SUFFIXES = IMAGE_SUFFIXES + UNREADABLE_SUFFIXES
BROWSER_MEDIA_TYPES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "image/jpeg"),
    **dict.fromkeys((".png", ".apng"), "image/png"),
    **{f".{kind}": f"image/{kind}" for kind in ("webp", "gif", "bmp", "avif")},
}
"""Ending -> media type, of what browsers show."""


def is_image_name(path: PurePath) -> bool:
    """Say whether a file is read as an image, by its ending."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_unreadable_image_name(path: PurePath) -> bool:
    """Say whether a file is an image of a format that is not read, by its ending."""
    return path.suffix.lower() in UNREADABLE_SUFFIXES


def describe_unreadable(paths: Iterable[PurePath], *, at_most: int = 5) -> str:
    """Name the images among some files whose format is not read; empty if there are none."""
    names = sorted(path.name for path in paths if is_unreadable_image_name(path))
    if not names:
        return ""
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return f"{len(names)} images of formats that are not read ({', '.join(names[:at_most])}{more})"


def log_unreadable(folder: PurePath, paths: Iterable[PurePath]) -> None:
    """Warn of images in a folder whose format is not read."""
    described = describe_unreadable(paths)
    if described:
        log.warning("%s: skipped %s; convert them to .jpg or .png", folder, described)
