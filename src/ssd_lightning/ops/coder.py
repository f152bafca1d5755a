"""Encode boxes as offsets from priors and decode them (SSD paper, section 2.2, equation 2)."""

import math

import torch
from torch import Tensor

VARIANCES = (0.1, 0.2)
"""Scales of the centre and size offsets (Caffe's `prior_variance`)."""

MAX_LOG_RATIO = math.log(1000.0 / 16)
"""Upper limit of log(size / prior size) in `decode`, so that an untrained network does not produce infinite boxes."""


def encode(boxes_cxcywh: Tensor, priors_cxcywh: Tensor, variances: tuple[float, float] = VARIANCES) -> Tensor:
    """Encode boxes relative to priors.

    Args:
        boxes_cxcywh: `[..., K, 4]`, normalised, with positive width and height.
        priors_cxcywh: `[K, 4]`, normalised.
        variances: scales of the centre and size offsets.

    Returns:
        `[..., K, 4]` offsets: centre difference divided by the prior's size, and log of the size ratio, each divided by
        its variance.
    """
    centre = (boxes_cxcywh[..., :2] - priors_cxcywh[..., :2]) / (variances[0] * priors_cxcywh[..., 2:])
    size = torch.log(boxes_cxcywh[..., 2:] / priors_cxcywh[..., 2:]) / variances[1]
    return torch.cat((centre, size), dim=-1)


def decode(box_offsets: Tensor, priors_cxcywh: Tensor, variances: tuple[float, float] = VARIANCES) -> Tensor:
    """Decode offsets from priors to boxes, the inverse of `encode`. Always computes in float32.

    Args:
        box_offsets: `[..., K, 4]` offsets.
        priors_cxcywh: `[K, 4]`, normalised.
        variances: scales of the centre and size offsets.

    Returns:
        `[..., K, 4]` boxes in cxcywh, normalised, not clipped to the image. Width and
        height are limited to `exp(MAX_LOG_RATIO)` times those of the prior.
    """
    offsets, priors = box_offsets.float(), priors_cxcywh.float()
    centre = priors[..., :2] + offsets[..., :2] * variances[0] * priors[..., 2:]
    size = priors[..., 2:] * torch.exp((offsets[..., 2:] * variances[1]).clamp(max=MAX_LOG_RATIO))
    return torch.cat((centre, size), dim=-1)
