"""Reads the images and frames of all sources one by one, with only one in memory; fetches images from the web."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

import numpy as np

from ssd_lightning.data.images import read_image
from ssd_lightning.errors import DataError
from ssd_lightning.inference.names import clean_name
from ssd_lightning.inference.sources import VIDEO_SUFFIXES, Source
from ssd_lightning.inference.video import Video

CHUNK_BYTES = 1 << 16
MOST_S = 600.0
"""Time limit for a whole download: a server that sends a byte now and then would block a batch forever."""


@dataclass(frozen=True)
class SourceImage:
    """An image, or a frame of a video."""

    source: Source
    image: np.ndarray
    """uint8 `[H, W, 3]`, RGB, upright."""
    path: Path | None = None
    """File of an image. None for frames and for downloads, which are not kept."""
    frame: int | None = None
    """Index among all frames of the video, from 0. None for images."""
    fps: float | None = None
    """Frames per second of the video after `frame_stride`, if known."""
    time_s: float | None = None
    """Seconds since the start of the video, also at a variable rate. None for cameras, and if it is unknown."""


@dataclass(frozen=True)
class SourceReader:
    """Reads sources.

    Args:
        frame_stride: read every n-th frame of a video.
        max_frames: maximum number of frames of a video or camera. None reads all.
        most_bytes: size limit of a downloaded file.
        on_video: called when a video is opened, with its expected number of frames; None if unknown.
    """

    frame_stride: int = 1
    max_frames: int | None = None
    most_bytes: int = 200_000_000
    on_video: Callable[[int | None], None] = lambda frames: None

    def read(self, sources: Sequence[Source], on_bad: Callable[[DataError], None]) -> Iterator[SourceImage]:
        """Yield the images and frames of all sources in order.

        `on_bad` is called with the error of a source that cannot be read; if it returns, the next source follows.
        """
        for source in sources:
            try:
                yield from self._read(source)
            except DataError as error:
                on_bad(error)

    def _read(self, source: Source) -> Iterator[SourceImage]:
        match source.kind:
            case "image":
                path = Path(source.address)
                yield SourceImage(source, read_image(path), path)
            case "video":
                yield from self._frames(source, Path(source.address))
            case "camera":
                yield from self._frames(source, int(source.address))
            case "url":
                yield from self._from_web(source)

    def _frames(self, source: Source, address: Path | int) -> Iterator[SourceImage]:
        video = Video(address, str(source))
        stated = None if video.stated_frames is None else -(-video.stated_frames // self.frame_stride)
        bounds = [number for number in (stated, self.max_frames) if number is not None]
        self.on_video(min(bounds) if bounds else None)
        fps = video.fps / self.frame_stride if video.fps else None
        for number, image in video.frames(frame_stride=self.frame_stride, most=self.max_frames):
            yield SourceImage(source, image, frame=number, fps=fps, time_s=video.time_s)

    def _from_web(self, source: Source) -> Iterator[SourceImage]:
        url = source.address
        with TemporaryDirectory(prefix="ssd_lightning_") as folder:
            name = clean_name(PurePosixPath(unquote(urlsplit(url).path)).name or "image")
            path = Path(folder, name)
            try:
                content_type = fetch(url, path, most_bytes=self.most_bytes)
                if path.suffix.lower() in VIDEO_SUFFIXES or content_type.startswith("video/"):
                    yield from self._frames(source, path)
                else:
                    yield SourceImage(source, read_image(path))
            except DataError as error:
                raise DataError(str(error).replace(str(path), url)) from error


def fetch(url: str, path: Path, *, most_bytes: int, silence_s: float = 20.0, most_s: float = MOST_S) -> str:
    """Fetch a file over http or https. An address or a redirect that is neither http nor https is an error.

    Neither the file may exceed `most_bytes`, nor the silence of the server `silence_s`, nor the whole `most_s`.

    Returns:
        The content type from the server, such as `image/jpeg`. Empty if there is none.

    Raises:
        DataError: the file cannot be fetched, or exceeds a limit.
    """
    import requests  # half a second, which local files need not wait for
    import urllib3

    deadline, got = time.monotonic() + most_s, 0
    headers = {"User-Agent": "ssd_lightning", "Accept-Encoding": "identity"}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=silence_s) as response, path.open("wb") as file:
            response.raise_for_status()
            stated = int(response.headers.get("Content-Length", 0))
            # `read1` returns as soon as data arrives; pooch waits for whole chunks and could miss the deadline.
            while got <= most_bytes >= stated and (chunk := response.raw.read1(CHUNK_BYTES)):
                got += len(chunk)
                file.write(chunk)
                if time.monotonic() > deadline:
                    raise DataError(f"{url}: incomplete after {most_s:.0f} s, with {got:,} bytes received")
            if max(got, stated) > most_bytes:
                limit = f"the {most_bytes / 1e6:g} MB that are allowed (max_download_mb)"
                raise DataError(f"{url}: the file has {max(got, stated):,} bytes or more, and exceeds {limit}")
            return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    except DataError:
        raise
    except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
        raise DataError(f"{url}: cannot be fetched: {error}") from error
