"""Errors of the raw output, prior by prior: what d2l.ai's TinySSD reports while it trains (section 14.7)."""

import torch
from torch import Tensor

from ssd_lightning.ops.boxes import xyxy_to_cxcywh
from ssd_lightning.ops.coder import encode
from ssd_lightning.ops.matching import Assignment
from ssd_lightning.types import SSDOutput


@torch.no_grad()
def prior_errors(output: SSDOutput, assignment: Assignment) -> dict[str, Tensor]:
    """Compare the output with what every prior should predict.

    Both are means over all priors, as d2l has them: nearly all are background, so that an error of a thousandth is
    not small. They compare runs on the same priors, and nothing else.

    Args:
        output: of the network for B images.
        assignment: what each prior should predict.

    Returns:
        `class_error`: share of priors whose class of highest score is wrong. `box_mae`: absolute errors of the
        offsets of positives, over the number of coordinates of all priors. 0 for a batch without images.
    """
    labels = assignment.labels
    boxes_xyxy, priors_cxcywh = assignment.matched_boxes(output.priors_cxcywh)  # [B * K, 4]
    offsets = encode(xyxy_to_cxcywh(boxes_xyxy), priors_cxcywh).view_as(output.box_offsets)
    wrong = output.class_logits.argmax(dim=-1) != labels  # [B, K]
    distance = (output.box_offsets.float() - offsets).abs().sum(dim=-1)
    num_priors = max(1, labels.numel())
    return {
        "class_error": wrong.sum() / num_priors,
        "box_mae": torch.where(labels > 0, distance, 0.0).sum() / (4 * num_priors),
    }
