"""The contents of a dashboard, created once for all sinks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
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

IMAGE_PX = 400
"""Longer side of the shown images."""
MOST_BOXES = 100
"""Maximum number of detections per image, best first."""
CURVE_POINTS = 101


@dataclass(frozen=True, eq=False)
class ShownImage:
    """A validation image with ground truth and detections."""

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
    """AP of every class at every validation, as plain values for checkpoints."""

    epochs: list[float] = field(default_factory=list)
    """`[V]`: trained epochs. A fraction for a validation within an epoch."""
    values: list[list[float]] = field(default_factory=list)
    """`[V][C]`: 11-point; NaN for a class without objects."""

    def table(self, num_classes: int) -> np.ndarray:
        """Return `values` as float64 `[V, C]`, also with V = 0."""
        return np.array(self.values, dtype=np.float64).reshape(-1, num_classes)


@dataclass(frozen=True, eq=False)
class Validation:
    """Everything that is shown of a validation."""

    epoch: int
    """Counted from 0, as in `metrics.csv`."""
    step: int
    """Optimiser step, as in `metrics.csv`."""
    class_names: tuple[str, ...]
    score_threshold: float
    """Minimum score for the confusion matrix and the drawn detections."""
    images: tuple[ShownImage, ...]
    curves: tuple[PRCurve, ...]
    """One per class, with at most `CURVE_POINTS` points."""
    confusion: np.ndarray
    """See `analysis.confusion.confusion_matrix`."""
    history: ClassScores

    @property
    def when(self) -> str:
        """When the validation took place."""
        return f"epoch {self.epoch}, step {self.step}"

    @cached_property
    def sheet(self) -> np.ndarray | None:
        """The images in a grid, uint8 `[H, W, 3]`; None if there are none."""
        if not self.images:
            return None
        title = f"{self.when}: score {self.score_threshold:g} or more; dashed: ground truth"
        return draw_images(self.images, self.class_names, self.score_threshold, title=title)

    def rows(self) -> list[tuple[str, int, float | None, float | None]]:
        """Return name, number of objects, 11-point AP and area AP of each class. AP is None without objects."""
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
    """Return None if the value is not finite, because tables cannot show it."""
    return float(value) if np.isfinite(value) else None


def choose_images(record: EvaluationRecord, count: int, seed: int) -> tuple[str, ...]:
    """Choose random images such that all classes are represented.

    Images are taken in a random order. The next image is the first one with an object of the least represented class.

    Args:
        record: record of a validation. Its order, and therefore the choice, depends only on the images' names.
        count: maximum number of images.
        seed: seed of the random order.

    Returns:
        Image ids, in the order of the record.
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
    """Read images and their rows of a record. Missing or unreadable images are skipped."""
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
    """Create the contents of a validation.

    Args:
        record: record of the validation.
        image_ids: ids of the shown images.
        history: scores of the classes up to this validation.
        epoch: epoch, counted from 0.
        step: optimiser step.
        score_threshold: minimum score for the confusion matrix and the drawn detections.
    """
    return Validation(
        epoch=epoch,
        step=step,
        class_names=record.class_names,
        score_threshold=score_threshold,
        images=show_images(record, image_ids),
        curves=tuple(curve.thinned(CURVE_POINTS) for curve in pr_curves(record)),
        confusion=confusion_matrix(record, score_threshold=score_threshold),
        history=history,
    )


def draw_images(
    images: Sequence[ShownImage], class_names: Sequence[str], score_threshold: float, *, title: str
) -> np.ndarray:
    """Draw detections over the ground truth, four images per row: uint8 `[H, W, 3]`."""
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
