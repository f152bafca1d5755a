"""What a dashboard shows of a validation, put together once for all the places that show it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssd_lightning.analysis.confusion import confusion_matrix
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.pr_curves import PRCurve, pr_curves
from ssd_lightning.data.images import read_image
from ssd_lightning.errors import DataError
from ssd_lightning.visualization.draw import draw_comparison, image_grid
from ssd_lightning.visualization.score_plots import PRLine, draw_class_ap, draw_confusion, draw_pr_curves

IMAGE_PX = 400
"""Longer side of the images that are shown."""
MOST_BOXES = 100
"""Detections of an image that are handed on, best first."""
CURVE_POINTS = 101


@dataclass(frozen=True, eq=False)
class ShownImage:
    """A validation image with what is there and what was found."""

    image_id: str
    image: np.ndarray
    """uint8 `[H, W, 3]`, its longer side `IMAGE_PX`."""
    boxes_xyxy: np.ndarray
    """float32 `[M, 4]`, normalised, best score first."""
    scores: np.ndarray
    """float32 `[M]`."""
    labels: np.ndarray
    """int64 `[M]`, 1..C."""
    true_boxes_xyxy: np.ndarray
    """float32 `[N, 4]`, normalised."""
    true_labels: np.ndarray
    """int64 `[N]`, 1..C."""
    difficult: np.ndarray
    """bool `[N]`."""


@dataclass
class ClassScores:
    """AP of every class at every validation, in plain values, as checkpoints keep it."""

    epochs: list[float] = field(default_factory=list)
    """`[V]`: how many epochs were trained, in parts of one where validations come within it."""
    values: list[list[float]] = field(default_factory=list)
    """`[V][C]`: 11-point; NaN for a class without objects."""

    def table(self, num_classes: int) -> np.ndarray:
        """Give `values` as float64 `[V, C]`, of no validations too."""
        return np.array(self.values, dtype=np.float64).reshape(-1, num_classes)


@dataclass(frozen=True, eq=False)
class Validation:
    """All that is shown of a validation."""

    epoch: int
    """Counted from 0, as in `metrics.csv`."""
    step: int
    """Optimiser step, as in `metrics.csv`."""
    class_names: tuple[str, ...]
    score_threshold: float
    """Of the confusion matrix and of the detections that are drawn."""
    images: tuple[ShownImage, ...]
    curves: tuple[PRCurve, ...]
    """One a class, of at most `CURVE_POINTS` points."""
    confusion: np.ndarray
    """See `analysis.confusion.confusion_matrix`."""
    history: ClassScores
    drawings: Mapping[str, np.ndarray]
    """uint8 `[H, W, 3]` each: `images`, `pr_curves`, `confusion_matrix`, `class_ap`."""

    def rows(self) -> list[tuple[str, int, float | None, float | None]]:
        """Give of each class name, counted objects, 11-point AP and area AP; None where it has no objects."""
        last = self.history.values[-1] if self.history.values else [float("nan")] * len(self.class_names)
        return [
            (curve.class_name, curve.num_objects, number(eleven_point), number(curve.ap))
            for curve, eleven_point in zip(self.curves, last, strict=True)
        ]


@dataclass(frozen=True)
class BestModel:
    """The best checkpoint so far."""

    path: Path
    epoch: int
    """Counted from 0, as in `metrics.csv`."""
    monitor: str
    score: float


def number(value: float) -> float | None:
    """Give None for what is not finite: tables cannot show it."""
    return float(value) if np.isfinite(value) else None


def choose_images(record: EvaluationRecord, count: int, seed: int) -> tuple[str, ...]:
    """Choose images by chance, but so that all classes have their share.

    Each next one is the first, in an order that the seed makes, with an object of the class that was chosen least yet.

    Args:
        record: of a validation. Its order hangs on the images' names alone, and so does the choice.
        count: most images.
        seed: of the order.

    Returns:
        Names, in the order of the record.
    """
    order = np.random.default_rng(seed).permutation(len(record.image_ids)).tolist()
    present = np.zeros((len(record.image_ids), record.num_classes), dtype=bool)
    present[record.objects.image_index.numpy(), record.objects.labels.numpy() - 1] = True
    covered = np.zeros(record.num_classes, dtype=np.int64)
    chosen: list[int] = []
    while order and len(chosen) < count:
        by_need = np.argsort(covered, kind="stable")
        wanted = (next((place for place in order if present[place, label]), None) for label in by_need)
        place = next((place for place in wanted if place is not None), order[0])
        order.remove(place)
        chosen.append(place)
        covered += present[place]
    return tuple(record.image_ids[place] for place in sorted(chosen))


def show_images(record: EvaluationRecord, image_ids: Sequence[str]) -> tuple[ShownImage, ...]:
    """Read images and take their rows of a record; what is gone, or cannot be read any more, is skipped."""
    places = {image_id: place for place, image_id in enumerate(record.image_ids)}
    shown = []
    for place in (places[image_id] for image_id in image_ids if image_id in places):
        height, width = record.sizes_px[place].tolist()
        try:
            image = Image.fromarray(read_image(record.image_paths[place], (height, width)))
        except DataError:
            continue
        scale = IMAGE_PX / max(height, width)
        image = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BICUBIC)
        found = record.detections.image_index == place
        boxes, scores, labels = (column[found].numpy() for column in record.detections[1:])
        best = np.argsort(-scores, kind="stable")[:MOST_BOXES]
        here = record.objects.image_index == place
        true_boxes, true_labels, difficult = (column[here].numpy() for column in record.objects[1:])
        shown.append(
            ShownImage(
                image_id=record.image_ids[place],
                image=np.asarray(image),
                boxes_xyxy=boxes[best].clip(0, 1),
                scores=scores[best],
                labels=labels[best],
                true_boxes_xyxy=true_boxes,
                true_labels=true_labels,
                difficult=difficult,
            )
        )
    return tuple(shown)


def make_validation(
    record: EvaluationRecord,
    *,
    image_ids: Sequence[str],
    history: ClassScores,
    epoch: int,
    step: int,
    score_threshold: float,
) -> Validation:
    """Put together what is shown of a validation, and draw it.

    Args:
        record: what it found.
        image_ids: of the images that are shown.
        history: of the classes up to this validation.
        epoch: counted from 0.
        step: of the optimiser.
        score_threshold: of the confusion matrix and of the detections that are drawn.
    """
    when = f"epoch {epoch}, step {step}"
    names = record.class_names
    curves = tuple(pr_curves(record))
    confusion = confusion_matrix(record, score_threshold=score_threshold)
    images = show_images(record, image_ids)
    lines = [PRLine(one.class_name, one.recall, one.precision, one.ap) for one in (c.thinned(200) for c in curves)]
    drawings = {
        "pr_curves": draw_pr_curves(lines, title=f"precision and recall at IoU .5, {when}"),
        "confusion_matrix": draw_confusion(
            confusion, names, title=f"objects found, score {score_threshold:g} or more, {when}"
        ),
        "class_ap": draw_class_ap(history.epochs, history.table(len(names)), names, title=f"AP by class, {when}"),
    }
    if images:
        drawings["images"] = draw_images(
            images, names, score_threshold, title=f"{when}: score {score_threshold:g} or more; dashed: ground truth"
        )
    return Validation(
        epoch=epoch,
        step=step,
        class_names=names,
        score_threshold=score_threshold,
        images=images,
        curves=tuple(curve.thinned(CURVE_POINTS) for curve in curves),
        confusion=confusion,
        history=history,
        drawings=drawings,
    )


def draw_images(
    images: Sequence[ShownImage], class_names: Sequence[str], score_threshold: float, *, title: str
) -> np.ndarray:
    """Draw detections over the ground truth, four images in a row: uint8 `[H, W, 3]`."""
    drawn = []
    for image in images:
        height, width = image.image.shape[:2]
        to_px = np.array([width, height, width, height])
        kept = image.scores >= score_threshold
        settings: dict[str, Any] = {"longer_side_px": None, "class_names": class_names}
        drawn.append(
            draw_comparison(
                image.image,
                true_boxes_xyxy_px=image.true_boxes_xyxy * to_px,
                difficult=image.difficult,
                boxes_xyxy_px=image.boxes_xyxy[kept] * to_px,
                labels=image.labels[kept],
                scores=image.scores[kept],
                **settings,
            )
        )
    return image_grid(drawn, columns=4, title=title)
