"""Confusion matrix between classes."""

import numpy as np
import torch

from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.matching import match_visible


def confusion_matrix(
    record: EvaluationRecord, *, iou_threshold: float = 0.5, score_threshold: float = 0.4
) -> np.ndarray:
    """Count which objects were detected as which class.

    In descending order of score, every detection of any class takes the free object with the largest overlap. A
    detection without an object counts as found in the background, unless it overlaps a difficult object. Then it is
    skipped, like difficult objects themselves.

    Returns:
        int64 `[C + 1, C + 1]`: row the true class, column the detected one, 0 the background. The sum of row c > 0 is
        the number of counted objects of class c; `[0, 0]` is 0.
    """
    found, counted, taken, is_stray, is_missed = match_visible(
        record, iou_threshold=iou_threshold, score_threshold=score_threshold, same_class=False
    )
    is_hit = taken >= 0
    none = counted.labels.new_zeros(1)
    true_labels = torch.cat(
        [counted.labels[taken[is_hit]], none.expand(int(is_stray.sum())), counted.labels[is_missed]]
    )
    found_labels = torch.cat([found.labels[is_hit], found.labels[is_stray], none.expand(int(is_missed.sum()))])
    size = record.num_classes + 1
    return (true_labels * size + found_labels).bincount(minlength=size**2).reshape(size, size).numpy()
