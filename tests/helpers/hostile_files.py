"""Files that were made to harm, or were harmed, and how they are refused."""

import random
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssd_lightning.errors import UserError, WeightsError

NO_FILES = (b"", b"\0" * 1000, b"<html>404</html>", b"PK\x03\x04 and no more")
"""Contents of a file that is of no format."""


def refused(
    path: Path, read: Callable[[Path], object], error: type[UserError] = WeightsError, *, one_line: bool = True
) -> str:
    """Read a file that has to be refused, and give the message: one line of bearable length with the file's name."""
    with pytest.raises(error) as caught:
        read(path)
    message = str(caught.value)
    check_message(message if one_line else message.replace("\n", " "), path)
    return message


def check_message(message: str, path: Path) -> None:
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 1000


def damaged(whole: bytes, count: int, *, within: int | None = None) -> Iterator[bytes]:
    """Change some bytes, the same ones each time; `within` bytes from the start."""
    rng = random.Random(0)
    for _ in range(count):
        content = bytearray(whole)
        for _ in range(rng.randrange(1, 5)):
            content[rng.randrange(within or len(content))] = rng.randrange(256)
        yield bytes(content)


def png(width: int, height: int, pixels: bytes, *, is_rgb: bool = False, before_pixels: bytes = b"") -> bytes:
    """Make a PNG whose header says any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if is_rgb else 0, 0, 0, 0)
    parts = (png_chunk(b"IHDR", header), before_pixels, png_chunk(b"IDAT", zlib.compress(pixels, 9)))
    return b"".join([b"\x89PNG\r\n\x1a\n", *parts, png_chunk(b"IEND", b"")])


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
