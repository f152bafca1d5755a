"""The dashboard as files in the run's directory."""

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ssd_lightning.training.callbacks.dashboard.contents import Validation
from ssd_lightning.training.callbacks.dashboard.sink import Sink
from ssd_lightning.visualization.training_plots import PANELS, Curve, LevelCount, draw_curves

MOST_SHEETS = 24
JPEG_QUALITY = 88


class FileSink(Sink):
    """Writes PNG, JPEG and CSV files.

    Plots and tables have fixed names and show the newest validation. Sheets of images are kept for several
    validations. If there are more than `MOST_SHEETS`, every second one is removed.

    Args:
        folder: output folder. It is created when something is written.
        metrics: path of `metrics.csv`, the source of the curves. It may be missing.
        title: title of the curves.
    """

    def __init__(self, folder: Path, *, metrics: Path, title: str) -> None:
        self.folder = folder
        self.metrics = metrics
        self.title = title

    def clear(self) -> None:
        """Remove the files of an earlier run."""
        for pattern in ("*.png", "*.jpg", "*.csv", "images/*.jpg"):
            for path in self.folder.glob(pattern):
                path.unlink()

    def show_batch(self, drawing: np.ndarray, *, step: int) -> None:
        """Write `training_batch.jpg`."""
        self._write_image("training_batch.jpg", drawing)

    def show_matches(self, levels: Sequence[LevelCount], drawing: np.ndarray, *, step: int) -> None:
        """Write `matched_priors.png` and `.csv`."""
        self._write_image("matched_priors.png", drawing)
        rows = [(number, *level.grid, level.matched, level.priors) for number, level in enumerate(levels, start=1)]
        self._write_table("matched_priors.csv", ("level", "rows", "columns", "matched", "priors"), rows)

    def show_validation(self, validation: Validation) -> None:
        """Write `pr_curves`, `confusion_matrix` and `class_ap` (`.png` and `.csv`), and a sheet in `images/`."""
        names = validation.class_names
        for name in ("pr_curves", "confusion_matrix", "class_ap"):
            self._write_image(f"{name}.png", validation.drawings[name])
        self._write_table(
            "pr_curves.csv",
            ("class", "recall", "precision", "score"),
            (
                (curve.class_name, f"{recall:.6g}", f"{precision:.6g}", f"{score:.6g}")
                for curve in validation.curves
                for recall, precision, score in zip(curve.recall, curve.precision, curve.scores, strict=True)
            ),
        )
        found = ["(background)", *names]
        self._write_table(
            "confusion_matrix.csv",
            ("is", *found),
            ((name, *row) for name, row in zip(found, validation.confusion.tolist(), strict=True)),
        )
        header = ("class", "objects", "ap_11point", "ap_area")
        self._write_table("class_ap.csv", header, validation.rows())
        if "images" in validation.drawings:
            name = f"images/epoch_{validation.epoch:04d}_step_{validation.step:07d}.jpg"
            self._write_image(name, validation.drawings["images"])
            self._thin_out()

    def show_curves(self) -> None:
        """Write `curves.png`."""
        drawing = draw_curves(read_curves(self.metrics), title=self.title)
        if drawing is not None:
            self._write_image("curves.png", drawing)

    def _thin_out(self) -> None:
        sheets = sorted((self.folder / "images").glob("epoch_*.jpg"))
        if len(sheets) > MOST_SHEETS:
            for path in sheets[1:-1:2]:
                path.unlink()

    def _write_image(self, name: str, drawing: np.ndarray) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.stem}.partial{path.suffix}")
        try:
            Image.fromarray(drawing).save(partial, quality=JPEG_QUALITY)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _write_table(self, name: str, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{name}.partial")
        try:
            with partial.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
                writer = csv.writer(file)
                writer.writerow(header)
                writer.writerows(rows)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def read_curves(metrics: Path) -> dict[str, Curve]:
    """Read the curves of all panels from `metrics.csv`. Empty if the file does not exist."""
    wanted = [name for names in PANELS.values() for name in names]
    if not metrics.is_file():
        return {}
    with metrics.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if "step" not in header:
            return {}
        step_column = header.index("step")
        columns = [(name, header.index(name)) for name in wanted if name in header]
        steps: dict[str, list[float]] = defaultdict(list)
        values: dict[str, list[float]] = defaultdict(list)
        for row in reader:
            if len(row) != len(header):
                continue  # truncated
            for name, column in columns:
                if row[column] and math.isfinite(value := float(row[column])):
                    steps[name].append(float(row[step_column]))
                    values[name].append(value)
    return {name: Curve(steps[name], values[name]) for name in steps}
