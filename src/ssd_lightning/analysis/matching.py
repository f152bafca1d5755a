"""Assignment of detections to objects in order of score; the confusion matrix of classes and the scores of images."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.metrics.average_precision import DetectionTable, ObjectTable, Pairs, overlapping_pairs
from ssd_lightning.ops.boxes import broadcast_iou


class Matches(NamedTuple):
    """Visible detections, the objects that count, and who found whom."""

    found: DetectionTable
    """The M detections above a score, best first."""
    counted: ObjectTable
    """The N objects that are not difficult."""
    taken: Tensor
    """int64 `[M]`: row of the object that each detection hits, -1 if none."""
    is_stray: Tensor
    """bool `[M]`: whether a detection hits nothing, and overlaps no difficult object either."""
    is_missed: Tensor
    """bool `[N]`: whether no detection hits an object."""


def match_visible(record: EvaluationRecord, *, score_threshold: float, same_class: bool = True) -> Matches:
    """Let each detection in order of score hit the free object that it overlaps most, by IoU .5 or more.

    Detections below `score_threshold` are skipped; `same_class` only matches equal classes.
    """
    found = record.ranked_detections(score_threshold)
    counted, difficult = record.split_difficult()
    pairs = overlapping_pairs(found, counted, least_overlap=0.5, same_class=same_class)
    taken = assign_in_order(pairs, num_detections=len(found.labels), num_objects=len(counted.labels))
    is_stray = taken < 0
    is_stray[overlapping_pairs(found, difficult, least_overlap=0.5, same_class=same_class).detection] = False
    is_missed = torch.ones_like(counted.labels, dtype=torch.bool)
    is_missed[taken[taken >= 0]] = False
    return Matches(found, counted, taken, is_stray, is_missed)


def confusion_matrix(record: EvaluationRecord, *, score_threshold: float = 0.4) -> np.ndarray:
    """Count which objects were detected as which class.

    In descending order of score, every detection of any class takes the free object with the largest overlap. A
    detection without an object counts as found in the background, unless it overlaps a difficult object. Then it is
    skipped, like difficult objects themselves.

    Returns:
        int64 `[C + 1, C + 1]`: row the true class, column the detected one, 0 the background. The sum of row c > 0 is
        the number of counted objects of class c; `[0, 0]` is 0.
    """
    found, counted, taken, is_stray, is_missed = match_visible(
        record, score_threshold=score_threshold, same_class=False
    )
    is_hit = taken >= 0
    matrix = np.zeros((record.num_classes + 1, record.num_classes + 1), dtype=np.int64)
    np.add.at(matrix, (counted.labels[taken[is_hit]].numpy(), found.labels[is_hit].numpy()), 1)
    np.add.at(matrix[0], found.labels[is_stray].numpy(), 1)
    np.add.at(matrix[:, 0], counted.labels[is_missed].numpy(), 1)
    return matrix


@dataclass(frozen=True, eq=False)
class ImageScores:
    """A score for each of the I images, in the order of the record, and counts: int64 `[I]`."""

    scores: np.ndarray
    """float64 `[I]`, 0 to 1: 2 * the sum of IoUs of hits / (detections + objects); 1 if both are 0."""
    hits: np.ndarray
    false_positives: np.ndarray
    missed: np.ndarray
    best_first: np.ndarray
    """int64 `[I]`: indices of the images, best first; see `image_scores`."""


def image_scores(record: EvaluationRecord, *, score_threshold: float = 0.4) -> ImageScores:
    """Score every image by its detections with at least `score_threshold`; a hit overlaps its object by IoU .5.

    The score is the panoptic quality of all classes together (Kirillov et al., "Panoptic Segmentation", CVPR 2019,
    equation 1): F1 in which a hit counts with its IoU. It falls with missed objects, false detections and inaccurate
    boxes. Unlike the AP of one image, it does not depend on low-scoring detections.

    Images are sorted by score. Images without objects and detections come after those with a hit, so that both ends of
    the list show something. Images with score 0 are sorted by the number of errors, equal ones by their ids.
    """
    found, counted, taken, is_stray, is_missed = match_visible(record, score_threshold=score_threshold)
    is_hit = taken >= 0
    ious = broadcast_iou(found.boxes[is_hit].double(), counted.boxes[taken[is_hit]].double())

    def count(image_index: Tensor, weights: Tensor | None = None) -> np.ndarray:
        return image_index.bincount(weights, minlength=len(record.image_ids)).numpy()

    of_hits = found.image_index[is_hit]
    hits, false_positives = count(of_hits), count(found.image_index[is_stray])
    missed = count(counted.image_index[is_missed])
    rows = 2 * hits + false_positives + missed
    scores = np.where(rows > 0, 2 * count(of_hits, ious) / np.maximum(rows, 1), 1.0)
    group = np.where(rows == 0, 1, np.where(scores > 0, 0, 2))
    best_first = np.lexsort((np.array(record.image_ids, dtype=str), false_positives + missed, -scores, group))
    return ImageScores(scores, hits, false_positives, missed, best_first)


def assign_in_order(pairs: Pairs, *, num_detections: int, num_objects: int) -> Tensor:
    """Let each detection, in the order of their rows, take the free object that it overlaps most.

    Returns:
        Row of the object that each detection takes, int64 `[M]`, -1 if none.
    """
    by_preference = pairs.where(torch.from_numpy(np.lexsort((pairs.object, -pairs.overlap, pairs.detection))))
    taken, is_free = [-1] * num_detections, [True] * num_objects
    for detection, wanted in zip(by_preference.detection.tolist(), by_preference.object.tolist(), strict=True):
        if taken[detection] < 0 and is_free[wanted]:
            taken[detection], is_free[wanted] = wanted, False
    return torch.tensor(taken, dtype=torch.int64)
