"""Errors by type, and the gain in mAP if the errors of one type were fixed.

Source: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020, section 2, and their
tidecv for details that the paper leaves open. There are three differences to tidecv:

- AP is the area under the envelope by default, not COCO's mean over 101 recalls.
- A detection that overlaps a difficult object of its class, and hits nothing, is neither hit nor error. tidecv skips
  it in AP by the fraction of its own area, and counts it among the errors.
- Classes without counted objects are not in the mean. tidecv includes them with AP 0 if anything was detected.

The matching is that of TIDE and COCO, where a detection whose object is taken may hit another one. Otherwise VOC's
matching gives the same mAP.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.matching import assign_in_order
from ssd_lightning.metrics.average_precision import (
    HIT,
    IGNORED,
    MISS,
    best_partner,
    envelope_area,
    overlapping_pairs,
    precision_recall,
)

ErrorType = Literal["class", "localisation", "both", "duplicate", "background", "missed"]
ERROR_TYPES: tuple[ErrorType, ...] = ("class", "localisation", "both", "duplicate", "background", "missed")
CLASS, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, _ = range(len(ERROR_TYPES))
NO_ERROR, LEFT_OUT = -1, -2
IOU_THRESHOLD = 0.5
"""Smallest overlap of a hit."""
BACKGROUND_THRESHOLD = 0.1
"""A detection with no larger overlap with any object is `background`."""


@dataclass(frozen=True)
class ErrorShare:
    """The errors of one type."""

    count: int
    """Number of false positives of this type; number of objects for `missed`."""
    gain: float
    """Gain in mAP if only the errors of this type were fixed, at least 0; NaN if mAP is NaN."""


@dataclass(frozen=True, eq=False)
class ErrorSplit:
    """mAP at one IoU, and its errors."""

    map: float
    """Mean over the classes with counted objects, NaN if there are none; from 0 to 1."""
    errors: dict[ErrorType, ErrorShare]
    """All six types, in the order of `ERROR_TYPES`."""


def error_split(
    record: EvaluationRecord, *, average_precision: Callable[[Tensor, Tensor], Tensor] = envelope_area
) -> ErrorSplit:
    """Split the errors of an evaluation.

    `class`: enough overlap with an object of another class. `localisation`: right class, and an overlap between the
    thresholds. `both`: wrong class, and an overlap between the thresholds. `duplicate`: the object has a better
    detection. `background`: hardly any overlap. `missed`: objects that are neither hit nor explained by an error of
    class or localisation.

    Errors of class and localisation are fixed by turning the best such detection of an unhit object into a hit, and
    removing the others. Other false positives are removed. Missed objects are not counted. A class without remaining
    objects has AP 1 if it has no detections, else 0.

    `average_precision` is a function of precision and recall, float64 `[P]` each.
    """
    judged = _judge(record)
    outcomes = torch.full_like(judged.types, MISS)
    outcomes[judged.types == NO_ERROR], outcomes[judged.types == LEFT_OUT] = HIT, IGNORED
    totals = _count(judged.object_labels, record.num_classes)
    base = _mean_average(judged.labels, outcomes, totals, totals, average_precision)

    def share(errors: Tensor, labels: Tensor, mended: Tensor, left: Tensor) -> ErrorShare:
        won = _mean_average(labels, mended, totals, left, average_precision) - base
        return ErrorShare(int(errors.sum()), won if won != won else max(0.0, won))

    errors: dict[ErrorType, ErrorShare] = {}
    for code, name in enumerate(ERROR_TYPES[:-1]):
        wrong = judged.types == code
        mending = wrong & (judged.mended_label > 0)
        mended = outcomes.masked_fill(wrong, IGNORED).masked_fill(mending, HIT)
        errors[name] = share(wrong, torch.where(mending, judged.mended_label, judged.labels), mended, totals)
    left = totals - _count(judged.object_labels[judged.is_missed], record.num_classes)
    errors["missed"] = share(judged.is_missed, judged.labels, outcomes, left)
    return ErrorSplit(map=base, errors=errors)


class _Judged(NamedTuple):
    """Detections by rank, and counted objects."""

    labels: Tensor
    types: Tensor
    """int8 `[M]`: place in `ERROR_TYPES`, `NO_ERROR` or `LEFT_OUT`."""
    mended_label: Tensor
    """int64 `[M]`: class of the object that a correct class or location would hit; 0 for other types, and if the
    object is hit or has a better detection of this kind."""
    object_labels: Tensor
    is_missed: Tensor


def _judge(record: EvaluationRecord) -> _Judged:
    ranked = record.ranked_detections()
    counted, difficult = record.split_difficult()
    num_detections, num_objects = len(ranked.labels), len(counted.labels)
    pairs = overlapping_pairs(ranked, counted, least_overlap=BACKGROUND_THRESHOLD, same_class=False)
    is_same = ranked.labels[pairs.detection] == counted.labels[pairs.object]
    own_object, own_iou = best_partner(pairs.where(is_same), num_detections)
    other_object, other_iou = best_partner(pairs.where(~is_same), num_detections)

    could_hit = pairs.where(is_same & (pairs.overlap >= IOU_THRESHOLD))
    hit_object = assign_in_order(could_hit, num_detections=num_detections, num_objects=num_objects)
    is_found = torch.zeros(num_objects, dtype=torch.bool)
    is_found[hit_object[hit_object >= 0]] = True

    # In reverse order of the paper's conditions, so that the first condition wins.
    types = torch.full((num_detections,), BOTH, dtype=torch.int8)
    types[torch.maximum(own_iou, other_iou) <= BACKGROUND_THRESHOLD] = BACKGROUND
    types[own_iou >= IOU_THRESHOLD] = DUPLICATE
    types[other_iou >= IOU_THRESHOLD] = CLASS
    types[(own_iou >= BACKGROUND_THRESHOLD) & (own_iou < IOU_THRESHOLD)] = LOCALISATION
    types[overlapping_pairs(ranked, difficult, least_overlap=IOU_THRESHOLD).detection] = LEFT_OUT
    types[hit_object >= 0] = NO_ERROR

    aimed_at = torch.where(types == CLASS, other_object, own_object)
    near = ((types == CLASS) | (types == LOCALISATION)).nonzero().squeeze(1)
    near = near[~is_found[aimed_at[near]]]
    best = torch.full((num_objects,), num_detections).scatter_reduce(0, aimed_at[near], near, "amin")
    has_best = best < num_detections
    mended_label = torch.zeros_like(ranked.labels)
    mended_label[best[has_best]] = counted.labels[has_best]
    return _Judged(ranked.labels, types, mended_label, counted.labels, ~is_found & ~has_best)


def _count(labels: Tensor, num_classes: int) -> Tensor:
    return labels.bincount(minlength=num_classes + 1)[1:]


def _mean_average(
    labels: Tensor,
    outcomes: Tensor,
    totals: Tensor,
    left: Tensor,
    average_precision: Callable[[Tensor, Tensor], Tensor],
) -> float:
    """Average AP over the classes with objects (`totals`), some of which may have been removed (`left`)."""
    aps = []
    for index in totals.nonzero().squeeze(1).tolist():
        of_class = outcomes[labels == index + 1]
        if left[index]:
            aps.append(float(average_precision(*precision_recall(of_class, int(left[index])))))
        else:
            aps.append(float((of_class == IGNORED).all()))
    return float(np.mean(aps)) if aps else float("nan")
