"""The outputs of `save=`: annotated images and videos, and detections as JSON, CSV, COCO or VOC.

All writers write image by image and keep no images in memory.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from ssd_lightning.errors import DataError
from ssd_lightning.inference.frames import SourceImage
from ssd_lightning.inference.names import drawn_name
from ssd_lightning.inference.pre_labels import PreLabels
from ssd_lightning.inference.predictions import PredictionsCsv, PredictionsJson
from ssd_lightning.inference.results import ImageDetections
from ssd_lightning.inference.sources import Source
from ssd_lightning.inference.video import VideoFile

Output = Literal["images", "json", "csv", "coco", "voc"]
OUTPUTS: tuple[str, ...] = get_args(Output)
DATA_SETS = ("coco", "voc")
"""Outputs that are a folder with images."""
JPEG_QUALITY = 92


class Writer(Protocol):
    """One kind of output."""

    def write(self, source_image: SourceImage, found: ImageDetections) -> None:
        """Write the detections of one image or frame."""

    def close(self) -> None:
        """Finish the files."""


def open_writers(
    outputs: Sequence[str],
    folder: Path,
    *,
    names: Mapping[Source, str],
    header: Mapping[str, Any],
    class_names: Sequence[str],
    skipped: Sequence[str],
) -> list[Writer]:
    """Open the requested writers, see `OUTPUTS`, in an existing folder.

    Args:
        outputs: names from `OUTPUTS`.
        folder: existing output folder.
        names: source -> base name of its files, without suffix.
        header: entries at the start of `predictions.json`.
        class_names: names of the classes 1..C.
        skipped: list that is filled later, with a message for each source that could not be read.
    """
    writers: list[Writer] = []
    for output in outputs:
        match output:
            case "images":
                writers.append(Annotated(folder, names))
            case "json":
                drawn = names if "images" in outputs else None
                writers.append(PredictionsJson(folder / "predictions.json", header, drawn, skipped))
            case "csv":
                writers.append(PredictionsCsv(folder / "predictions.csv"))
            case "coco" | "voc":
                writers.append(PreLabels(folder / output, output, names, class_names))
    return writers


class LazyWriter:
    """Opens writers at the first image, so that a run without readable images leaves no files."""

    def __init__(self, open_all: Callable[[], list[Writer]]) -> None:
        self._open_all = open_all
        self._writers: list[Writer] | None = None

    def write(self, source_image: SourceImage, found: ImageDetections) -> None:
        """Write with all writers."""
        if self._writers is None:
            self._writers = self._open_all()
        for writer in self._writers:
            writer.write(source_image, found)

    def close(self) -> None:
        """Finish all files, even if one of them fails."""
        with ExitStack() as stack:
            for writer in self._writers or ():
                stack.callback(writer.close)


def refuse_replacing(
    outputs: Sequence[str], folder: Path, *, sources: Sequence[Source], names: Mapping[Source, str]
) -> None:
    """Check that no output replaces an input image or video, or existing labels.

    Raises:
        DataError: an output would replace one.
    """
    for output in outputs:
        if output in DATA_SETS and (folder / output).exists():
            raise DataError(
                f"{folder / output} exists, and may hold labels that were corrected by hand; choose another output= or "
                "remove it first"
            )
    local = [source for source in sources if source.kind in ("image", "video")]
    if "images" in outputs:
        originals = {_identity(Path(source.address)) for source in local} - {None}
        for source in sources:
            for is_video in (False, True):
                name = drawn_name(names[source], is_video=is_video)
                if _identity(folder / name) in originals:
                    raise DataError(
                        f"output={folder}: the annotated copy would replace the image {name}; choose another folder"
                    )


def _identity(path: Path) -> tuple[int, int] | None:
    """Return the device and inode of a file or folder, which are equal for all links to it."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


class Annotated:
    """Writes a JPEG for each image and an MP4 for each video, with the detections drawn."""

    def __init__(self, folder: Path, names: Mapping[Source, str]) -> None:
        self.folder = folder
        self.names = names
        self._source: Source | None = None
        self._video: VideoFile | None = None

    def write(self, source_image: SourceImage, found: ImageDetections) -> None:
        """Draw and save."""
        drawn = found.draw(score_threshold=0)
        path = self.folder / drawn_name(self.names[source_image.source], is_video=source_image.frame is not None)
        if source_image.frame is None:
            drawn.save(path, quality=JPEG_QUALITY)
            return
        if source_image.source != self._source or self._video is None:
            self.close()
            self._source, self._video = source_image.source, VideoFile(path, source_image.fps)
        self._video.write(np.asarray(drawn))

    def close(self) -> None:
        """Finish the open video."""
        if self._video is not None:
            self._video.close()
        self._video = None
