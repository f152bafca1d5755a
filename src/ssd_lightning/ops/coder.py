"""Boxes as offsets from priors, and back (SSD paper, section 2.2, equation 2)."""

import math

import torch
from torch import Tensor

VARIANCES = (0.1, 0.2)
"""Scale of the centre and of the size offsets (Caffe's `prior_variance`)."""

MAX_LOG_RATIO = math.log(1000.0 / 16)
"""Largest log(size / prior size) that is decoded: an untrained network must not give infinite boxes."""


def encode(boxes_cxcywh: Tensor, priors_cxcywh: Tensor, variances: tuple[float, float] = VARIANCES) -> Tensor:
    """Express boxes relative to priors.

    Args:
        boxes_cxcywh: `[..., K, 4]`, normalised, with positive width and height.
        priors_cxcywh: `[K, 4]`, normalised.
        variances: scale of the centre and of the size offsets.

    Returns:
        `[..., K, 4]` offsets: centre difference in units of the prior's size and log of the size ratio, each over
        its variance.
    """
    centre = (boxes_cxcywh[..., :2] - priors_cxcywh[..., :2]) / (variances[0] * priors_cxcywh[..., 2:])
    size = torch.log(boxes_cxcywh[..., 2:] / priors_cxcywh[..., 2:]) / variances[1]
    return torch.cat((centre, size), dim=-1)


def decode(box_offsets: Tensor, priors_cxcywh: Tensor, variances: tuple[float, float] = VARIANCES) -> Tensor:
    """Invert `encode`, in float32 whatever the input's precision.

    Args:
        box_offsets: `[..., K, 4]`.
        priors_cxcywh: `[K, 4]`, normalised.
        variances: scale of the centre and of the size offsets.

    Returns:
        `[..., K, 4]` boxes in cxcywh, normalised, not clipped to the image. A size more than `exp(MAX_LOG_RATIO)`
        times that of its prior is held at that.
    """
    offsets, priors = box_offsets.float(), priors_cxcywh.float()
    centre = priors[..., :2] + offsets[..., :2] * variances[0] * priors[..., 2:]
    size = priors[..., 2:] * torch.exp((offsets[..., 2:] * variances[1]).clamp(max=MAX_LOG_RATIO))
    return torch.cat((centre, size), dim=-1)
