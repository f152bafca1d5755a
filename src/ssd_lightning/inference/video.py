"""Reading of videos and cameras, and writing of annotated videos."""

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

from ssd_lightning.data.special_files import refuse_special_file
from ssd_lightning.errors import DataError

USUAL_FPS = 25.0
"""Used if no plausible frame rate is known."""
MOST_FPS = 1000.0


class Video:
    """An open video file or camera, by its path or number.

    Raises:
        DataError: it cannot be opened.
    """

    def __init__(self, address: Path | int) -> None:
        self._capture = _open(address)
        self.address = address
        fps, count = self._capture.get(cv2.CAP_PROP_FPS), self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.fps = fps if math.isfinite(fps) and 0 < fps <= MOST_FPS else None
        """Frames per second, if the file has a plausible rate."""
        self.stated_frames = int(count) if math.isfinite(count) and 0 < count < 1e9 else None
        """Number of frames stated by the file, which may be wrong. None for cameras and if it is missing."""

    def frames(self, *, frame_stride: int = 1, most: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Decode every `frame_stride`-th frame, at most `most`, one by one. The video is closed at the end.

        Yields:
            Index among all frames of the video, from 0, and the frame: uint8 `[H, W, 3]`, RGB, upright.

        Raises:
            DataError: no frame can be decoded.
        """
        given = number = 0
        try:
            while (most is None or given < most) and self._capture.grab():
                if number % frame_stride == 0:
                    was_decoded, bgr = self._capture.retrieve()
                    if not was_decoded or bgr is None or bgr.ndim != 3:
                        break
                    yield number, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
                    given += 1
                number += 1
        finally:
            self._capture.release()
        if given == 0 and most != 0:
            called = f"camera {self.address}" if isinstance(self.address, int) else self.address
            raise DataError(f"{called}: it can be opened, but no frame can be read")


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
