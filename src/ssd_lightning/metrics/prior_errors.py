"""Errors of the raw output, prior by prior: what d2l.ai's TinySSD reports while it trains (section 14.7)."""

import torch
from torch import Tensor

from ssd_lightning.types import SSDOutput


@torch.no_grad()
def prior_errors(output: SSDOutput, labels: Tensor, offsets: Tensor) -> dict[str, Tensor]:
    """Compare the output with what every prior should predict.

    Both are means over all priors, as d2l has them: nearly all are background, so that an error of a thousandth is
    not small. They compare runs on the same priors, and nothing else.

    Args:
        output: of the network for B images.
        labels: int64 `[B, K]`; 0 is the background.
        offsets: `[B, K, 4]`, encoded.

    Returns:
        `class_error`: share of priors whose class of highest score is wrong. `box_mae`: absolute errors of the
        offsets of positives, over the number of coordinates of all priors. 0 for a batch without images.
    """
    wrong = output.class_logits.argmax(dim=-1) != labels  # [B, K]
    distance = (output.box_offsets.float() - offsets).abs().sum(dim=-1)
    num_priors = max(1, labels.numel())
    return {
        "class_error": wrong.sum() / num_priors,
        "box_mae": torch.where(labels > 0, distance, 0.0).sum() / (4 * num_priors),
    }
