"""Writers of `predictions.json` and `predictions.csv`."""

import csv
import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssd_lightning.inference.frames import SourceImage
from ssd_lightning.inference.names import drawn_name
from ssd_lightning.inference.results import PIXEL_DECIMALS, SCORE_DECIMALS, ImageDetections
from ssd_lightning.inference.sources import Source

COLUMNS = ("image", "width", "height", "label", "score", "xmin", "ymin", "xmax", "ymax", "frame", "time_s")


class PredictionsJson:
    """Writes `predictions.json` image by image. The file gets its final name when it is complete.

    Args:
        path: path of the file.
        header: entries at the start of the file.
        drawn: source -> name of its annotated copy without suffix. None if there are no copies.
        skipped: list at the end of the file.
    """

    def __init__(
        self, path: Path, header: Mapping[str, Any], drawn: Mapping[Source, str] | None, skipped: Sequence[str]
    ) -> None:
        self.path = path
        self.drawn = drawn
        self.skipped = skipped
        self._file = _part_of(path).open("w", encoding="utf-8")
        self._file.write(json.dumps(header, indent=2).removesuffix("\n}") + ',\n  "images": [')
        self._separator = "\n"

    def write(self, source_image: SourceImage, found: ImageDetections) -> None:
        """Add one image or frame."""
        is_video = source_image.frame is not None
        stem = None if self.drawn is None else self.drawn[source_image.source]
        record = {
            "file": str(source_image.source),
            "drawn": None if stem is None else drawn_name(stem, is_video=is_video),
            **({"frame": source_image.frame, "time_s": _rounded(source_image.time_s)} if is_video else {}),
            **found.as_record(),
        }
        self._file.write(self._separator + textwrap.indent(json.dumps(record, indent=2), "    "))
        self._separator = ",\n"

    def close(self) -> None:
        """Add the skipped sources, and rename the file."""
        skipped = textwrap.indent(json.dumps(list(self.skipped), indent=2), "  ").lstrip()
        self._file.write(f'\n  ],\n  "skipped": {skipped}\n}}\n')
        self._file.close()
        os.replace(_part_of(self.path), self.path)


class PredictionsCsv:
    """Writes `predictions.csv` with one row per detection. An image without detections has a row without label.

    `data=csv_folder` reads these columns.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # A file name may be invalid UTF-8. Its bytes are written unchanged.
        self._file = _part_of(path).open("w", encoding="utf-8", errors="surrogateescape", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow(COLUMNS)

    def write(self, source_image: SourceImage, found: ImageDetections) -> None:
        """Add the rows of one image or frame."""
        height, width = found.image.shape[:2]
        start, end = [str(source_image.source), width, height], [source_image.frame, _rounded(source_image.time_s)]
        if not len(found):
            self._rows.writerow([*start, *[""] * 6, *end])
        for name, score, box in zip(found.names, found.scores.tolist(), found.boxes_xyxy_px.tolist(), strict=True):
            edges = [round(edge, PIXEL_DECIMALS) for edge in box]
            self._rows.writerow([*start, name, round(score, SCORE_DECIMALS), *edges, *end])

    def close(self) -> None:
        """Rename the file to its final name."""
        self._file.close()
        os.replace(_part_of(self.path), self.path)


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _rounded(time_s: float | None) -> float | None:
    return None if time_s is None else round(time_s, 3)
