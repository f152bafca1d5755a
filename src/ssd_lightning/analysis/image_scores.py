"""Rank images by the quality of their detections."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.matching import match_visible
from ssd_lightning.ops.boxes import broadcast_iou


@dataclass(frozen=True, eq=False)
class ImageScores:
    """A score for each of the I images, in the order of the record, and counts: int64 `[I]`."""

    scores: np.ndarray
    """float64 `[I]`, 0 to 1: 2 * the sum of IoUs of hits / (detections + objects); 1 if both are 0."""
    hits: np.ndarray
    false_positives: np.ndarray
    missed: np.ndarray
    best_first: np.ndarray
    """int64 `[I]`: indices of the images, best first; see `image_scores`."""


def image_scores(record: EvaluationRecord, *, score_threshold: float = 0.4) -> ImageScores:
    """Score every image by its detections with at least `score_threshold`; a hit overlaps its object by IoU .5.

    The score is the panoptic quality of all classes together (Kirillov et al., "Panoptic Segmentation", CVPR 2019,
    equation 1): F1 in which a hit counts with its IoU. It falls with missed objects, false detections and inaccurate
    boxes. Unlike the AP of one image, it does not depend on low-scoring detections.

    Images are sorted by score. Images without objects and detections come after those with a hit, so that both ends of
    the list show something. Images with score 0 are sorted by the number of errors, equal ones by their ids.
    """
    found, counted, taken, is_stray, is_missed = match_visible(record, score_threshold=score_threshold)
    is_hit = taken >= 0
    ious = broadcast_iou(found.boxes[is_hit].double(), counted.boxes[taken[is_hit]].double())

    def count(image_index: Tensor, weights: Tensor | None = None) -> np.ndarray:
        return image_index.bincount(weights, minlength=len(record.image_ids)).numpy()

    of_hits = found.image_index[is_hit]
    hits, false_positives = count(of_hits), count(found.image_index[is_stray])
    missed = count(counted.image_index[is_missed])
    rows = 2 * hits + false_positives + missed
    scores = np.where(rows > 0, 2 * count(of_hits, ious) / np.maximum(rows, 1), 1.0)
    group = np.where(rows == 0, 1, np.where(scores > 0, 0, 2))
    best_first = np.lexsort((np.array(record.image_ids, dtype=str), false_positives + missed, -scores, group))
    return ImageScores(scores, hits, false_positives, missed, best_first)
