"""Detection quality by object size."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssd_lightning.analysis.evaluation_record import EvaluationRecord, above, split_difficult
from ssd_lightning.analysis.matching import Pairs, by_preference, match_in_order, overlapping_pairs
from ssd_lightning.metrics.average_precision import HIT, IGNORED, MISS, DetectionTable, ObjectTable, precision_recall

SIDES_PX = {"small": (0.0, 32.0), "medium": (32.0, 96.0), "large": (96.0, float("inf"))}
"""COCO's size ranges, as square roots of areas."""
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)
"""Both as in pycocotools, to the last bit. torchmetrics uses float32, which may move a recall of exactly .6 to the
other side of its threshold."""


@dataclass(frozen=True)
class SizeAP:
    """AP of objects in one of COCO's ranges of area."""

    name: str
    """`small`, `medium` or `large`."""
    least_side_px: float
    """Square root of the smallest area, in pixels of the original image."""
    largest_side_px: float
    """Infinite for `large`."""
    num_objects: int
    """Number of counted objects of all classes. An area on the border of two ranges counts in both."""
    ap: float
    """COCO's AP .50:.05:.95, mean over classes with objects of this size; NaN if there are none."""
    ap_50: float
    """The same at IoU .50."""


@dataclass(frozen=True)
class SizeRecall:
    """Recall of objects between two quantiles of the data set's sizes."""

    least_side_px: float
    """Square root of the area of the smallest object, in pixels of the original image."""
    largest_side_px: float
    num_objects: int
    num_found: int

    @property
    def recall(self) -> float:
        """Fraction of the objects that were detected."""
        return self.num_found / self.num_objects


def ap_by_size(record: EvaluationRecord) -> list[SizeAP]:
    """Compute COCO's AP for small, medium and large objects, from all detections.

    Difficult objects are treated as crowds: not counted, and detections inside them are ignored.
    """
    ranked, objects = _in_pixels(record)
    candidates = _candidates(ranked, objects)
    found_areas, areas = _areas(ranked.boxes), _areas(objects.boxes)
    rows = []
    for name, (least_side, largest_side) in SIDES_PX.items():
        is_inside = (areas >= least_side**2) & (areas <= largest_side**2)
        is_found_inside = (found_areas >= least_side**2) & (found_areas <= largest_side**2)
        counts = is_inside & ~objects.difficult
        totals = objects.labels[counts].bincount(minlength=record.num_classes + 1)[1:]
        preferred = by_preference(candidates, last_choice=~counts, later_of_equals=True)
        aps = []
        for threshold in IOU_THRESHOLDS:
            outcomes = _outcomes(preferred, ranked, objects, float(threshold), counts, is_found_inside)
            aps.append(_mean_average(ranked.labels, outcomes, totals))
        rows.append(SizeAP(name, least_side, largest_side, int(counts.sum()), float(np.mean(aps)), aps[0]))
    return rows


def coco_average(precision: Tensor, recall: Tensor) -> Tensor:
    """Average the best precision at recalls of at least 0, .01, ..., 1, which is 0 if a recall is not reached.

    Args:
        precision: float64 `[M]`.
        recall: float64 `[M]`, ascending.
    """
    envelope = torch.cat([precision.flip(0).cummax(0).values.flip(0), precision.new_zeros(1)])
    return envelope[torch.searchsorted(recall, torch.from_numpy(RECALL_THRESHOLDS))].mean()


def recall_by_size(
    record: EvaluationRecord, bins: int = 5, *, iou_threshold: float = 0.5, score_threshold: float = 0.4
) -> list[SizeRecall]:
    """Compute the recall in bins with equal numbers of objects, from the smallest.

    Args:
        record: record of the evaluation.
        bins: number of bins; fewer if objects of one size would be split, none without counted objects.
        iou_threshold: smallest overlap of a hit.
        score_threshold: detections below it are skipped.
    """
    counted, _ = split_difficult(record.objects)
    found = above(record.ranked_detections(), score_threshold)
    pairs = overlapping_pairs(found, counted, least_overlap=iou_threshold)
    taken = match_in_order(by_preference(pairs), num_detections=len(found.labels), num_objects=len(counted.labels))
    is_found = np.zeros(len(counted.labels), dtype=bool)
    is_found[taken[taken >= 0].numpy()] = True
    sides = _areas(_to_pixels(counted.boxes, record.sizes_px[counted.image_index])).sqrt().numpy()
    if not len(sides):
        return []
    borders = np.unique(np.quantile(sides, np.linspace(0, 1, bins + 1)[1:-1], method="lower"))
    bin_of = np.searchsorted(borders, sides)
    rows = []
    for index in np.unique(bin_of):
        inside = bin_of == index
        low, high = float(sides[inside].min()), float(sides[inside].max())
        rows.append(SizeRecall(low, high, int(inside.sum()), int(is_found[inside].sum())))
    return rows


def _outcomes(
    candidates: Pairs,
    ranked: DetectionTable,
    objects: ObjectTable,
    iou_threshold: float,
    counts: Tensor,
    is_found_inside: Tensor,
) -> Tensor:
    """Judge by COCO's rules: matches with uncounted objects, and misses outside the size range, are ignored."""
    taken = match_in_order(
        candidates.where(candidates.overlap >= iou_threshold),
        num_detections=len(ranked.labels),
        num_objects=len(objects.labels),
        shared=objects.difficult,
    )
    outcomes = torch.where(is_found_inside, MISS, IGNORED)
    takers = (taken >= 0).nonzero().squeeze(1)
    outcomes[takers] = torch.where(counts[taken[takers]], HIT, IGNORED)
    return outcomes


def _candidates(ranked: DetectionTable, objects: ObjectTable) -> Pairs:
    """Pair by IoU; for crowds, by the fraction of the detection inside them."""
    least = float(IOU_THRESHOLDS[0])
    plain = overlapping_pairs(ranked, objects, least_overlap=least)
    crowded = overlapping_pairs(ranked, objects, least_overlap=least, overlap=_share_inside)
    parts = plain.where(~objects.difficult[plain.object]), crowded.where(objects.difficult[crowded.object])
    return Pairs(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _mean_average(labels: Tensor, outcomes: Tensor, totals: Tensor) -> float:
    aps = [
        float(coco_average(*precision_recall(outcomes[labels == index + 1], int(totals[index]))))
        for index in totals.nonzero().squeeze(1).tolist()
    ]
    return float(np.mean(aps)) if aps else float("nan")


def _in_pixels(record: EvaluationRecord) -> tuple[DetectionTable, ObjectTable]:
    """Return ranked detections, and objects, with boxes in pixels of the original images."""
    ranked, objects = record.ranked_detections(), record.objects
    return (
        ranked._replace(boxes=_to_pixels(ranked.boxes, record.sizes_px[ranked.image_index])),
        objects._replace(boxes=_to_pixels(objects.boxes, record.sizes_px[objects.image_index])),
    )


def _to_pixels(boxes: Tensor, sizes_px: Tensor) -> Tensor:
    """Scale normalised boxes `[P, 4]`, each with the (height, width) of its image."""
    return boxes * sizes_px.flip(1).repeat(1, 2)


def _areas(boxes: Tensor) -> Tensor:
    """Compute areas as float64 from sides rounded to the boxes' precision, as in COCO's format."""
    return (boxes[:, 2:] - boxes[:, :2]).double().prod(1)


def _share_inside(boxes: Tensor, crowds: Tensor) -> Tensor:
    """Compute the fraction of each box inside its crowd, float64 `[P]`; 0 for boxes without area."""
    boxes, crowds = boxes.double(), crowds.double()
    overlap = torch.minimum(boxes[:, 2:], crowds[:, 2:]) - torch.maximum(boxes[:, :2], crowds[:, :2])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return torch.where(areas > 0, overlap.clamp(min=0).prod(1) / areas, 0.0)
