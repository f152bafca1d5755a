"""Suppression that lowers scores instead of removing boxes (Bodla et al. 2017, "Soft-NMS")."""

from typing import Literal

import torch
from torch import Tensor

Decay = Literal["linear", "gaussian"]


def batched_soft_nms(
    boxes_xyxy: Tensor,
    scores: Tensor,
    group: Tensor,
    *,
    decay: Decay,
    iou_threshold: float = 0.45,
    sigma: float = 0.5,
    score_threshold: float = 0.01,
    max_per_group: int = 200,
) -> tuple[Tensor, Tensor]:
    """Take the best box of a group, lower the scores of those it overlaps, and so on with the others.

    All groups advance together, one box each a step. Boxes are taken by descending lowered score.

    Args:
        boxes_xyxy: `[R, 4]`.
        scores: `[R]`, at least 0.
        group: int64 `[R]`, at least 0; boxes of different groups do not see each other.
        decay: `linear` multiplies a score by 1 - IoU where that reaches `iou_threshold` (equation 2), `gaussian` by
            exp(-IoU^2 / sigma) everywhere (equation 3).
        iou_threshold: of `linear`.
        sigma: of `gaussian`; towards 0 it becomes hard suppression at any overlap.
        score_threshold: boxes whose score does not stay above it are dropped.
        max_per_group: how many boxes of a group are taken at most.

    Returns:
        int64 `[M]`, indices of what is left, by descending lowered score, and these scores `[M]`.
    """
    if len(scores) == 0:
        return torch.zeros_like(group), scores
    place, sizes = pad_places(group)  # [G, T], [G]
    padded_boxes = boxes_xyxy[place.clamp(min=0)]  # [G, T, 4]
    lowered = scores[place.clamp(min=0)]  # [G, T]
    waiting = place >= 0
    taken = torch.zeros_like(waiting)
    for active in _groups_with_more(sizes, max_per_group):  # the largest groups come first
        now, boxes = lowered[:active], padded_boxes[:active]
        best_score, best = now.masked_fill(~waiting[:active], -1.0).max(dim=1, keepdim=True)  # [A, 1]
        good = best_score > score_threshold
        if not good.any():
            break
        taken[:active].scatter_(1, best, good)
        waiting[:active].scatter_(1, best, False)
        best_box = boxes.gather(1, best[..., None].expand(-1, -1, 4))  # [A, 1, 4]
        factor = _factor(_iou(best_box, boxes), decay, iou_threshold, sigma)  # [A, T]
        now.mul_(factor.masked_fill(~waiting[:active], 1.0))
    order = lowered[taken].argsort(descending=True, stable=True)
    return place[taken][order], lowered[taken][order]


def pad_places(group: Tensor) -> tuple[Tensor, Tensor]:
    """Arrange group numbers `[R]` as rows, the largest group first.

    Returns:
        int64 `[G, T]`, the indices of each group's members in their order, -1 where there are none, and the groups'
        sizes `[G]`.
    """
    _, row, sizes = group.unique(return_inverse=True, return_counts=True)
    sizes, by_size = sizes.sort(descending=True)
    row = by_size.argsort()[row]  # [R]
    order = row.argsort(stable=True)
    start = sizes.cumsum(0) - sizes
    row = row[order]
    column = torch.arange(len(order), device=group.device) - start[row]
    place = torch.full((len(sizes), int(sizes[0])), -1, device=group.device)
    place[row, column] = order
    return place, sizes


def _groups_with_more(sizes: Tensor, limit: int) -> list[int]:
    """How many groups have more than 0, 1, 2, ... members, up to the largest or the limit."""
    steps = torch.arange(min(limit, int(sizes.max())), device=sizes.device)
    return (sizes[None, :] > steps[:, None]).sum(dim=1).tolist()


def _factor(iou: Tensor, decay: Decay, iou_threshold: float, sigma: float) -> Tensor:
    if decay == "linear":
        return torch.where(iou >= iou_threshold, 1 - iou, 1.0)
    return torch.exp(-iou.square() / sigma)


def _iou(box_xyxy: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """IoU of a box `[A, 1, 4]` with those of its row `[A, T, 4]`: `[A, T]`, 0 for two boxes without area."""
    sides = torch.minimum(box_xyxy[..., 2:], boxes_xyxy[..., 2:]) - torch.maximum(
        box_xyxy[..., :2], boxes_xyxy[..., :2]
    )
    common = sides.clamp(min=0).prod(dim=-1)
    union = _area(box_xyxy) + _area(boxes_xyxy) - common
    return common / union.clamp(min=torch.finfo(union.dtype).tiny)


def _area(boxes_xyxy: Tensor) -> Tensor:
    return (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).prod(dim=-1)
