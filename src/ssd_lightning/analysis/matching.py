"""Overlaps of detections with objects, and their assignment in order of score."""

from typing import NamedTuple

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


def match_visible(
    record: EvaluationRecord, *, iou_threshold: float, score_threshold: float, same_class: bool = True
) -> Matches:
    """Let each detection in order of score hit the free object that it overlaps most.

    Detections below `score_threshold` are skipped; `same_class` only matches equal classes.
    """
    found = record.ranked_detections(score_threshold)
    counted, difficult = record.split_difficult()
    taken = match_in_order(
        by_preference(overlapping_pairs(found, counted, least_overlap=iou_threshold, same_class=same_class)),
        num_detections=len(found.labels),
        num_objects=len(counted.labels),
    )
    is_stray = taken < 0
    is_stray[overlapping_pairs(found, difficult, least_overlap=iou_threshold, same_class=same_class).detection] = False
    is_missed = torch.ones_like(counted.labels, dtype=torch.bool)
    is_missed[taken[taken >= 0]] = False
    return Matches(found, counted, taken, is_stray, is_missed)


def by_preference(pairs: Pairs) -> Pairs:
    """Sort pairs by detection, and the objects of each by descending overlap."""
    order = torch.arange(len(pairs.detection))
    for key in (pairs.object, -pairs.overlap, pairs.detection):
        order = order[key[order].argsort(stable=True)]
    return pairs.where(order)


def match_in_order(pairs: Pairs, *, num_detections: int, num_objects: int) -> Tensor:
    """Let each detection in turn take its preferred free object.

    All detections ask for their preferred object at once. An object keeps the first of them, and the others ask for
    their next choice. The result is the same as in turn (Gale and Shapley, 1962, with equal preferences of objects).

    Args:
        pairs: allowed pairs in the order of `by_preference`; the row of a detection is its turn.
        num_detections: M.
        num_objects: N.

    Returns:
        Row of the object that each detection takes, int64 `[M]`, -1 if none.
    """
    asking, count = pairs.detection.unique_consecutive(return_counts=True)
    place = torch.zeros(num_detections, dtype=torch.int64)
    end = place.clone()
    end[asking] = count.cumsum(0)
    place[asking] = count.cumsum(0) - count
    holder = torch.full((num_objects,), num_detections)
    while len(asking):
        wanted = pairs.object[place[asking]]
        kept = holder.scatter_reduce(0, wanted, asking, "amin")
        displaced = holder[(kept != holder) & (holder < num_detections)]
        refused = torch.cat([asking[kept[wanted] != asking], displaced])
        holder = kept
        place[refused] += 1
        asking = refused[place[refused] < end[refused]]
    taken = torch.full((num_detections,), -1)
    satisfied = (place < end).nonzero().squeeze(1)
    taken[satisfied] = pairs.object[place[satisfied]]
    return taken
