"""Detection for the server: final detections, or all candidates for the page's own threshold and NMS."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssd_lightning.data.resize import undo
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.runtime.network import ExportedNetwork
from ssd_lightning.ops.boxes import boxes_to_pixels, clip_boxes, cxcywh_to_xyxy
from ssd_lightning.ops.coder import decode
from ssd_lightning.ops.nms import rank_in_group
from ssd_lightning.types import Detections

LOWEST_SCORE = 0.02
"""Minimum score of candidates. Below it, an image has thousands of useless ones."""
MOST_CANDIDATES = 3000
"""Maximum per image. Only better boxes suppress a box, so dropping the worst ones does not affect the others."""


@dataclass(frozen=True)
class Candidates:
    """Boxes of one image before NMS, best first."""

    boxes_xyxy_px: Tensor
    """float32 `[R, 4]`. They may extend beyond the image if NMS comes before clipping."""
    scores: Tensor
    """float32 `[R]`, descending."""
    labels: Tensor
    """int64 `[R]`, 1..C."""

    def as_record(self) -> dict[str, Any]:
        """Return plain lists. Boxes are rounded to 0.001 pixels."""
        return {
            "boxes_xyxy_px": [[round(edge, 3) for edge in box] for box in self.boxes_xyxy_px.tolist()],
            "scores": self.scores.tolist(),
            "labels": self.labels.tolist(),
        }


def why_overlap_is_fixed(detector: Detector) -> str | None:
    """Return why the page cannot apply NMS itself to this detector's boxes. None if it can."""
    if isinstance(detector.net, ExportedNetwork) and detector.net.description.nms:
        return "The exported file has NMS inside: its overlap is fixed."
    if detector.postprocess.soft_nms is not None:
        return "This detector uses Soft-NMS, which lowers scores and removes no boxes: its overlap is fixed."
    return None


@torch.inference_mode()
def find_candidates(detector: Detector, image: np.ndarray) -> Candidates:
    """Run the network once and return all boxes that any setting of the page may show.

    Args:
        detector: the detector. If its overlap is fixed, the candidates are its detections.
        image: uint8 `[H, W, 3]`, RGB.
    """
    lowest_score = max(LOWEST_SCORE, detector.postprocess.score_threshold)
    loose = replace(
        detector.postprocess, score_threshold=lowest_score, iou_threshold=1.0, max_detections=MOST_CANDIDATES
    )
    resized, placement = detector.resize.apply(image, detector.image_size)
    batch = torch.from_numpy(resized).permute(2, 0, 1)[None]
    if why_overlap_is_fixed(detector) is not None:
        boxes_xyxy, scores, labels = _columns(detector.detect(batch)[0])
    elif isinstance(detector.net, ExportedNetwork):  # its boxes are clipped, which changes some overlaps slightly
        boxes_xyxy, scores, labels = _columns(detector.net.detect(batch, loose)[0])
    else:
        output = detector.net(batch.to(detector.device))
        _, prior, labels, scores = loose.candidates(output.class_logits)
        offsets, priors_cxcywh = output.box_offsets[0, prior], output.priors_cxcywh[prior]
        boxes_xyxy = cxcywh_to_xyxy(decode(offsets, priors_cxcywh, loose.variances))
        if loose.clip_first:
            boxes_xyxy = clip_boxes(boxes_xyxy)
    boxes_xyxy_px = boxes_to_pixels(undo(boxes_xyxy, placement), image.shape[:2])
    best = _best(boxes_xyxy_px, scores, labels, lowest_score=lowest_score, top_k=loose.top_k)
    return Candidates(boxes_xyxy_px[best].cpu(), scores[best].cpu(), labels[best].cpu())


def find_detections(
    detector: Detector, image: np.ndarray, score_threshold: float, classes: Sequence[str] | None
) -> dict[str, Any]:
    """Detect in an image as the command `predict` does, and return the same record.

    Args:
        detector: the detector.
        image: uint8 `[H, W, 3]`, RGB.
        score_threshold: minimum score of the returned detections.
        classes: names of the returned classes. None returns all.
    """
    return detector(image).select(score_threshold, classes).as_record()


def timed(task: Any, *arguments: Any) -> tuple[Any, float]:
    """Run a task and return its result and duration in milliseconds."""
    start = time.perf_counter()
    result = task(*arguments)
    return result, round(1000 * (time.perf_counter() - start), 2)


def _columns(found: Detections) -> tuple[Tensor, Tensor, Tensor]:
    return found["boxes"], found["scores"], found["labels"]


def _best(boxes_xyxy_px: Tensor, scores: Tensor, labels: Tensor, *, lowest_score: float, top_k: int) -> Tensor:
    """Choose the best of each class and of all, best first. Non-finite boxes are dropped: JSON cannot store them."""
    useful = ((scores >= lowest_score) & boxes_xyxy_px.isfinite().all(dim=1)).nonzero()[:, 0]
    by_score = useful[scores[useful].argsort(descending=True, stable=True)]
    by_class = by_score[labels[by_score].argsort(stable=True)]
    best = by_class[rank_in_group(labels[by_class]) < top_k]
    return best[scores[best].argsort(descending=True, stable=True)][:MOST_CANDIDATES]
