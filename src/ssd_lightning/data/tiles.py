"""Cuts large images into overlapping square tiles, in which small objects are larger."""

import math

from ssd_lightning.checks import require_number

MIN_TILE_PX = 32
MAX_OVERLAP = 0.9
"""The number of tiles grows with 1 / (1 - overlap)^2."""

Window = tuple[int, int, int, int]
"""(x1, y1, x2, y2) in pixels of the image; the right and the bottom edge are exclusive."""


def check_tiles(tiles: object, overlap: object) -> None:
    """Check the settings of `tile_windows`.

    Raises:
        ConfigurationError: the side of a tile or the overlap cannot be used.
    """
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
