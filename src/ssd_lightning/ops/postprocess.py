"""From raw output to detections (SSD paper, section 2.2 and 3.1: "inference time")."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ssd_lightning.checks import require_choice, require_number
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.ops.boxes import clip_boxes, cxcywh_to_xyxy
from ssd_lightning.ops.candidates import Candidates, best_candidates, candidates_of_classes
from ssd_lightning.ops.coder import VARIANCES, decode
from ssd_lightning.ops.soft_nms import batched_soft_nms
from ssd_lightning.ops.suppression import rank_in_group, suppress
from ssd_lightning.types import Detections, SSDOutput

Suppression = Literal["nms", "soft_nms_linear", "soft_nms_gaussian"]
SUPPRESSIONS: tuple[str, ...] = get_args(Suppression)

ENOUGH_PRIORS = 1000
"""So many of an image's best priors are tried first, whatever their class; few images leave less than the paper's 200
detections of them and have others."""


@torch.no_grad()
def postprocess(
    output: SSDOutput,
    score_threshold: float = 0.01,
    iou_threshold: float = 0.45,
    top_k: int = 400,
    max_detections: int = 200,
    variances: tuple[float, float] = VARIANCES,
    suppression: Suppression = "nms",
    class_agnostic: bool = False,
    soft_nms_sigma: float = 0.5,
    clip_first: bool = False,
) -> list[Detections]:
    """Softmax, decode, threshold, and non-maximum suppression of each class of each image.

    Of equal scores the lower class counts as the better, then the earlier prior. A prior with a logit that is NaN or
    positive infinity detects nothing.

    Args:
        output: of the network, for B images.
        score_threshold: only scores above it count; soft suppression drops boxes that it lowers to that.
        iou_threshold: of two boxes of a class that overlap more, the weaker one goes; `soft_nms_linear` lowers the
            scores from there on; `soft_nms_gaussian` has no use for it.
        top_k: best boxes of a class that enter suppression.
        max_detections: best boxes of an image that are kept.
        variances: those that the offsets are encoded with.
        suppression: `nms` (the paper), `soft_nms_linear` or `soft_nms_gaussian`; see `ops.soft_nms`.
        class_agnostic: boxes of different classes suppress each other too.
        soft_nms_sigma: of `soft_nms_gaussian`.
        clip_first: clip boxes to the image before suppression, as torchvision does, not after it, as the Caffe
            reference does.

    Returns:
        B detections, their boxes within the image.

    Raises:
        ConfigurationError: there is no such suppression; `check_postprocess` looks at all settings, without an output.
    """
    require_choice("postprocess.suppression", suppression, SUPPRESSIONS)
    detect = partial(
        _detect,
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        top_k=top_k,
        max_detections=max_detections,
        variances=variances,
        suppression=suppression,
        class_agnostic=class_agnostic,
        soft_nms_sigma=soft_nms_sigma,
        clip_first=clip_first,
    )
    if suppression != "nms":  # it may lower the best scores below any others
        return detect(output, candidates_of_classes(output.class_logits, score_threshold, top_k))
    # Boxes are removed by better ones alone, so the best of an image decide for themselves what is left of them.
    candidates, more = best_candidates(output.class_logits, score_threshold, ENOUGH_PRIORS)
    detections = detect(output, candidates)
    too_few = [len(found["scores"]) < max_detections for found in detections]
    again = [index for index, has_more in enumerate(more.tolist()) if has_more and too_few[index]]
    if again:
        rest = SSDOutput(output.box_offsets[again], output.class_logits[again], output.priors_cxcywh)
        found = detect(rest, candidates_of_classes(rest.class_logits, score_threshold, top_k))
        for index, image_detections in zip(again, found, strict=True):
            detections[index] = image_detections
    return detections


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
            case "class_agnostic" | "clip_first":
                if not isinstance(value, bool):
                    raise ConfigurationError(f"{where} is {value!r}; it can be true or false")
            case "soft_nms_sigma":
                require_number(where, value, 0, above_low=True)
            case "variances":
                for variance in value:
                    require_number(where, variance, 0, above_low=True)
            case _:
                raise ConfigurationError(f"there is no setting {where} (its value is {value!r})")


def _detect(
    output: SSDOutput,
    candidates: Candidates,
    *,
    score_threshold: float,
    iou_threshold: float,
    top_k: int,
    max_detections: int,
    variances: tuple[float, float],
    suppression: Suppression,
    class_agnostic: bool,
    soft_nms_sigma: float,
    clip_first: bool,
) -> list[Detections]:
    """Decode and suppress the candidates; settings are those of `postprocess`."""
    batch, _, num_logits = output.class_logits.shape
    of_class = candidates.image * num_logits + candidates.label
    order = _by_group_and_score(of_class, candidates.scores)
    candidates = candidates.rows(order[rank_in_group(of_class[order]) < top_k])
    if class_agnostic:
        candidates = candidates.rows(_by_group_and_score(candidates.image, candidates.scores))
    image, label, prior, scores = candidates
    boxes_xyxy = cxcywh_to_xyxy(decode(output.box_offsets[image, prior], output.priors_cxcywh[prior], variances))
    if clip_first:
        boxes_xyxy = clip_boxes(boxes_xyxy)

    group = image if class_agnostic else image * num_logits + label
    if suppression == "nms":
        kept = suppress(boxes_xyxy, scores, group, iou_threshold).nonzero()[:, 0]
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
    order = _by_group_and_score(image[kept], scores)
    order = order[rank_in_group(image[kept][order]) < max_detections]
    scores, kept = scores[order], kept[order]
    per_image = image[kept].bincount(minlength=batch).tolist()
    columns = (clip_boxes(boxes_xyxy[kept]), scores, label[kept])
    parts = zip(*(column.split(per_image) for column in columns), strict=True)
    return [Detections(boxes=boxes, scores=found, labels=labels) for boxes, found, labels in parts]


def _by_group_and_score(group: Tensor, scores: Tensor) -> Tensor:
    """Order rows by group, then by descending score; equal ones stay in their order."""
    # The bits of a positive float32, read as a whole number, grow with it: one sort does for both.
    return ((group << 32) - scores.view(torch.int32)).argsort(stable=True)


def empty_detections(device: torch.device | None = None) -> Detections:
    """Give the detections of an image in which nothing is seen."""
    return Detections(
        boxes=torch.zeros(0, 4, device=device),
        scores=torch.zeros(0, device=device),
        labels=torch.zeros(0, dtype=torch.int64, device=device),
    )
