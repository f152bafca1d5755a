"""Calibration: whether a score of .8 means eight hits in ten.

Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3, for the expected calibration
error; Küppers et al., "Multivariate Confidence Calibration for Object Detection", CVPR Workshops 2020, section 3, for
detection, where precision replaces accuracy.
"""

from dataclasses import dataclass

import numpy as np

from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.metrics.average_precision import HIT, IGNORED, match_detections

BINS = 10


@dataclass(frozen=True, eq=False)
class CalibrationCurve:
    """Scores against precision in B = `BINS` bins of equal width. All numbers are finite."""

    edges: np.ndarray
    """float64 `[B + 1]`, from 0 to 1; the upper edge belongs to the bin."""
    counts: np.ndarray
    """int64 `[B]`: number of detections that are a hit or a miss."""
    mean_scores: np.ndarray
    """float64 `[B]`: mean score; 0 in an empty bin."""
    precisions: np.ndarray
    """float64 `[B]`: fraction of hits; 0 in an empty bin."""
    error: float
    """Expected calibration error: mean gap between score and precision, weighted by count; 0 without detections."""


def calibration(record: EvaluationRecord, *, score_threshold: float = 0.0) -> CalibrationCurve:
    """Compare the scores of the detections of all classes with how many of them are hits at IoU .5.

    Detections below `score_threshold` are skipped, since SSD's many low scores would dominate the error.
    """
    ranked = record.ranked_detections(score_threshold)
    outcomes = match_detections(ranked, record.objects)
    decided = outcomes != IGNORED
    scores, is_hit = ranked.scores[decided].double().numpy(), (outcomes == HIT)[decided].numpy()
    edges = np.linspace(0.0, 1.0, BINS + 1)
    index = np.searchsorted(edges[1:-1], scores)
    counts = np.bincount(index, minlength=BINS)
    divisor = np.maximum(counts, 1)
    mean_scores = np.bincount(index, weights=scores, minlength=BINS) / divisor
    precisions = np.bincount(index, weights=is_hit, minlength=BINS) / divisor
    return CalibrationCurve(
        edges=edges,
        counts=counts,
        mean_scores=mean_scores,
        precisions=precisions,
        error=float((counts * abs(precisions - mean_scores)).sum() / max(1, counts.sum())),
    )
