"""Reads the images and frames of all sources one by one, with only one in memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

import numpy as np

from ssd_lightning.data.images import read_image
from ssd_lightning.errors import DataError
from ssd_lightning.inference.download import fetch
from ssd_lightning.inference.names import clean_name
from ssd_lightning.inference.sources import VIDEO_SUFFIXES, Source
from ssd_lightning.inference.video import Video


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
    """Seconds since the start of the video, if known."""


@dataclass(frozen=True)
class Reading:
    """Settings for reading sources.

    Args:
        frame_stride: read every n-th frame of a video.
        max_frames: maximum number of frames of a video or camera. None reads all.
        most_bytes: size limit of a downloaded file.
    """

    frame_stride: int = 1
    max_frames: int | None = None
    most_bytes: int = 200_000_000


def read_sources(
    sources: Sequence[Source],
    reading: Reading,
    *,
    on_bad: Callable[[DataError], None],
    on_video: Callable[[int | None], None] = lambda frames: None,
) -> Iterator[SourceImage]:
    """Yield the images and frames of all sources in order.

    `on_bad` is called with the error of a source that cannot be read; if it returns, the next source follows.
    `on_video` is called when a video is opened, with its expected number of frames; None if unknown.
    """
    for source in sources:
        try:
            yield from _read_source(source, reading, on_video)
        except DataError as error:
            on_bad(error)


def _read_source(source: Source, reading: Reading, on_video: Callable[[int | None], None]) -> Iterator[SourceImage]:
    match source.kind:
        case "image":
            path = Path(source.address)
            yield SourceImage(source, read_image(path), path)
        case "video":
            yield from _frames(source, Path(source.address), reading, on_video)
        case "camera":
            yield from _frames(source, int(source.address), reading, on_video)
        case "url":
            yield from _from_web(source, reading, on_video)


def _frames(
    source: Source, address: Path | int, reading: Reading, on_video: Callable[[int | None], None]
) -> Iterator[SourceImage]:
    video = Video(address)
    stated = None if video.stated_frames is None else -(-video.stated_frames // reading.frame_stride)
    bounds = [number for number in (stated, reading.max_frames) if number is not None]
    on_video(min(bounds) if bounds else None)
    fps = video.fps / reading.frame_stride if video.fps else None
    for frame in video.frames(frame_stride=reading.frame_stride, most=reading.max_frames):
        yield SourceImage(source, frame.image, frame=frame.number, fps=fps, time_s=frame.time_s)


def _from_web(source: Source, reading: Reading, on_video: Callable[[int | None], None]) -> Iterator[SourceImage]:
    url = source.address
    with TemporaryDirectory(prefix="ssd_lightning_") as folder:
        name = clean_name(PurePosixPath(unquote(urlsplit(url).path)).name or "image")
        path = Path(folder, name)
        try:
            content_type = fetch(url, path, most_bytes=reading.most_bytes)
            if path.suffix.lower() in VIDEO_SUFFIXES or content_type.startswith("video/"):
                yield from _frames(source, path, reading, on_video)
            else:
                yield SourceImage(source, read_image(path))
        except DataError as error:
            raise DataError(str(error).replace(str(path), url)) from error
