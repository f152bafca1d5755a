"""Image files of a written data set: their suffixes, and whether they are copied or re-encoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ssd_lightning.data.image_suffixes import FORMAT_OF_SUFFIX, IMAGE_SUFFIXES, is_image_name
from ssd_lightning.data.images import image_format, read_image


@dataclass(frozen=True)
class WrittenImage:
    """How one image file is written."""

    suffix: str
    keeps_bytes: bool = True
    """False: the pixels are written as PNG."""


def plan_image(path: Path, suffixes: Sequence[str]) -> WrittenImage:
    """Choose the suffix of a written image.

    Args:
        path: the image.
        suffixes: suffixes that readers of the written data set accept; they also check the content.

    Raises:
        DataError: the file is missing or not an image.
    """
    if suffixes == IMAGE_SUFFIXES and is_image_name(path):
        return WrittenImage(path.suffix)
    name = image_format(path)
    content = next(suffix for suffix, usual in FORMAT_OF_SUFFIX.items() if usual == name)
    if content not in suffixes:
        return WrittenImage(".png", keeps_bytes=False)
    return WrittenImage(path.suffix if path.suffix.lower() in suffixes else content)


def write_as_png(source: Path, target: Path, size_px: tuple[int, int]) -> None:
    """Write an image as PNG, as it is read for boxes that refer to a (height, width)."""
    Image.fromarray(read_image(source, size_px)).save(target)
