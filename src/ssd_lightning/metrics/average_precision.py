"""Average precision by the rules of the PASCAL VOC challenge, over all images and classes at once.

Source: Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 88 (2010), section 4.2,
for the matching and the 11-point figure; the development kit of VOC 2010 for the area under the envelope.
IoU is computed without the kit's +1 pixel.

Axis letters: M detections and N objects of all images together, P pairs of them, C classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ssd_lightning.ops.boxes import broadcast_iou

HIT, MISS, IGNORED = 1, 0, -1

_BLOCK = 65_536
"""Number of detections that are paired with objects at a time. It limits the memory for images with many boxes."""


class DetectionTable(NamedTuple):
    """Detections of many images, one per row."""

    image_index: Tensor
    """int64 `[M]`: 0-based index of the image of each row."""
    boxes: Tensor
    """`[M, 4]`, xyxy, in the objects' unit."""
    scores: Tensor
    """`[M]`."""
    labels: Tensor
    """int64 `[M]`, 1..C."""


class ObjectTable(NamedTuple):
    """Ground truth of many images, one object per row."""

    image_index: Tensor
    """int64 `[N]`: 0-based index of the image of each row."""
    boxes: Tensor
    """`[N, 4]`, xyxy."""
    labels: Tensor
    """int64 `[N]`, 1..C."""
    difficult: Tensor
    """bool `[N]`: not counted; detections of it are neither hit nor miss."""


class AveragePrecision(NamedTuple):
    """Average precision of each class; NaN for a class without counted objects."""

    eleven_point: Tensor
    """float64 `[C]`: mean of the best precision at recall >= 0, .1, ..., 1 (VOC 2007)."""
    area: Tensor
    """float64 `[C]`: area under the precision envelope (VOC 2010 on)."""


def voc_average_precision(
    detections: DetectionTable, objects: ObjectTable, *, num_classes: int, iou_threshold: float = 0.5
) -> AveragePrecision:
    """Evaluate detections against ground truth.

    Args:
        detections: rows in any order. If scores are equal, the earlier row comes first.
        objects: rows in any order. If overlaps are equal, a detection takes the earlier row.
        num_classes: C, without the background. Rows with labels outside 1..C are skipped.
        iou_threshold: smallest overlap of a hit.
    """
    order = detections.scores.argsort(descending=True, stable=True)
    ranked = DetectionTable(*(column[order] for column in detections))
    outcomes = match_detections(ranked, objects, iou_threshold=iou_threshold)
    counted = objects.labels[~objects.difficult]
    ap = AveragePrecision(*outcomes.new_full((2, num_classes), torch.nan, dtype=torch.float64))
    for index, label in enumerate(range(1, num_classes + 1)):
        num_objects = int((counted == label).sum())
        if num_objects:
            precision, recall = precision_recall(outcomes[ranked.labels == label], num_objects)
            ap.eleven_point[index] = eleven_point_average(precision, recall)
            ap.area[index] = envelope_area(precision, recall)
    return ap


def match_detections(detections: DetectionTable, objects: ObjectTable, *, iou_threshold: float = 0.5) -> Tensor:
    """Classify each detection as hit, miss or ignored.

    A detection is compared with the one object of its image and class that it overlaps most (of equal overlaps, the
    first). It is a miss if the overlap is below the threshold, or if a better detection has already taken the object,
    even if it overlaps other objects. If the object is difficult, the detection is ignored.

    Args:
        detections: rows in descending order of score.
        objects: the ground truth.
        iou_threshold: smallest overlap of a hit, inclusive.

    Returns:
        int8 `[M]` of `HIT`, `MISS` and `IGNORED`.
    """
    num_detections, num_objects = len(detections.boxes), len(objects.boxes)
    pairs = overlapping_pairs(detections, objects, least_overlap=iou_threshold)
    taken, _ = best_partner(pairs, num_detections)
    takers = (taken >= 0).nonzero().squeeze(1)
    taken = taken[takers]
    # Rows are ranks, so the smallest row for an object is its best detection.
    first_taker = takers.new_full((num_objects,), num_detections).scatter_reduce(0, taken, takers, "amin")
    outcomes = torch.full((num_detections,), MISS, dtype=torch.int8, device=takers.device)
    outcomes[takers[first_taker[taken] == takers]] = HIT
    outcomes[takers[objects.difficult[taken]]] = IGNORED
    return outcomes


def precision_recall(outcomes: Tensor, num_objects: int) -> tuple[Tensor, Tensor]:
    """Compute precision and recall of one class along its ranked detections.

    Args:
        outcomes: `[M]` of `HIT`, `MISS` and `IGNORED`, in descending order of score.
        num_objects: number of objects that are not difficult, at least 1.

    Returns:
        Precision and recall, float64 `[M']`, after each of the M' detections that are not ignored.
    """
    hits = (outcomes[outcomes != IGNORED] == HIT).cumsum(0).double()
    return hits / torch.arange(1, len(hits) + 1, device=hits.device), hits / num_objects


def eleven_point_average(precision: Tensor, recall: Tensor) -> Tensor:
    """Average the best precision at recall >= t over t = 0, .1, ..., 1; it is 0 if the recall does not reach t.

    Precision and ascending recall are float64 `[M]`.
    """
    # Multiples of .1, not k / 10, as in the published evaluators: a recall of 3 / 10 is slightly less than 3 * .1.
    thresholds = torch.arange(11, dtype=torch.float64, device=recall.device) * 0.1
    best_precision = torch.cat([_envelope(precision), precision.new_zeros(1)])
    return best_precision[torch.searchsorted(recall, thresholds)].mean()


def envelope_area(precision: Tensor, recall: Tensor) -> Tensor:
    """Integrate the precision envelope over the recall. Precision and ascending recall are float64 `[M]`.

    The envelope is the best precision at this recall or a higher one.
    """
    return (_envelope(precision) * recall.diff(prepend=recall.new_zeros(1))).sum()


def _envelope(precision: Tensor) -> Tensor:
    return precision.flip(0).cummax(0).values.flip(0)


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


def overlapping_pairs(
    detections: DetectionTable, objects: ObjectTable, *, least_overlap: float, same_class: bool = True
) -> Pairs:
    """Find the pairs whose IoU is at least `least_overlap`, which must be above 0."""
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
        pairs_before = (count[rows].cumsum(0) - count[rows]).repeat_interleave(count[rows])
        candidate = first[detection] + torch.arange(len(detection), device=rows.device) - pairs_before
        iou = broadcast_iou(detections.boxes[detection].double(), objects.boxes[order[candidate]].double())
        parts.append(Pairs(detection, order[candidate], iou).where(iou >= least_overlap))
    return Pairs(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def best_partner(pairs: Pairs, num_detections: int) -> tuple[Tensor, Tensor]:
    """Find the object with the largest overlap for each detection; of equal overlaps, the first.

    Returns:
        Row of the object, int64 `[M]`, -1 if none, and the overlap, float64 `[M]`, 0 if none.
    """
    overlap = pairs.overlap.new_zeros(num_detections).scatter_reduce(0, pairs.detection, pairs.overlap, "amax")
    best = pairs.where(pairs.overlap == overlap[pairs.detection])
    none = torch.iinfo(torch.int64).max
    row = pairs.object.new_full((num_detections,), none).scatter_reduce(0, best.detection, best.object, "amin")
    return row.where(row != none, -1), overlap
