"""The dashboard in Weights & Biases. Imported only where it is used, since wandb takes a second."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import wandb

from ssd_lightning.errors import one_line
from ssd_lightning.training.callbacks.dashboard.contents import (
    CURVE_POINTS,
    IMAGE_PX,
    ShownImage,
    Validation,
    number,
)
from ssd_lightning.training.callbacks.dashboard.sinks import Sink
from ssd_lightning.training.loggers import SturdyWandbLogger
from ssd_lightning.visualization.training_plots import LevelCount

MOST_ROWS = 10_000
"""Limit of a W&B table. Further rows are dropped."""
LEAST_SCORE = 0.05
"""Minimum score of the uploaded detections. The slider in W&B filters them further."""
MOST_BOXES = 100
"""Maximum number of detections per image, best first."""
BACKGROUND = "(background)"


class WandbSink(Sink):
    """Logs media, charts, tables and the best checkpoint to a run."""

    def __init__(self, logger: SturdyWandbLogger) -> None:
        self.logger = logger
        self._kept: tuple[int, float] | None = None

    def show_batch(self, drawing: np.ndarray, *, step: int) -> None:
        """Log `train/batch`."""
        caption = "the first batch; dashed: the priors that are matched to an object, in its colour"
        self._log({"train/batch": wandb.Image(drawing, caption=caption, file_type="jpg")}, step)

    def show_matches(self, levels: Sequence[LevelCount], drawing: np.ndarray, *, step: int) -> None:
        """Log the bar chart `train/matched_priors`."""
        rows = [
            [f"level {place}, {level.grid[0]} x {level.grid[1]}", level.matched, level.priors]
            for place, level in enumerate(levels, start=1)
        ]
        table = wandb.Table(columns=["level", "matched", "priors"], data=rows)
        chart = wandb.plot.bar(table, "level", "matched", title="matched priors of each level")
        self._log({"train/matched_priors": chart}, step)

    def show_validation(self, validation: Validation) -> None:
        """Log `val/images`, `val/ap_per_class`, `val/class_ap`, `val/pr_curves` and `val/confusion_matrix`."""
        names = [one_line(name) for name in validation.class_names]
        values = {
            "val/ap_per_class": wandb.Table(
                columns=["class", "objects", "ap_11point", "ap_area"],
                data=[[one_line(name), *rest] for name, *rest in validation.rows()],
            ),
            "val/pr_curves": pr_chart(validation, names),
            "val/class_ap": class_ap_chart(validation, names),
            "val/confusion_matrix": confusion_chart(validation.confusion, names),
        }
        if validation.images:
            values["val/images"] = [image_with_boxes(image, names) for image in validation.images]
        self._log(values, validation.step)

    def keep_model(self, path: Path, *, epoch: int, monitor: str, score: float, is_last: bool) -> None:
        """Log the checkpoint as an artifact, if the logger's `log_model` allows it and the checkpoint has changed."""
        every_time = self.logger.log_model == "best" and not self.logger.is_offline
        this = (epoch, score)
        if self.logger.log_model == "none" or not (is_last or every_time) or self._kept == this:
            return
        run = self.logger.experiment
        about = {"epoch": epoch, "monitor": monitor, "score": number(score)}
        artifact = wandb.Artifact(f"model-{run.id}", type="model", metadata=about)
        # During training the file may be replaced before it is uploaded, so W&B has to copy it first.
        artifact.add_file(str(path), name=path.name, skip_cache=True, policy="immutable" if is_last else "mutable")
        run.log_artifact(artifact, aliases=["best", "latest", f"epoch-{epoch}"])
        self._kept = this

    def _log(self, values: dict[str, Any], step: int) -> None:
        self.logger.experiment.log({**values, "trainer/global_step": step})


def image_with_boxes(image: ShownImage, class_names: Sequence[str]) -> wandb.Image:
    """Create a W&B image with the box layers `prediction` and `ground_truth`.

    W&B shows only images of equal size side by side, so all are padded to a square.
    """
    height, width = image.image.shape[:2]
    square = np.full((IMAGE_PX, IMAGE_PX, 3), 28, dtype=np.uint8)
    square[:height, :width] = image.image
    scale = torch.tensor([width, height, width, height]) / IMAGE_PX
    best = image.found.scores.argsort(descending=True, stable=True)[:MOST_BOXES]
    best = best[image.found.scores[best] >= LEAST_SCORE]
    boxes, scores, labels = (column[best] for column in image.found[1:])
    shown_scores = [f" {score:.2f}" for score in scores.tolist()]
    predicted = _layer(boxes.clamp(0, 1) * scale, labels, shown_scores, class_names)
    for box, score in zip(predicted["box_data"], scores.tolist(), strict=True):
        box["scores"] = {"score": score}
    true_boxes, true_labels, difficult = image.true[1:]
    flags = [" (difficult)" * is_difficult for is_difficult in difficult.tolist()]
    layers = {"prediction": predicted, "ground_truth": _layer(true_boxes * scale, true_labels, flags, class_names)}
    return wandb.Image(square, caption=one_line(image.image_id), file_type="jpg", boxes=layers)


def _layer(
    boxes_xyxy: torch.Tensor, labels: torch.Tensor, endings: Sequence[str], class_names: Sequence[str]
) -> dict[str, Any]:
    """Write boxes as W&B reads them. Captions are the class names and their endings."""
    corners, names = ("minX", "minY", "maxX", "maxY"), dict(enumerate(class_names, start=1))
    box_data = [
        {"position": dict(zip(corners, box, strict=True)), "class_id": label, "box_caption": names[label] + ending}
        for box, label, ending in zip(boxes_xyxy.tolist(), labels.tolist(), endings, strict=True)
    ]
    return {"box_data": box_data, "class_labels": names}


def pr_chart(validation: Validation, class_names: Sequence[str]) -> Any:
    """Draw precision against recall, one line per class. With many classes, each line has fewer points."""
    with_points = [
        (curve, name) for curve, name in zip(validation.curves, class_names, strict=True) if len(curve.recall)
    ]
    points = max(2, min(CURVE_POINTS, MOST_ROWS // max(1, len(with_points))))
    curves = [(curve.thinned(points), name) for curve, name in with_points]
    return wandb.plot.line_series(
        xs=[curve.recall.round(5).tolist() for curve, _ in curves] or [[]],
        ys=[curve.precision.round(5).tolist() for curve, _ in curves] or [[]],
        keys=[name for _, name in curves] or ["nothing found"],
        title="precision and recall at IoU .5",
        xname="recall",
    )


def class_ap_chart(validation: Validation, class_names: Sequence[str]) -> Any:
    """Draw the AP of every class over the epochs. A long run with many classes is thinned to fit a table."""
    values = validation.class_ap
    most = max(2, MOST_ROWS // len(class_names))
    kept = np.unique(np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)).tolist()
    scored = [(name, values[kept, place]) for place, name in enumerate(class_names)]
    scored = [(name, column) for name, column in scored if np.isfinite(column).all() and len(column)]
    epochs = [validation.epochs[place] for place in kept]
    return wandb.plot.line_series(
        xs=epochs if scored else [[]],
        ys=[column.round(5).tolist() for _, column in scored] or [[]],
        keys=[name for name, _ in scored] or ["nothing scored"],
        title="AP by class, 11-point",
        xname="epoch",
    )


def confusion_chart(counts: np.ndarray, class_names: Sequence[str]) -> Any:
    """Draw the confusion matrix. With very many classes, only the diagonal and the largest cells."""
    names = [BACKGROUND, *class_names]
    places = np.indices(counts.shape).reshape(2, -1).T
    if len(places) > MOST_ROWS:
        by_count = np.argsort(-(counts + np.eye(len(names)) * counts.max(initial=0)).flatten(), kind="stable")
        places = places[by_count[:MOST_ROWS]]
    rows = [[names[row], names[column], int(counts[row, column])] for row, column in places.tolist()]
    return wandb.plot_table(
        vega_spec_name="wandb/confusion_matrix/v1",
        data_table=wandb.Table(columns=["Actual", "Predicted", "nPredictions"], data=rows),
        fields={"Actual": "Actual", "Predicted": "Predicted", "nPredictions": "nPredictions"},
        string_fields={"title": "objects found, 0 is no object"},
    )
