"""Conversions between box formats (all of the package are here), and the overlap of boxes."""

import torch
from torch import Tensor
from torchvision.ops import box_convert


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Convert `[..., 4]` boxes from (centre x, centre y, width, height) to (x1, y1, x2, y2)."""
    return box_convert(boxes_cxcywh, "cxcywh", "xyxy")


def xyxy_to_cxcywh(boxes_xyxy: Tensor) -> Tensor:
    """Convert `[..., 4]` boxes from (x1, y1, x2, y2) to (centre x, centre y, width, height)."""
    return box_convert(boxes_xyxy, "xyxy", "cxcywh")


def clip_boxes(boxes_xyxy: Tensor) -> Tensor:
    """Clip normalised `[..., 4]` xyxy boxes to the image, [0, 1]."""
    return boxes_xyxy.clamp(0.0, 1.0)


def boxes_to_pixels(boxes_xyxy: Tensor, size_px: tuple[int, int]) -> Tensor:
    """Scale normalised `[..., 4]` xyxy boxes to pixels of an image of `size_px` (height, width)."""
    height, width = size_px
    return boxes_xyxy * boxes_xyxy.new_tensor([width, height, width, height])


def areas_px(boxes_xyxy: Tensor, sizes_px: Tensor) -> Tensor:
    """Compute the areas of normalised `[N, 4]` xyxy boxes in images of `[N, 2]` (height, width): float64 `[N]`.

    Sides are rounded to .01 px. A box of 32 whole pixels then has this side, which float32 fractions of most image
    sizes do not say exactly.
    """
    sides = (boxes_xyxy[:, 2:].double() - boxes_xyxy[:, :2].double()) * sizes_px.flip(-1)
    return ((sides * 100).round() / 100).prod(dim=-1)


def valid_boxes(boxes_xyxy: Tensor) -> Tensor:
    """Return a bool mask `[...]` of the `[..., 4]` xyxy boxes that are finite and have a positive area."""
    has_area = (boxes_xyxy[..., 2:] > boxes_xyxy[..., :2]).all(-1)
    return has_area & boxes_xyxy.isfinite().all(-1)


def broadcast_iou(boxes_xyxy: Tensor, others_xyxy: Tensor) -> Tensor:
    """Compute the IoU of boxes `[..., 4]` that broadcast: `[...]`; 0 for boxes without area and for boxes with NaN.

    It computes in float32 or better, because the areas of boxes in pixels overflow half precision.
    """
    boxes_xyxy, others_xyxy = (
        boxes.to(torch.promote_types(boxes.dtype, torch.float32)) for boxes in (boxes_xyxy, others_xyxy)
    )
    low = torch.maximum(boxes_xyxy[..., :2], others_xyxy[..., :2])
    high = torch.minimum(boxes_xyxy[..., 2:], others_xyxy[..., 2:])
    common = (high - low).clamp(min=0).prod(dim=-1)
    area, other_area = ((boxes[..., 2:] - boxes[..., :2]).prod(dim=-1) for boxes in (boxes_xyxy, others_xyxy))
    union = area + other_area - common
    return torch.where(union > 0, common / union, 0.0)
