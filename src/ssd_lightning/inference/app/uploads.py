"""Images uploaded over HTTP. Every upload results in pixels or in a 4xx error with one sentence."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from ssd_lightning.data.images import image_size_px, read_image
from ssd_lightning.errors import DataError

ENVELOPE_BYTES = 16 * 1024
"""Maximum size that a form may add to its image."""
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\x00", b"MM\x00*")
PPM_MAGIC = tuple(b"P%d" % kind for kind in range(1, 7))


@dataclass(frozen=True)
class Limits:
    """Limits of an upload."""

    max_bytes: int = 20_000_000
    max_pixels: int = 64_000_000
    """Pixels of the image. Two copies with three bytes per pixel are in memory while it is read."""
    seconds: float = 20.0
    """Time limit for an upload."""


async def read_upload(request: Request, limits: Limits) -> bytes:
    """Read the image of a request, from a form's file or from the whole body.

    Raises:
        HTTPException: 400 no file or an empty one, 408 too slow, 413 too large, 415 not an image format.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_form = media_type == "multipart/form-data"
    body = await _read_body(request, limits.max_bytes + (ENVELOPE_BYTES if is_form else 0), limits)
    data = await _file_in_form(request, body) if is_form else body
    if len(data) > limits.max_bytes:
        raise _too_large(limits)
    if not data:
        raise HTTPException(400, "the upload is empty (0 bytes), not an image")
    if not _begins_as_image(data):
        raise HTTPException(415, "the upload is not an image in a known format (JPEG, PNG, WebP, GIF, BMP, TIFF, PPM)")
    return data


def decode_upload(data: bytes, limits: Limits) -> np.ndarray:
    """Decode an image: uint8 `[H, W, 3]` RGB, upright.

    Raises:
        HTTPException: 400 the image is broken, 413 it has too many pixels.
    """
    with tempfile.TemporaryDirectory(prefix="ssd-demo-") as folder:
        path = Path(folder, "upload")
        path.write_bytes(data)
        try:
            height, width = image_size_px(path)  # from the header: a small file may claim to be huge
            if height * width <= limits.max_pixels:
                return read_image(path)
        except DataError as error:
            if not isinstance(error.__cause__, Image.DecompressionBombError):
                raise HTTPException(400, str(error).replace(f"{path}: ", "")) from error
    most = f"{limits.max_pixels / 1e6:g} million"
    raise HTTPException(413, f"the image has too many pixels; at most {most} are allowed")


async def _read_body(request: Request, max_bytes: int, limits: Limits) -> bytes:
    """Read a body. If its content-length is too large, nothing is read."""
    if int(request.headers.get("content-length", 0)) > max_bytes:  # the server guarantees a number
        raise _too_large(limits)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise _too_large(limits)
    except TimeoutError:
        message = f"the upload did not arrive within {limits.seconds:g} seconds"
        raise HTTPException(408, message, {"Connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(400, "the upload was interrupted") from None
    return bytes(body)


async def _file_in_form(request: Request, body: bytes) -> bytes:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    try:
        form = await MultiPartParser(request.headers, stream(), max_files=1, max_fields=8).parse()
    except MultiPartException as error:
        raise HTTPException(400, f"the form is broken: {error.message.rstrip('.')}") from error
    try:
        files = [value for value in form.values() if not isinstance(value, str)]
        if not files:
            raise HTTPException(400, "the form contains no complete file; send the image as its field 'file'")
        return await files[0].read()
    finally:
        await form.close()


def _begins_as_image(data: bytes) -> bool:
    is_webp = data.startswith(b"RIFF") and data[8:12] == b"WEBP"
    is_ppm = data.startswith(PPM_MAGIC) and data[2:3].isspace()
    return is_webp or is_ppm or data.startswith(MAGIC)


def _too_large(limits: Limits) -> HTTPException:
    megabytes = f"{limits.max_bytes / 1e6:g} MB"
    # The rest of the upload is not read, so the connection cannot be reused.
    return HTTPException(413, f"the upload is larger than {megabytes}", {"Connection": "close"})
