"""The outputs of `save=`: annotated images and videos, and detections as JSON, CSV, COCO or VOC.

All writers write image by image and keep no images in memory.
"""

import csv
import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ssd_lightning.data.writers import written_class_names
from ssd_lightning.errors import DataError
from ssd_lightning.inference.frames import SourceImage
from ssd_lightning.inference.names import drawn_name
from ssd_lightning.inference.pre_labels import PreLabels
from ssd_lightning.inference.results import ImageDetections
from ssd_lightning.inference.sources import Source
from ssd_lightning.inference.video import VideoFile

OUTPUTS = ("images", "json", "csv", "coco", "voc")
DATA_SETS = ("coco", "voc")
"""Outputs that are a folder with images."""
JPEG_QUALITY = 92
COLUMNS = ("image", "width", "height", "label", "score", "xmin", "ymin", "xmax", "ymax", "frame", "time_s")


Writer: TypeAlias = "Annotated | PredictionsJson | PredictionsCsv | PreLabels"


@dataclass(kw_only=True)
class Writers:
    """All outputs of a run. They are opened at the first image: a run without readable images leaves no files.

    Raises:
        DataError: a class name cannot be written in one of the outputs.
    """

    outputs: Sequence[str]
    """Names from `OUTPUTS`."""
    folder: Path
    """An existing folder."""
    names: Mapping[Source, str]
    """Source -> base name of its files, without suffix."""
    header: Mapping[str, Any]
    """Entries at the start of `predictions.json`."""
    class_names: Sequence[str]
    """Names of the classes 1..C."""
    skipped: Sequence[str]
    """List that is filled later, with a message for each source that could not be read."""
    _opened: list[Writer] = field(default_factory=list)

    def __post_init__(self) -> None:
        for output in DATA_SETS:
            if output in self.outputs:
                written_class_names(self.class_names, output)

    def _open(self, output: str) -> Writer:
        match output:
            case "images":
                return Annotated(self.folder, self.names)
            case "json":
                drawn = self.names if "images" in self.outputs else None
                return PredictionsJson(self.folder / "predictions.json", self.header, drawn, self.skipped)
            case "csv":
                return PredictionsCsv(self.folder / "predictions.csv")
            case _:
                return PreLabels(
                    self.folder / output, "voc" if output == "voc" else "coco", self.names, self.class_names
                )

    def write(self, source_image: SourceImage, found: ImageDetections) -> None:
        """Write the detections of one image or frame to all outputs."""
        if not self._opened:  # all or none: a file of an earlier run stays if one of the outputs cannot be opened
            self._opened = [self._open(output) for output in self.outputs]
        for writer in self._opened:
            writer.write(source_image, found)

    def close(self) -> None:
        """Finish all files, even if one of them fails."""
        with ExitStack() as stack:
            for writer in self._opened:
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
    if "images" in outputs:
        local = [source.address for source in sources if source.kind in ("image", "video")]
        originals = {identity(Path(address)) for address in local} - {None}
        for source in sources:
            for is_video in (False, True):
                name = drawn_name(names[source], is_video=is_video)
                if identity(folder / name) in originals:
                    raise DataError(
                        f"output={folder}: the annotated copy would replace the image {name}; choose another folder"
                    )


def identity(path: Path) -> tuple[int, int] | None:
    """Return the device and inode of a file or folder, which are equal for all links to it."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


@dataclass
class Annotated:
    """Writes a JPEG for each image and an MP4 for each video, with the detections drawn."""

    folder: Path
    names: Mapping[Source, str]
    _source: Source | None = None
    _video: VideoFile | None = None

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


class _Report:
    """A text file that gets its final name when it is complete."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # The name of an image may be invalid UTF-8. Its bytes are written unchanged.
        part = path.with_name(f"{path.name}.part")
        self._file = part.open("w", encoding="utf-8", errors="surrogateescape", newline="")

    def close(self) -> None:
        """Rename the file."""
        self._file.close()
        os.replace(self._file.name, self.path)


class PredictionsJson(_Report):
    """Writes `predictions.json` image by image. `drawn` has the names of annotated copies; None if there are none."""

    def __init__(
        self, path: Path, header: Mapping[str, Any], drawn: Mapping[Source, str] | None, skipped: Sequence[str]
    ) -> None:
        super().__init__(path)
        self.drawn = drawn
        self.skipped = skipped
        self._file.write(json.dumps(header, indent=2).removesuffix("\n}") + ',\n  "images": [')
        self._separator = "\n"

    def write(self, source_image: SourceImage, found: ImageDetections) -> None:
        """Add one image or frame."""
        source, is_video = source_image.source, source_image.frame is not None
        record = {
            "file": str(source),
            "drawn": None if self.drawn is None else drawn_name(self.drawn[source], is_video=is_video),
            **({"frame": source_image.frame, "time_s": _rounded(source_image.time_s)} if is_video else {}),
            **found.as_record(),
        }
        self._file.write(self._separator + textwrap.indent(json.dumps(record, indent=2), "    "))
        self._separator = ",\n"

    def close(self) -> None:
        """Add the skipped sources, and rename the file."""
        skipped = textwrap.indent(json.dumps(list(self.skipped), indent=2), "  ").lstrip()
        self._file.write(f'\n  ],\n  "skipped": {skipped}\n}}\n')
        super().close()


class PredictionsCsv(_Report):
    """Writes `predictions.csv` with one row per detection. An image without detections has a row without label.

    `data=csv_folder` reads these columns.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._rows = csv.writer(self._file)
        self._rows.writerow(COLUMNS)

    def write(self, source_image: SourceImage, found: ImageDetections) -> None:
        """Add the rows of one image or frame."""
        record, of_frame = found.as_record(), [source_image.frame, _rounded(source_image.time_s)]
        rows = [[one["class"], one["score"], *one["box_xyxy_px"]] for one in record["detections"]] or [[""] * 6]
        for row in rows:
            self._rows.writerow([str(source_image.source), record["width"], record["height"], *row, *of_frame])


def _rounded(time_s: float | None) -> float | None:
    return None if time_s is None else round(time_s, 3)
