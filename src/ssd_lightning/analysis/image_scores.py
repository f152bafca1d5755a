"""Which images went well and which did not."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ssd_lightning.analysis.evaluation_record import EvaluationRecord, above, split_difficult
from ssd_lightning.analysis.matching import by_preference, match_in_order, overlapping_pairs
from ssd_lightning.metrics.average_precision import paired_iou


@dataclass(frozen=True, eq=False)
class ImageScores:
    """A score for each of I images, in the order of the record."""

    scores: np.ndarray
    """float64 `[I]`, 0 to 1: 2 * the sum of IoUs of hits / (detections + objects); 1 where there is neither."""
    hits: np.ndarray
    """int64 `[I]`: objects that were found."""
    false_positives: np.ndarray
    """int64 `[I]`: detections that are none of them."""
    missed: np.ndarray
    """int64 `[I]`: objects that were not found."""
    best_first: np.ndarray
    """int64 `[I]`: indices of the images, the best first; see `image_scores`."""


def image_scores(record: EvaluationRecord, *, iou_threshold: float = 0.5, score_threshold: float = 0.4) -> ImageScores:
    """Score every image by what a user would see of it.

    The score is the panoptic quality of all classes together (Kirillov et al., "Panoptic Segmentation", CVPR 2019,
    equation 1): F1 in which a hit counts with its IoU. It falls with a missed object, a false detection and a loose box
    alike, and detections of small score do not decide it, as they would an AP of one image.

    The order is that of the scores; images where nothing is and nothing was found come after those with a hit, so
    that at both ends there is something to see, and those with score 0 by the number of their errors. Equal ones are in
    the order of their ids.

    Args:
        record: of the evaluation.
        iou_threshold: least overlap of a hit.
        score_threshold: detections below it are skipped.
    """
    found = above(record.ranked_detections(), score_threshold)
    counted, difficult = split_difficult(record.objects)
    pairs = overlapping_pairs(found, counted, least_overlap=iou_threshold)
    taken = match_in_order(by_preference(pairs), num_detections=len(found.labels), num_objects=len(counted.labels))
    is_hit = taken >= 0
    is_excused = torch.zeros_like(is_hit)
    is_excused[overlapping_pairs(found, difficult, least_overlap=iou_threshold).detection] = True
    ious = paired_iou(found.boxes[is_hit], counted.boxes[taken[is_hit]])

    def count(image_index: Tensor, weights: Tensor | None = None) -> np.ndarray:
        return image_index.bincount(weights, minlength=len(record.image_ids)).numpy()

    hits = count(found.image_index[is_hit])
    false_positives = count(found.image_index[~is_hit & ~is_excused])
    objects = count(counted.image_index)
    errors = false_positives + objects - hits
    rows = hits + false_positives + objects
    quality = 2 * count(found.image_index[is_hit], ious)
    scores = np.where(rows > 0, quality / np.maximum(rows, 1), 1.0)
    group = np.where(rows == 0, 1, np.where(scores > 0, 0, 2))
    return ImageScores(
        scores=scores,
        hits=hits,
        false_positives=false_positives,
        missed=objects - hits,
        best_first=np.lexsort((np.array(record.image_ids, dtype=str), errors, -scores, group)),
    )
