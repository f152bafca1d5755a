"""Places where a dashboard is shown, and the one in the run's directory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ssd_lightning.run_files import written_whole
from ssd_lightning.training.callbacks.dashboard.contents import Validation
from ssd_lightning.visualization.training_plots import LevelCount

MOST_SHEETS = 24
JPEG_QUALITY = 88


class Sink:
    """A place where a dashboard is shown. Subclasses override what they can show."""

    def show_batch(self, drawing: np.ndarray, *, step: int) -> None:
        """Show the first training batch with its matched priors, uint8 `[H, W, 3]`."""

    def show_matches(self, levels: Sequence[LevelCount], drawing: np.ndarray, *, step: int) -> None:
        """Show the number of matched priors per level, as numbers and as a drawing, uint8 `[H, W, 3]`."""

    def show_validation(self, validation: Validation) -> None:
        """Show a validation."""

    def show_best_score(self, score: float, *, step: int) -> None:
        """Show the score of a new best checkpoint."""

    def keep_model(self, path: Path, *, epoch: int, monitor: str, score: float, is_last: bool) -> None:
        """Keep the best checkpoint so far, of an epoch counted from 0. `is_last` is true at the end of training."""


class FileSink(Sink):
    """Writes PNG and JPEG files to a folder, which is created when something is written.

    `report.html` has the curves, tables and plots. Sheets of images are kept for several validations. If there are more
    than `MOST_SHEETS`, every second one is removed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def show_batch(self, drawing: np.ndarray, *, step: int) -> None:
        """Write `training_batch.jpg`."""
        self._write("training_batch.jpg", drawing)

    def show_matches(self, levels: Sequence[LevelCount], drawing: np.ndarray, *, step: int) -> None:
        """Write `matched_priors.png`."""
        self._write("matched_priors.png", drawing)

    def show_validation(self, validation: Validation) -> None:
        """Write a sheet in `images/`."""
        if validation.sheet is None:
            return
        self._write(f"images/epoch_{validation.epoch:04d}_step_{validation.step:07d}.jpg", validation.sheet)
        sheets = sorted((self.folder / "images").glob("epoch_*.jpg"))
        for path in sheets[1:-1:2] if len(sheets) > MOST_SHEETS else ():
            path.unlink()

    def _write(self, name: str, drawing: np.ndarray) -> None:
        with written_whole(self.folder / name) as partial:
            Image.fromarray(drawing).save(partial, quality=JPEG_QUALITY)
