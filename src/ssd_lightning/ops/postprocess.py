"""From raw output to detections (SSD paper, section 2.2 and 3.1: "inference time")."""

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from ssd_lightning.ops.boxes import clip_boxes, cxcywh_to_xyxy
from ssd_lightning.ops.coder import VARIANCES, decode
from ssd_lightning.types import Detections, SSDOutput


def postprocess(
    output: SSDOutput,
    score_threshold: float = 0.01,
    iou_threshold: float = 0.45,
    top_k: int = 400,
    max_detections: int = 200,
    variances: tuple[float, float] = VARIANCES,
) -> list[Detections]:
    """Softmax, decode, threshold, and non-maximum suppression of each class of each image.

    Args:
        output: of the network, for B images.
        score_threshold: only scores above it count.
        iou_threshold: of two boxes of a class that overlap more, the weaker one goes.
        top_k: best boxes of a class that enter suppression.
        max_detections: best boxes of an image that are kept.
        variances: those that the offsets are encoded with.

    Returns:
        B detections. Boxes are clipped to the image after suppression, as the Caffe reference does.
    """
    scores = output.class_logits.float().softmax(dim=-1)[..., 1:]  # [B, K, C]
    boxes_xyxy = cxcywh_to_xyxy(decode(output.box_offsets, output.priors_cxcywh, variances))  # [B, K, 4]
    batch, num_priors, num_classes = scores.shape

    best_scores, best_priors = scores.transpose(1, 2).topk(min(top_k, num_priors), dim=2)  # [B, C, top_k]
    image, label, rank = (best_scores > score_threshold).nonzero(as_tuple=True)  # [R] each
    scores = best_scores[image, label, rank]
    boxes_xyxy = boxes_xyxy[image, best_priors[image, label, rank]]

    kept = _suppress(boxes_xyxy, scores, image * num_classes + label, iou_threshold)  # by descending score
    image, label, scores, boxes_xyxy = image[kept], label[kept], scores[kept], clip_boxes(boxes_xyxy[kept])
    return [
        _select(boxes_xyxy, scores, label + 1, (image == index).nonzero()[:max_detections, 0]) for index in range(batch)
    ]


def _suppress(boxes_xyxy: Tensor, scores: Tensor, group: Tensor, iou_threshold: float) -> Tensor:
    if len(scores) == 0:
        return group
    # batched_nms moves each group to a place of its own. Boxes left of the picture would land among those of the group
    # before, and so far out float32 has too few digits for small boxes; only Apple's GPUs have nothing better.
    precision = torch.float32 if scores.device.type == "mps" else torch.float64
    return batched_nms((boxes_xyxy - boxes_xyxy.min()).to(precision), scores.to(precision), group, iou_threshold)


def _select(boxes_xyxy: Tensor, scores: Tensor, labels: Tensor, index: Tensor) -> Detections:
    return Detections(boxes=boxes_xyxy[index], scores=scores[index], labels=labels[index])


def empty_detections(device: torch.device | None = None) -> Detections:
    """Give the detections of an image in which nothing is seen."""
    return Detections(
        boxes=torch.zeros(0, 4, device=device),
        scores=torch.zeros(0, device=device),
        labels=torch.zeros(0, dtype=torch.int64, device=device),
    )
