"""Box losses: objects that compare predicted offsets with matched boxes, by coordinates or by the overlap."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ssd_lightning.checks import require_choice, require_number, require_positive_pair
from ssd_lightning.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ssd_lightning.ops.coder import MAX_LOG_RATIO, VARIANCES, decode, encode

Overlap = Literal["giou", "diou", "ciou"]

MAX_CENTRE_OFFSET = 1e3
"""Larger offsets of a centre count as this. Otherwise squared distances would overflow float32."""


class BoxLoss(Protocol):
    """Loss of the box offsets of R priors that are matched to a box."""

    def __call__(self, box_offsets: Tensor, boxes_xyxy: Tensor, priors_cxcywh: Tensor) -> Tensor:
        """Compare offsets with boxes for priors, `[R, 4]` each: float32 `[R]`."""


@dataclass(frozen=True)
class SmoothL1Loss:
    """Smooth L1 of the offsets, summed over the coordinates (the paper; Fast R-CNN, equation 3).

    Args:
        beta: where the quadratic part ends and the linear one begins, in units of the offsets. 0 is the absolute
            distance (d2l.ai's TinySSD).
        variances: scale of the centre and of the size offsets.

    Raises:
        ConfigurationError: `beta` is negative, or the variances are not two numbers above 0.
    """

    beta: float = 1.0
    variances: tuple[float, float] = VARIANCES

    def __post_init__(self) -> None:
        require_number("loss.box_loss.beta", self.beta, 0)
        require_positive_pair("loss.box_loss.variances", self.variances)

    def __call__(self, box_offsets: Tensor, boxes_xyxy: Tensor, priors_cxcywh: Tensor) -> Tensor:
        """Compare offsets with boxes for priors, `[R, 4]` each: float32 `[R]`."""
        wanted = encode(xyxy_to_cxcywh(boxes_xyxy), priors_cxcywh, self.variances)
        return F.smooth_l1_loss(box_offsets.float(), wanted, reduction="none", beta=self.beta).sum(dim=-1)


@dataclass(frozen=True)
class IoULoss:
    """One minus the overlap of the decoded box with its ground truth.

    The range is 0..2 (`ciou`: 0..3). Distances and aspect ratios are those of the normalised image, in which both sides
    have the length 1. Offsets of the centre are limited to `MAX_CENTRE_OFFSET`, and sizes to `exp(MAX_LOG_RATIO)` times
    the prior's. Beyond these limits there is no gradient. The loss of finite offsets is finite.

    Args:
        overlap: the IoU minus a penalty. `giou`: the share of the smallest enclosing box that neither box covers
            (Rezatofighi et al. 2019). `diou`: the squared distance of the centres, divided by the squared diagonal of
            the enclosing box. `ciou`: that of `diou`, and a difference of the aspect ratios (both Zheng et al. 2020).
        variances: scale of the centre and of the size offsets.

    Raises:
        ConfigurationError: `overlap` is unknown, or the variances are not two numbers above 0.
    """

    overlap: Overlap = "giou"
    variances: tuple[float, float] = VARIANCES

    def __post_init__(self) -> None:
        require_choice("loss.box_loss.overlap", self.overlap, get_args(Overlap))
        require_positive_pair("loss.box_loss.variances", self.variances)

    def __call__(self, box_offsets: Tensor, boxes_xyxy: Tensor, priors_cxcywh: Tensor) -> Tensor:
        """Compare offsets with boxes for priors, `[R, 4]` each: float32 `[R]`."""
        max_size_offset = MAX_LOG_RATIO / self.variances[1]
        centre = box_offsets[..., :2].float().clamp(-MAX_CENTRE_OFFSET, MAX_CENTRE_OFFSET)
        size = box_offsets[..., 2:].float().clamp(-max_size_offset, max_size_offset)
        found = cxcywh_to_xyxy(decode(torch.cat((centre, size), dim=-1), priors_cxcywh, self.variances))
        return overlap_loss(found, boxes_xyxy.float(), self.overlap)


def overlap_loss(boxes_xyxy: Tensor, wanted_xyxy: Tensor, overlap: Overlap) -> Tensor:
    """Compute the loss of `IoULoss` for boxes `[..., 4]` of positive areas: `[...]`.

    torchvision's functions are not used: their boolean indices make the host wait for the device, and their epsilon of
    1e-7 is large for the areas of small normalised boxes.
    """
    (low, high), (wanted_low, wanted_high) = (each.split(2, dim=-1) for each in (boxes_xyxy, wanted_xyxy))
    shared = _area((torch.minimum(high, wanted_high) - torch.maximum(low, wanted_low)).clamp(min=0))
    sides, wanted_sides = high - low, wanted_high - wanted_low
    union = _area(sides) + _area(wanted_sides) - shared
    iou = shared / union
    hull = torch.maximum(high, wanted_high) - torch.minimum(low, wanted_low)  # [..., 2], sides of the enclosing box
    if overlap == "giou":
        hull_area = _area(hull)
        return 1 - iou + (hull_area - union) / hull_area
    apart = (low + high - wanted_low - wanted_high) / 2  # [..., 2], of the centres
    loss = 1 - iou + apart.square().sum(dim=-1) / hull.square().sum(dim=-1)
    if overlap == "diou":
        return loss
    angle, wanted_angle = (torch.atan2(each[..., 0], each[..., 1]) for each in (sides, wanted_sides))
    aspect = 4 / math.pi**2 * (wanted_angle - angle).square()
    with torch.no_grad():
        weight = aspect / (1 - iou + aspect).clamp(min=torch.finfo(aspect.dtype).eps)
    return loss + weight * aspect


def _area(sides: Tensor) -> Tensor:
    """Multiply two sides `[..., 2]`. The gradient of `prod` would count zeros, and the host would wait for this."""
    return sides[..., 0] * sides[..., 1]
