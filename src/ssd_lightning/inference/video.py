"""Reading of videos and cameras, and writing of annotated videos."""

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Silences FFmpeg's own messages; errors are reported here. OpenCV reads the variable when it opens the first video.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np

from ssd_lightning.checks import require_number
from ssd_lightning.data.special_files import refuse_special_file
from ssd_lightning.errors import DataError

log = logging.getLogger(__name__)

USUAL_FPS = 25.0
"""Used if no plausible frame rate is known."""
MOST_FPS = 1000.0
MOST_DAMAGED = 1000
"""Frames of a file in a row that may be damaged. OpenCV reports them like the end of the file."""
WHOLE_SHARE = 0.98
"""A file that ends before this share of its stated frames, and of their time, is not whole."""


class Video:
    """An open video file or camera, by its path or number. `name` is for messages.

    Raises:
        DataError: it cannot be opened.
    """

    def __init__(self, address: Path | str | int, name: str | None = None) -> None:
        address = Path(address) if isinstance(address, str) else address
        self._capture = _open(address)
        self.address = address
        self.name = name or (f"camera {address}" if isinstance(address, int) else str(address))
        fps, count = self._capture.get(cv2.CAP_PROP_FPS), self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.fps = fps if math.isfinite(fps) and 0 < fps <= MOST_FPS else None
        """Frames per second, if the file has a plausible rate."""
        self.stated_frames = int(count) if math.isfinite(count) and 0 < count < 1e9 else None
        """Number of frames stated by the file, which may be wrong. None for cameras and if it is missing."""
        self.time_s: float | None = None
        """Seconds from the start of the file to the last frame that was read. None for cameras and if it is unknown."""

    def frames(self, *, frame_stride: int = 1, most: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Decode every `frame_stride`-th frame, at most `most`, one by one. The video is closed at the end.

        Damaged frames of a file are skipped. A camera that ends, and a file that is not whole, are logged.

        Yields:
            Index among all frames of the video, from 0, and the frame: uint8 `[H, W, 3]`, RGB, upright.

        Raises:
            ConfigurationError: `frame_stride` is not a whole number of at least 1.
            DataError: no frame can be decoded.
        """
        require_number("frame_stride", frame_stride, 1, whole=True)
        given = number = count = lost = damaged = 0
        try:
            while most is None or given < most:
                is_wanted = number % frame_stride == 0
                was_read, bgr = self._capture.read() if is_wanted else (self._capture.grab(), None)
                if was_read and (bgr is None or bgr.ndim == 3):
                    count, lost, damaged = count + 1, lost + damaged, 0
                    self.time_s = self._time_s(number)
                    if bgr is not None:
                        yield number, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
                        given += 1
                elif isinstance(self.address, int) or damaged == MOST_DAMAGED:
                    break
                else:
                    damaged += 1
                number += 1
        finally:
            self._capture.release()
        if given == 0 and most != 0:
            raise DataError(f"{self.name}: it can be opened, but no frame can be read")
        if given == most:
            return
        if isinstance(self.address, int):
            log.warning("%s has ended after %d frames", self.name, count)
        elif lost or not self._reached_end(count):
            stated, why = self.stated_frames or "?", "the others are damaged, missing or trimmed"
            log.warning("%s: read %d of its %s frames; %s", self.name, count, stated, why)

    def _time_s(self, number: int) -> float | None:
        """Return the time of a frame that was just read. Files without times have frames at equal distances."""
        if isinstance(self.address, int):
            return None
        noted_s: float = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if noted_s > 0:
            return noted_s
        return number / self.fps if self.fps else None

    def _reached_end(self, count: int) -> bool:
        if self.stated_frames is None or count >= WHOLE_SHARE * self.stated_frames:
            return True
        # Some files state only their duration. At a variable rate, OpenCV computes too many frames from it.
        last = 0.0 if self.time_s is None or self.fps is None else self.time_s * self.fps + 1
        return last >= WHOLE_SHARE * self.stated_frames


class VideoFile:
    """An MP4 that is written frame by frame, by default at 25 frames per second."""

    def __init__(self, path: Path, fps: float | None) -> None:
        self.path = path
        self._fps = fps or USUAL_FPS
        self._writer: Any = None
        self._size_px = (0, 0)

    def write(self, image: np.ndarray) -> None:
        """Add a frame, uint8 `[H, W, 3]` RGB. The first frame sets the size of the video.

        Raises:
            DataError: the file cannot be written.
        """
        # MPEG-4 stores colours for blocks of 2 x 2 pixels: an odd last row or column would be cut off.
        height, width = image.shape[:2]
        image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._writer is None:
            self._size_px = height, width = image.shape[:2]
            with _silence():
                code = cv2.VideoWriter.fourcc(*"mp4v")
                path = _as_opencv_can(self.path)
                self._writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, code, self._fps, (width, height))
            if not self._writer.isOpened():
                raise DataError(f"{self.path}: cannot write a video of {width} x {height} px (width x height) there")
        if image.shape[:2] != self._size_px:  # the writer would drop it silently
            image = cv2.resize(image, self._size_px[::-1], interpolation=cv2.INTER_AREA)
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file. Players cannot open an unfinished file."""
        if self._writer is not None:
            self._writer.release()


def _open(address: Path | int) -> Any:
    with _silence():
        if isinstance(address, int):
            capture = cv2.VideoCapture(address)
        else:
            refuse_special_file(address)
            if not address.is_file():
                raise DataError(f"{address}: there is no such video")
            # Only FFmpeg: other readers interpret numbers and percent signs in a name as a series of images.
            capture = cv2.VideoCapture(_as_opencv_can(address), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        if isinstance(address, int):
            raise DataError(
                f"there is no camera {address}, or it is in use or this account has no permission to use it"
            )
        raise DataError(f"{address}: FFmpeg cannot read this file as a video, or it is truncated")
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # apply the rotation that phones store
    return capture


def _as_opencv_can(path: Path) -> str:
    """Return a path for OpenCV: absolute, because FFmpeg reads `name:` as a protocol.

    Raises:
        DataError: the path is not valid UTF-8, which makes OpenCV 5 crash.
    """
    text = os.path.abspath(path)
    if not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError(f"{path}: OpenCV cannot open a video whose name is not UTF-8; rename it")
    return text


@contextmanager
def _silence() -> Iterator[None]:
    logging = cv2.utils.logging
    before = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(before)
