"""Overlaps of detections with objects, and their assignment in order of score."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

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
    """float64 `[P]`."""

    def where(self, kept: Tensor) -> "Pairs":
        """Select pairs by a bool `[P]` or by indices."""
        return Pairs(*(column[kept] for column in self))


def overlapping_pairs(
    detections: DetectionTable,
    objects: ObjectTable,
    *,
    least_overlap: float,
    same_class: bool = True,
    overlap: Callable[[Tensor, Tensor], Tensor] = paired_iou,
) -> Pairs:
    """Find the pairs that overlap enough.

    Args:
        detections: rows in any order.
        objects: rows in any order.
        least_overlap: smallest overlap of a pair, inclusive, more than 0.
        same_class: only pair equal classes.
        overlap: overlap function for boxes `[P, 4]` of detections and of objects.
    """
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
        values = overlap(detections.boxes[detection], objects.boxes[pairs.object])
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


def by_preference(pairs: Pairs, *, last_choice: Tensor | None = None, later_of_equals: bool = False) -> Pairs:
    """Sort pairs by detection, and the objects of each by descending overlap.

    Args:
        pairs: result of `overlapping_pairs`.
        last_choice: bool `[N]`: objects that are sorted after all others.
        later_of_equals: among objects with equal overlap, put the last row first instead of the first row.
    """
    keys = [-pairs.object if later_of_equals else pairs.object, -pairs.overlap]
    if last_choice is not None:
        keys.append(last_choice[pairs.object].long())
    order = torch.arange(len(pairs.detection))
    for key in (*keys, pairs.detection):
        order = order[key[order].argsort(stable=True)]
    return pairs.where(order)


def match_in_order(
    pairs: Pairs,
    *,
    num_detections: int,
    num_objects: int,
    shared: Tensor | None = None,
) -> Tensor:
    """Let each detection in turn take its preferred free object.

    All detections ask for their preferred object at once. An object keeps the first of them, and the others ask for
    their next choice. The result is the same as in turn (Gale and Shapley, 1962, with equal preferences of objects).

    Args:
        pairs: allowed pairs in the order of `by_preference`; the row of a detection is its turn.
        num_detections: M.
        num_objects: N.
        shared: bool `[N]`: objects that any number of detections may take.

    Returns:
        Row of the object that each detection takes, int64 `[M]`, -1 if none.
    """
    asked_first, count = pairs.detection.unique_consecutive(return_counts=True)
    place = torch.zeros(num_detections, dtype=torch.int64)
    end = place.clone()
    end[asked_first] = count.cumsum(0)
    place[asked_first] = count.cumsum(0) - count
    holder = torch.full((num_objects,), num_detections)
    asking = asked_first
    while len(asking):
        wanted = pairs.object[place[asking]]
        alone = torch.ones_like(wanted, dtype=torch.bool) if shared is None else ~shared[wanted]
        asking, wanted = asking[alone], wanted[alone]
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
