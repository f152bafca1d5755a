"""The contents of a dashboard, created once for all sinks."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.matched_priors import level_of_priors, matched_objects
from ssd_lightning.analysis.pr_curves import PRCurve
from ssd_lightning.data.images import read_image
from ssd_lightning.errors import DataError
from ssd_lightning.losses import MultiBoxLoss
from ssd_lightning.metrics.average_precision import DetectionTable, ObjectTable
from ssd_lightning.models.ssd import SSD
from ssd_lightning.types import Target
from ssd_lightning.visualization.boxes import fitting_size
from ssd_lightning.visualization.draw import draw_comparison
from ssd_lightning.visualization.draw_matches import draw_window
from ssd_lightning.visualization.sheet import Panel, lay_out
from ssd_lightning.visualization.training_plots import LevelCount

IMAGE_PX = 400
"""Longer side of the shown images."""
CURVE_POINTS = 101
BATCH_IMAGES = 16
BATCH_IMAGE_PX = 360
AT_A_TIME = 16
"""Number of images that are matched at once, which limits the host's memory."""


@dataclass(frozen=True, eq=False)
class ShownImage:
    """A validation image with its detections and ground truth; boxes are normalised."""

    image_id: str
    image: np.ndarray
    """uint8 `[H, W, 3]`, its longer side `IMAGE_PX`."""
    found: DetectionTable
    true: ObjectTable

    def draw(self, class_names: Sequence[str], score_threshold: float) -> np.ndarray:
        """Draw the detections over the ground truth: uint8 `[H, W, 3]`."""
        kept = self.found.scores >= score_threshold
        return draw_comparison(
            self.image,
            true_boxes_xyxy=self.true.boxes,
            difficult=self.true.difficult,
            boxes_xyxy=self.found.boxes[kept],
            labels=self.found.labels[kept],
            scores=self.found.scores[kept],
            class_names=class_names,
            longer_side_px=IMAGE_PX,
        )


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
    """See `analysis.matching.confusion_matrix`."""
    epochs: tuple[float, ...]
    """Trained epochs of this and the V - 1 earlier validations. A fraction for a validation within an epoch."""
    class_ap: np.ndarray
    """11-point AP of every class at these validations, float64 `[V, C]`; NaN for a class without objects."""

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
        panels = [Panel(image.draw(self.class_names, self.score_threshold)) for image in self.images]
        return lay_out(panels, columns=4, title=title)

    def rows(self) -> list[tuple[str, int, float | None, float | None]]:
        """Return name, number of objects, 11-point AP and area AP of each class. AP is None without objects."""
        return [
            (curve.class_name, curve.num_objects, number(curve.ap_11point), number(curve.ap)) for curve in self.curves
        ]


def number(value: float) -> float | None:
    """Return None if the value is not finite, because tables cannot show it."""
    return float(value) if np.isfinite(value) else None


def choose_images(record: EvaluationRecord, count: int, seed: int) -> tuple[str, ...]:
    """Choose random images such that all classes are represented.

    Images are taken in a random order. The next image is the first one with an object of the least represented class.

    The order of a record, and therefore the choice, depends only on the images' names.

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
            image = read_image(record.image_paths[place], (height, width))
        except DataError:
            continue
        size = fitting_size(image, IMAGE_PX, IMAGE_PX)
        scaled = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
        shown.append(ShownImage(record.image_ids[place], np.asarray(scaled), *record.of_image(place)))
    return tuple(shown)


@torch.no_grad()
def draw_batch(images: Tensor, targets: Sequence[Target], *, net: SSD, loss: MultiBoxLoss) -> np.ndarray:
    """Draw the first images of a batch with their objects (solid) and matched priors: uint8 `[H, W, 3]`.

    The images are uint8 `[B, 3, H, W]`, the network's input, on any device.
    """
    targets = targets[:BATCH_IMAGES]
    pixels = images[:BATCH_IMAGES].cpu().permute(0, 2, 3, 1).clamp(0, 255).to(torch.uint8).numpy()
    priors, matcher = net.priors_cxcywh.cpu(), loss.matcher
    assignment = matcher(targets, priors)
    matched = matched_objects(assignment, targets, priors, levels=net.levels, iou_threshold=matcher.iou_threshold)
    panels = [
        Panel(draw_window(image, objects, size=fitting_size(image, BATCH_IMAGE_PX, BATCH_IMAGE_PX)))
        for image, objects in zip(pixels, matched, strict=True)
    ]
    title = "first training batch: objects solid, matched priors dashed; ! is a forced match, or none"
    return lay_out(panels, columns=4, title=title)


@torch.no_grad()
def count_levels(targets: Sequence[Target], *, net: SSD, loss: MultiBoxLoss) -> list[LevelCount]:
    """Count the matched priors of each feature map, for targets of training images on the host."""
    priors = net.priors_cxcywh.cpu()
    level_of_prior = level_of_priors(net.levels)
    matched = torch.zeros(len(priors), dtype=torch.int64)
    for start in range(0, len(targets), AT_A_TIME):
        matched += (loss.matcher(targets[start : start + AT_A_TIME], priors).labels > 0).sum(dim=0)
    counts = np.bincount(level_of_prior, weights=matched.numpy(), minlength=len(net.levels) + 1)
    totals = np.bincount(level_of_prior, minlength=len(net.levels) + 1) * len(targets)
    return [
        LevelCount(matched=int(counts[place]), priors=int(totals[place]), grid=level.grid)
        for place, level in enumerate(net.levels, start=1)
    ]
