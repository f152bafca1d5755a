"""Precision-recall curves of each class; their area is the VOC metric."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.metrics.average_precision import (
    IGNORED,
    eleven_point_average,
    envelope_area,
    match_detections,
    precision_recall,
)


@dataclass(frozen=True, eq=False)
class PRCurve:
    """One class: precision and recall after each of its P detections that are not ignored, best score first."""

    class_name: str
    num_objects: int
    """Number of objects that are not difficult."""
    precision: np.ndarray
    """float64 `[P]`; empty for a class without counted objects."""
    recall: np.ndarray
    """float64 `[P]`, ascending."""
    ap: float
    """Area under the envelope; NaN without counted objects."""
    ap_11point: float
    """VOC 2007's mean over 11 recalls; NaN without counted objects."""

    def thinned(self, points: int) -> "PRCurve":
        """Keep at most `points` points for drawing: the first that reach evenly spaced recalls.

        Precision becomes that of the envelope, so that it does not depend on the selected points.
        """
        if len(self.recall) <= points:
            return self
        wanted = np.linspace(0.0, self.recall[-1], points)
        kept = np.unique(np.searchsorted(self.recall, wanted))
        envelope = np.maximum.accumulate(self.precision[::-1])[::-1]
        return replace(self, precision=envelope[kept], recall=self.recall[kept])


def pr_curves(record: EvaluationRecord, iou_threshold: float = 0.5) -> list[PRCurve]:
    """Compute the curve of every class 1..C, by the rules of `metrics.average_precision`."""
    ranked = record.ranked_detections()
    outcomes = match_detections(ranked, record.objects, iou_threshold=iou_threshold)
    counted = record.objects.labels[~record.objects.difficult]
    curves = []
    for label, name in enumerate(record.class_names, start=1):
        num_objects = int((counted == label).sum())
        of_class = (ranked.labels == label) & (outcomes != IGNORED) & (num_objects > 0)
        precision, recall = precision_recall(outcomes[of_class], max(1, num_objects))
        area, eleven_point = (
            float(average(precision, recall)) if num_objects else float("nan")
            for average in (envelope_area, eleven_point_average)
        )
        curves.append(PRCurve(name, num_objects, precision.numpy(), recall.numpy(), area, eleven_point))
    return curves


def mean_ap(curves: Sequence[PRCurve]) -> float:
    """Average over the classes with objects; NaN if there are none."""
    aps = [curve.ap for curve in curves if curve.num_objects]
    return float(np.mean(aps)) if aps else float("nan")
