"""Overlaps of detections with objects, and their assignment in order of score."""

from typing import NamedTuple

import torch
from torch import Tensor

from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.metrics.average_precision import DetectionTable, ObjectTable, paired_iou

_BLOCK = 16_384
"""Detections paired with objects at a time: limits the memory for images with many objects."""


class Pairs(NamedTuple):
    """P pairs of a detection and an object of one image, sorted by detection, then by object."""

    detection: Tensor
    """int64 `[P]`: row in the table of detections."""
    object: Tensor
    """int64 `[P]`: row in the table of objects."""
    overlap: Tensor
    """float64 `[P]`: IoU."""

    def where(self, kept: Tensor) -> "Pairs":
        """Select pairs by a bool `[P]` or by indices."""
        return Pairs(*(column[kept] for column in self))


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


def overlapping_pairs(
    detections: DetectionTable, objects: ObjectTable, *, least_overlap: float, same_class: bool = True
) -> Pairs:
    """Find the pairs that overlap at least `least_overlap`, which is more than 0."""
    num_labels = int(torch.cat([detections.labels, objects.labels, objects.labels.new_zeros(1)]).max()) + 1
    keys, wanted = objects.image_index, detections.image_index
    if same_class:
        keys, wanted = keys * num_labels + objects.labels, wanted * num_labels + detections.labels
    keys, order = keys.sort(stable=True)
    first = torch.searchsorted(keys, wanted)
    count = torch.searchsorted(keys, wanted, right=True) - first
    parts = [Pairs(first.new_empty(0), first.new_empty(0), first.new_empty(0, dtype=torch.float64))]
    for rows in count.nonzero().squeeze(1).split(_BLOCK):
        detection = rows.repeat_interleave(count[rows])
        pairs_before = count[rows].cumsum(0) - count[rows]
        candidate = torch.arange(len(detection)) - pairs_before.repeat_interleave(count[rows])
        pairs = Pairs(detection, order[first[detection] + candidate], detection)
        values = paired_iou(detections.boxes[detection], objects.boxes[pairs.object])
        parts.append(pairs._replace(overlap=values).where(values >= least_overlap))
    return Pairs(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def best_partner(pairs: Pairs, num_detections: int) -> tuple[Tensor, Tensor]:
    """Find the object with the largest overlap for each detection, the first one among equals.

    Returns:
        Row of the object, int64 `[M]`, -1 if none, and the overlap, float64 `[M]`, 0 if none.
    """
    overlap = pairs.overlap.new_zeros(num_detections).scatter_reduce(0, pairs.detection, pairs.overlap, "amax")
    best = pairs.where(pairs.overlap == overlap[pairs.detection])
    none = torch.iinfo(torch.int64).max
    row = pairs.object.new_full((num_detections,), none).scatter_reduce(0, best.detection, best.object, "amin")
    return row.where(row != none, -1), overlap


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
