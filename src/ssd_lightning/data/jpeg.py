"""Fast JPEG decoding: OpenCV is faster than Pillow, but is only used where the pixels are the same."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import ExifTags, Image

START, END = b"\xff\xd8", b"\xff\xd9"
HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)
"""Markers of baseline, extended and progressive frames."""
SCAN, APP1 = 0xDA, 0xE1
MIRRORED_OR_UPSIDE_DOWN = (2, 3, 4)
"""EXIF orientations that keep width and height."""
_REDUCED_BGR = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


class Frame(NamedTuple):
    """Header of a JPEG."""

    size_px: tuple[int, int]
    """(height, width) of the pixels as stored."""
    components: int
    exif: bytes | None
    """EXIF data in Pillow's format."""


def decode_plain_jpeg(path: Path, size_px: tuple[int, int] | None, *, reduction: int = 1) -> np.ndarray | None:
    """Decode a JPEG, with its sides divided by 1, 2, 4 or 8, if OpenCV returns the same pixels as Pillow.

    This needs a complete file with one or three 8-bit components, whose pixels are used as stored. `size_px` is
    (height, width) of the stored pixels. It must not match the upright image too if EXIF data rotate it. None accepts
    any size if no EXIF data rotate the image.

    Returns:
        uint8 `[H, W, 3]` RGB; None if another reader must decode the file or report its errors.
    """
    try:
        with path.open("rb", buffering=0) as file:
            data = file.readall()
    except OSError:
        return None
    # OpenCV silently fills the rest of a truncated image with grey.
    if not data.startswith(START) or not data.endswith(END):
        return None
    frame = read_frame(data)
    if frame is None or frame.components not in (1, 3):
        return None
    if frame.exif is not None if size_px is None else frame.size_px != size_px or _may_be_turned(frame):
        return None
    if Image.MAX_IMAGE_PIXELS is not None and frame.size_px[0] * frame.size_px[1] > Image.MAX_IMAGE_PIXELS:
        return None
    flag = _REDUCED_BGR.get(reduction, cv2.IMREAD_COLOR_RGB)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if reduction > 1 and pixels is not None else pixels


def _may_be_turned(frame: Frame) -> bool:
    """Tell whether EXIF data ask for a rotation that keeps the size."""
    if frame.exif is None:
        return False
    exif = Image.Exif()
    try:
        exif.load(frame.exif)
    except Exception:  # damaged data
        return True
    orientation = exif.get(ExifTags.Base.Orientation, 1)
    is_square = frame.size_px[0] == frame.size_px[1]
    return orientation in MIRRORED_OR_UPSIDE_DOWN or (is_square and orientation != 1)


def read_frame(data: bytes) -> Frame | None:
    """Read a JPEG's header up to the frame (ITU T.81, B.2.2); None if it is not Huffman-coded with 8 bits."""
    position, exif = len(START), None
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in HUFFMAN_FRAMES:
            precision, height = data[position + 4], int.from_bytes(data[position + 5 : position + 7])
            width, components = int.from_bytes(data[position + 7 : position + 9]), data[position + 9]
            return Frame((height, width), components, exif) if precision == 8 and height and width else None
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4])
        if marker == APP1:
            segment = data[position + 4 : end]
            # XMP may state a rotation too. It is not EXIF data, so Pillow handles it.
            if b"tiff:Orientation" in segment or (exif is None and segment.startswith(b"Exif")):
                exif = segment
        if marker == SCAN or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return None
        position = end
    return None
