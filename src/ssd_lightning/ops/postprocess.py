"""From raw output to detections (SSD paper, section 2.2 and 3.1: "inference time")."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from ssd_lightning.checks import require_choice, require_number
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.ops.boxes import clip_boxes, cxcywh_to_xyxy
from ssd_lightning.ops.coder import VARIANCES, decode
from ssd_lightning.ops.soft_nms import batched_soft_nms
from ssd_lightning.types import Detections, SSDOutput

Suppression = Literal["nms", "soft_nms_linear", "soft_nms_gaussian"]
SUPPRESSIONS: tuple[str, ...] = get_args(Suppression)


def postprocess(
    output: SSDOutput,
    score_threshold: float = 0.01,
    iou_threshold: float = 0.45,
    top_k: int = 400,
    max_detections: int = 200,
    variances: tuple[float, float] = VARIANCES,
    suppression: Suppression = "nms",
    agnostic: bool = False,
    soft_nms_sigma: float = 0.5,
    clip_first: bool = False,
) -> list[Detections]:
    """Softmax, decode, threshold, and non-maximum suppression of each class of each image.

    Args:
        output: of the network, for B images.
        score_threshold: only scores above it count; soft suppression drops boxes that it lowers to that.
        iou_threshold: of two boxes of a class that overlap more, the weaker one goes; `soft_nms_linear` lowers the
            scores from there on; `soft_nms_gaussian` has no use for it.
        top_k: best boxes of a class that enter suppression.
        max_detections: best boxes of an image that are kept.
        variances: those that the offsets are encoded with.
        suppression: `nms` (the paper), `soft_nms_linear` or `soft_nms_gaussian`; see `ops.soft_nms`.
        agnostic: boxes of different classes suppress each other too.
        soft_nms_sigma: of `soft_nms_gaussian`.
        clip_first: clip boxes to the image before suppression, as torchvision does, not after it, as the Caffe
            reference does.

    Returns:
        B detections, their boxes within the image.

    Raises:
        ConfigurationError: there is no such suppression; `check_postprocess` looks at all settings, without an output.
    """
    require_choice("postprocess.suppression", suppression, SUPPRESSIONS)
    scores = output.class_logits.float().softmax(dim=-1)[..., 1:]  # [B, K, C]
    boxes_xyxy = cxcywh_to_xyxy(decode(output.box_offsets, output.priors_cxcywh, variances))  # [B, K, 4]
    batch, num_priors, num_classes = scores.shape

    best_scores, best_priors = scores.transpose(1, 2).topk(min(top_k, num_priors), dim=2)  # [B, C, top_k]
    image, label, rank = (best_scores > score_threshold).nonzero(as_tuple=True)  # [R] each
    scores = best_scores[image, label, rank]
    boxes_xyxy = boxes_xyxy[image, best_priors[image, label, rank]]
    if clip_first:
        boxes_xyxy = clip_boxes(boxes_xyxy)

    group = image if agnostic else image * num_classes + label
    if suppression == "nms":
        kept = _suppress(boxes_xyxy, scores, group, iou_threshold)
        scores = scores[kept]
    else:
        kept, scores = batched_soft_nms(
            boxes_xyxy,
            scores,
            group,
            decay="linear" if suppression == "soft_nms_linear" else "gaussian",
            iou_threshold=iou_threshold,
            sigma=soft_nms_sigma,
            score_threshold=score_threshold,
            max_per_group=max_detections,
        )
    image, label, boxes_xyxy = image[kept], label[kept], clip_boxes(boxes_xyxy[kept])  # by descending score
    return [
        _select(boxes_xyxy, scores, label + 1, (image == index).nonzero()[:max_detections, 0]) for index in range(batch)
    ]


def check_postprocess(settings: Mapping[str, Any]) -> None:
    """Check keyword arguments of `postprocess` before there is an output to use them on.

    Raises:
        ConfigurationError: one is unknown or cannot work; the message has its name and value.
    """
    for name, value in settings.items():
        where = f"postprocess.{name}"
        match name:
            case "score_threshold" | "iou_threshold":
                require_number(where, value, 0, 1)
            case "top_k" | "max_detections":
                require_number(where, value, 1, whole=True)
            case "suppression":
                require_choice(where, value, SUPPRESSIONS)
            case "agnostic" | "clip_first":
                if not isinstance(value, bool):
                    raise ConfigurationError(f"{where} is {value!r}; it can be true or false")
            case "soft_nms_sigma":
                require_number(where, value, 0, above_low=True)
            case "variances":
                for variance in value:
                    require_number(where, variance, 0, above_low=True)
            case _:
                raise ConfigurationError(f"there is no setting {where} (its value is {value!r})")


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
