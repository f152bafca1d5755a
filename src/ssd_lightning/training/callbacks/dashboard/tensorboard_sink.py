"""The dashboard in TensorBoard."""

from collections.abc import Mapping, Sequence

import numpy as np
from pytorch_lightning.loggers import TensorBoardLogger

from ssd_lightning.training.callbacks.dashboard.contents import Validation
from ssd_lightning.training.callbacks.dashboard.sinks import Sink
from ssd_lightning.visualization.training_plots import (
    LevelCount,
    draw_class_ap,
    draw_confusion,
    draw_pr_curves,
)

CURVES: Mapping[str, Sequence[str]] = {
    "losses": ("train/loss_box", "train/loss_cls", "val/loss_box", "val/loss_cls"),
    "mean AP": ("val/map_11point", "val/map_area", "val/map_50", "val/map_75", "val/map"),
    "COCO AP by size": ("val/map_small", "val/map_medium", "val/map_large"),
    "learning rate": ("lr",),
    "images per second": ("speed/images_per_s",),
    "share of time that waits for data": ("speed/data_wait",),
    "peak memory, MiB": ("speed/peak_memory_mib",),
    "AP by class": ("val/ap_11point/.*",),
}
"""Title of each panel -> names in the log."""


class TensorBoardSink(Sink):
    """Writes images, plots and tables to a TensorBoard logger."""

    def __init__(self, logger: TensorBoardLogger) -> None:
        self.logger = logger
        self._has_layout = False

    def show_batch(self, drawing: np.ndarray, *, step: int) -> None:
        """Add `train/batch`."""
        self._add("train/batch", drawing, step)

    def show_matches(self, levels: Sequence[LevelCount], drawing: np.ndarray, *, step: int) -> None:
        """Add `train/matched_priors`."""
        self._add("train/matched_priors", drawing, step)

    def show_validation(self, validation: Validation) -> None:
        """Add the drawings as `val/...` and the table `val/ap_per_class`. The first call adds the layout of curves."""
        if not self._has_layout:
            self._has_layout = True
            panels = {title: ["Multiline", list(names)] for title, names in CURVES.items()}
            self.logger.experiment.add_custom_scalars({"dashboard": panels})
        for name, drawing in draw_plots(validation).items():
            self._add(f"val/{name}", drawing, validation.step)
        if validation.sheet is not None:
            self._add("val/images", validation.sheet, validation.step)
        rows = [
            f"| {_cell(name)} | {objects} | {_score(eleven_point)} | {_score(area)} |"
            for name, objects, eleven_point, area in validation.rows()
        ]
        table = "\n".join(("| class | objects | AP 11-point | AP area |", "|---|--:|--:|--:|", *rows))
        self.logger.experiment.add_text("val/ap_per_class", table, validation.step)

    def show_best_score(self, score: float, *, step: int) -> None:
        """Show the score in the hyperparameter view."""
        self.logger.experiment.add_scalar("hp_metric", score, step)

    def _add(self, name: str, drawing: np.ndarray, step: int) -> None:
        self.logger.experiment.add_image(name, drawing, step, dataformats="HWC")


def draw_plots(validation: Validation) -> dict[str, np.ndarray]:
    """Draw precision and recall, confusion, and the AP of each class so far: uint8 `[H, W, 3]` each."""
    names, when = validation.class_names, validation.when
    lines = [(curve.recall, curve.precision) for curve in validation.curves]
    aps = [curve.ap for curve in validation.curves]
    found = f"objects found, score {validation.score_threshold:g} or more, {when}"
    return {
        "pr_curves": draw_pr_curves(lines, aps, names, title=f"precision and recall at IoU .5, {when}"),
        "confusion_matrix": draw_confusion(validation.confusion, names, title=found),
        "class_ap": draw_class_ap(validation.epochs, validation.class_ap, names, title=f"AP by class, {when}"),
    }


def _cell(name: str) -> str:
    plain = "".join(letter if letter.isprintable() else "?" for letter in name)
    return plain.replace("|", "\\|")


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
