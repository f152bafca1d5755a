"""Detection quality by object size."""

from dataclasses import dataclass

import numpy as np

from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.matching import match_visible
from ssd_lightning.ops.boxes import areas_px

SIDES_PX = {"small": (0.0, 32.0), "medium": (32.0, 96.0), "large": (96.0, float("inf"))}
"""COCO's size ranges, as square roots of areas. An area on a border is in both."""


@dataclass(frozen=True)
class SizeAP:
    """COCO's AP of the counted objects in one of `SIDES_PX`, mean over all classes with such objects; NaN without."""

    name: str
    num_objects: int
    ap: float
    """At IoU .50:.05:.95."""
    ap_50: float


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
    counted, _ = record.split_difficult()
    sides = areas_px(counted.boxes, record.sizes_px[counted.image_index]).sqrt().numpy()
    of_size = {name: int(((sides >= low) & (sides <= high)).sum()) for name, (low, high) in SIDES_PX.items()}
    from ssd_lightning.metrics.coco import IOU_THRESHOLDS, coco_summary  # torchmetrics takes a second to import
    from ssd_lightning.metrics.detection_state import Evaluation

    evaluation = Evaluation(record.sizes_px, record.detections, record.objects)
    most = max(1, int(record.detections.image_index.bincount(minlength=1).max()))
    scores, at_50 = (
        coco_summary(evaluation, max_detection_thresholds=(1, 10, max(11, most)), iou_thresholds=thresholds)
        for thresholds in (IOU_THRESHOLDS, [0.5])
    )
    return [
        SizeAP(name, count, float(scores[f"map_{name}"]), float(at_50[f"map_{name}"]))
        for name, count in of_size.items()
    ]


def recall_by_size(record: EvaluationRecord, bins: int = 5, *, score_threshold: float = 0.4) -> list[SizeRecall]:
    """Compute the recall at IoU .5 in bins with equal numbers of objects, from the smallest.

    There are fewer bins if objects of one size would be split, and none without counted objects.
    """
    matches = match_visible(record, score_threshold=score_threshold)
    counted, is_found = matches.counted, ~matches.is_missed.numpy()
    sides = areas_px(counted.boxes, record.sizes_px[counted.image_index]).sqrt().numpy()
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
