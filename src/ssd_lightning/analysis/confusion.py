"""Confusion matrix between classes."""

from functools import partial

import numpy as np
import torch

from ssd_lightning.analysis.evaluation_record import EvaluationRecord, above, split_difficult
from ssd_lightning.analysis.matching import by_preference, match_in_order, overlapping_pairs


def confusion_matrix(
    record: EvaluationRecord, *, iou_threshold: float = 0.5, score_threshold: float = 0.4
) -> np.ndarray:
    """Count which objects were detected as which class.

    In descending order of score, every detection of any class takes the free object with the largest overlap. A
    detection without an object counts as found in the background, unless it overlaps a difficult object. Then it is
    skipped, like difficult objects themselves.

    Args:
        record: record of the evaluation.
        iou_threshold: smallest overlap of a detection with its object.
        score_threshold: detections below it are skipped.

    Returns:
        int64 `[C + 1, C + 1]`: row the true class, column the detected one, 0 the background. The sum of row c > 0 is
        the number of counted objects of class c; `[0, 0]` is 0.
    """
    found = above(record.ranked_detections(), score_threshold)
    counted, difficult = split_difficult(record.objects)
    match = partial(overlapping_pairs, least_overlap=iou_threshold, same_class=False)
    taken = match_in_order(
        by_preference(match(found, counted)), num_detections=len(found.labels), num_objects=len(counted.labels)
    )
    has_object = taken >= 0
    excused = torch.zeros_like(has_object)
    excused[match(found, difficult).detection] = True
    stray = ~has_object & ~excused
    missed = torch.ones_like(counted.labels, dtype=torch.bool)
    missed[taken[has_object]] = False

    none = counted.labels.new_zeros(1)
    true_labels = torch.cat([counted.labels[taken[has_object]], none.expand(int(stray.sum())), counted.labels[missed]])
    found_labels = torch.cat([found.labels[has_object], found.labels[stray], none.expand(int(missed.sum()))])
    size = record.num_classes + 1
    return (true_labels * size + found_labels).bincount(minlength=size**2).reshape(size, size).numpy()
