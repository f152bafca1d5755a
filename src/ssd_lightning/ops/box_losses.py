"""How far predicted boxes are from their ground truth: per coordinate of the offsets, or by overlap of the boxes."""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ssd_lightning.ops.boxes import cxcywh_to_xyxy
from ssd_lightning.ops.coder import MAX_LOG_RATIO, VARIANCES, decode

OffsetLoss = Literal["smooth_l1", "l1"]
OverlapLoss = Literal["giou", "diou", "ciou"]
BoxLoss = Literal["smooth_l1", "l1", "giou", "diou", "ciou"]

OVERLAP_LOSSES: tuple[str, ...] = get_args(OverlapLoss)

MAX_CENTRE_OFFSET = 1e3
"""Centres farther out, 100 sizes of the prior, are held here: squares of their distances leave float32."""


def box_regression_loss(
    box_offsets: Tensor,
    target_offsets: Tensor,
    target_boxes_xyxy: Tensor,
    positive: Tensor,
    priors_cxcywh: Tensor,
    *,
    kind: BoxLoss = "smooth_l1",
    beta: float = 1.0,
    variances: tuple[float, float] = VARIANCES,
) -> Tensor:
    """Localisation loss of priors, in float32.

    Args:
        box_offsets: `[..., 4]`, of the network.
        target_offsets: `[..., 4]`, what they should be.
        target_boxes_xyxy: `[..., 4]`, the same as boxes.
        positive: bool `[...]`.
        priors_cxcywh: `[..., 4]` or one row for each of the last axis, normalised.
        kind: see `offset_loss` and `overlap_loss`.
        beta: of the smooth L1 loss.
        variances: scale of the offsets.

    Returns:
        `[...]`, 0 where a prior is not positive.
    """
    if kind == "smooth_l1" or kind == "l1":
        loss = offset_loss(box_offsets, target_offsets, kind=kind, beta=beta)
    else:
        loss = overlap_loss(box_offsets, target_boxes_xyxy, priors_cxcywh, kind=kind, variances=variances)
    return torch.where(positive, loss, 0.0)


def offset_loss(box_offsets: Tensor, target_offsets: Tensor, *, kind: OffsetLoss, beta: float = 1.0) -> Tensor:
    """Distance of offsets `[..., 4]`, summed over the coordinates: `[...]`.

    `smooth_l1` is the paper's (Fast R-CNN, equation 3): quadratic up to `beta`, then linear. `l1` is d2l's TinySSD.
    """
    box_offsets = box_offsets.float()
    if kind == "l1":
        return (box_offsets - target_offsets).abs().sum(dim=-1)
    return F.smooth_l1_loss(box_offsets, target_offsets, reduction="none", beta=beta).sum(dim=-1)


def overlap_loss(
    box_offsets: Tensor,
    target_boxes_xyxy: Tensor,
    priors_cxcywh: Tensor,
    *,
    kind: OverlapLoss,
    variances: tuple[float, float] = VARIANCES,
) -> Tensor:
    """One minus the overlap of decoded boxes with their ground truth.

    `giou` subtracts the empty share of the smallest enclosing box (Rezatofighi et al. 2019), `diou` the squared
    distance of the centres over the enclosing diagonal's, `ciou` also a difference of aspect ratios (both Zheng et
    al. 2020). Distances and aspect ratios are those of the normalised image, which the network sees as a square.

    Offsets so extreme that a size leaves its prior by more than `exp(MAX_LOG_RATIO)` times, or a centre by more than
    `MAX_CENTRE_OFFSET`, count as those at the bound and have no gradient; none is NaN.

    Args:
        box_offsets: `[..., 4]`, of the network.
        target_boxes_xyxy: `[..., 4]`, normalised.
        priors_cxcywh: `[..., 4]`, normalised.
        kind: which overlap.
        variances: scale of the offsets.

    Returns:
        `[...]`, 0 for a perfect box, 2 (`ciou`: up to 3) for a hopeless one.
    """
    max_size_offset = MAX_LOG_RATIO / variances[1]
    centre = box_offsets[..., :2].float().clamp(-MAX_CENTRE_OFFSET, MAX_CENTRE_OFFSET)
    size = box_offsets[..., 2:].float().clamp(-max_size_offset, max_size_offset)
    boxes_xyxy = cxcywh_to_xyxy(decode(torch.cat((centre, size), dim=-1), priors_cxcywh, variances))
    return overlap_loss_of_boxes(boxes_xyxy, target_boxes_xyxy.float(), kind=kind)


def overlap_loss_of_boxes(boxes_xyxy: Tensor, target_boxes_xyxy: Tensor, *, kind: OverlapLoss) -> Tensor:
    """Do what `overlap_loss` does for boxes `[..., 4]` with positive areas: `[...]`.

    torchvision has these losses too, but with boolean indices, for which the host waits, and with an epsilon of 1e-7 on
    areas, which is a tenth of a box of a thousandth of the image.
    """
    (low, high), (target_low, target_high) = (each.split(2, dim=-1) for each in (boxes_xyxy, target_boxes_xyxy))
    shared = _area((torch.minimum(high, target_high) - torch.maximum(low, target_low)).clamp(min=0))
    sides, target_sides = high - low, target_high - target_low
    union = _area(sides) + _area(target_sides) - shared
    iou = shared / union
    hull = torch.maximum(high, target_high) - torch.minimum(low, target_low)  # [..., 2], sides of the enclosing box
    if kind == "giou":
        hull_area = _area(hull)
        return 1 - iou + (hull_area - union) / hull_area
    apart = (low + high - target_low - target_high) / 2  # [..., 2], of the centres
    loss = 1 - iou + apart.square().sum(dim=-1) / hull.square().sum(dim=-1)
    if kind == "diou":
        return loss
    angle, target_angle = (torch.atan2(each[..., 0], each[..., 1]) for each in (sides, target_sides))
    aspect = 4 / math.pi**2 * (target_angle - angle).square()
    with torch.no_grad():
        weight = aspect / (1 - iou + aspect).clamp(min=torch.finfo(aspect.dtype).eps)
    return loss + weight * aspect


def _area(sides: Tensor) -> Tensor:
    """Multiply two sides `[..., 2]`; the gradient of `prod` would count zeros, and wait for an accelerator."""
    return sides[..., 0] * sides[..., 1]


BOX_LOSSES: tuple[str, ...] = get_args(BoxLoss)
