"""Overlaps of detections with objects, their assignment in order of score, and the confusion matrix of classes."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.metrics.average_precision import DetectionTable, ObjectTable, Pairs, overlapping_pairs


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
