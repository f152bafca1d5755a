"""Errors of the network's output, per prior, as the book d2l.ai reports for TinySSD (section 14.7)."""

import torch
from torch import Tensor

from ssd_lightning.ops.boxes import xyxy_to_cxcywh
from ssd_lightning.ops.coder import VARIANCES, encode
from ssd_lightning.ops.matching import Assignment
from ssd_lightning.types import SSDOutput


@torch.no_grad()
def prior_errors(
    output: SSDOutput, assignment: Assignment, variances: tuple[float, float] = VARIANCES
) -> dict[str, Tensor]:
    """Compare the output with the target of every prior.

    Both errors are means over all priors. Nearly all priors are background, so an error of .001 is not small. Compare
    the values only between runs with the same priors.

    Args:
        output: output of the network for B images.
        assignment: target of each prior.
        variances: scales of the centre and size offsets.

    Returns:
        `class_error`: fraction of priors with a wrong highest-scoring class. `box_mae`: sum of absolute offset errors
        of positives, divided by the number of coordinates of all priors. 0 for a batch without images.
    """
    labels = assignment.labels
    boxes_xyxy, priors_cxcywh = assignment.matched_boxes(output.priors_cxcywh)  # [B * K, 4]
    offsets = encode(xyxy_to_cxcywh(boxes_xyxy), priors_cxcywh, variances).view_as(output.box_offsets)
    wrong = output.class_logits.argmax(dim=-1) != labels  # [B, K]
    distance = (output.box_offsets.float() - offsets).abs().sum(dim=-1)
    num_priors = max(1, labels.numel())
    return {
        "class_error": wrong.sum() / num_priors,
        "box_mae": torch.where(labels > 0, distance, 0.0).sum() / (4 * num_priors),
    }
