"""Cuts large images into overlapping square tiles, in which small objects are larger."""

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ssd_lightning.checks import require_number
from ssd_lightning.data.annotations import ImageAnnotation
from ssd_lightning.data.images import image_format, read_image
from ssd_lightning.data.windows import Window

MIN_TILE_PX = 32
MAX_OVERLAP = 0.9
"""The number of tiles grows with 1 / (1 - overlap)^2."""

MIN_VISIBLE = 0.3
"""Objects with a smaller part of their area in a tile are not annotated there."""
JPEG_QUALITY = 95


def check_tiles(tiles: object, overlap: object) -> None:
    """Check the settings of `tile_windows`. Raises `ConfigurationError` if one cannot be used."""
    require_number("tiles", tiles, MIN_TILE_PX, whole=True)
    require_number("overlap", overlap, 0, MAX_OVERLAP)


def tile_windows(size_px: tuple[int, int], tiles: int, overlap: float) -> list[Window]:
    """Cover an image with tiles, row by row.

    The last tile of a row or column is shifted inwards, so that it has the full size. A side of the image that is
    shorter than a tile is not divided.

    Args:
        size_px: (height, width) of the image.
        tiles: side of a tile in pixels.
        overlap: smallest overlap of neighbours, as a part of the side.
    """
    height, width = size_px
    rows, columns = _spans(height, tiles, overlap), _spans(width, tiles, overlap)
    return [(x1, y1, x2, y2) for y1, y2 in rows for x1, x2 in columns]


def _spans(length: int, tiles: int, overlap: float) -> list[tuple[int, int]]:
    if length <= tiles:
        return [(0, length)]
    step = max(1, tiles - math.ceil(tiles * overlap))
    return [(start, start + tiles) for start in [*range(0, length - tiles, step), length - tiles]]


def cut_annotation(annotation: ImageAnnotation, window_px: Window, path: Path) -> ImageAnnotation:
    """Return the annotation of a tile of an image, with boxes clipped to it; `path` is the file of the tile."""
    left, top, right, bottom = window_px
    edges = np.array(window_px, np.float32)
    boxes = annotation.boxes_xyxy_px.clip(np.tile(edges[:2], 2), np.tile(edges[2:], 2))
    sides, whole_sides = (b[:, 2:] - b[:, :2] for b in (boxes, annotation.boxes_xyxy_px))
    kept = (sides > 0).all(1) & (sides.prod(1) >= MIN_VISIBLE * whole_sides.prod(1))
    return replace(
        annotation,
        image_id=f"{annotation.image_id}_{left}_{top}",
        image_path=path,
        size_px=(bottom - top, right - left),
        boxes_xyxy_px=boxes[kept] - np.tile(edges[:2], 2),
        labels=annotation.labels[kept],
        difficult=annotation.difficult[kept],
    )


def write_tiles(
    annotations: Iterable[ImageAnnotation], folder: Path, *, tiles: int, overlap: float
) -> list[ImageAnnotation]:
    """Cut images into files of an empty folder: JPEG where the image is, otherwise PNG. See `tile_windows`.

    Returns:
        The annotations of all tiles, also of those without objects.

    Raises:
        DataError: an image cannot be read.
    """
    cut = []
    for number, annotation in enumerate(annotations):
        pixels = read_image(annotation.image_path, annotation.size_px)
        suffix = ".jpg" if image_format(annotation.image_path) == "JPEG" else ".png"
        for window_px in tile_windows(annotation.size_px, tiles, overlap):
            left, top, right, bottom = window_px
            path = folder / f"{number}_{left}_{top}{suffix}"
            Image.fromarray(pixels[top:bottom, left:right]).save(path, quality=JPEG_QUALITY)  # PNG ignores it
            cut.append(cut_annotation(annotation, window_px, path))
    return cut
