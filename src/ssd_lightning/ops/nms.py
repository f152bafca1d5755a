"""NMS of many groups of boxes at once, Soft-NMS (Bodla et al. 2017) and box voting (Gidaris and Komodakis 2015)."""

from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import nms

from ssd_lightning.ops.boxes import broadcast_iou
from ssd_lightning.ops.rows import is_on_host

Decay = Literal["linear", "gaussian"]

PAIRS_AT_ONCE = 1 << 24
"""Number of pairs of boxes that an accelerator compares at once. It limits the memory to about 1 GiB."""

VOTES_AT_ONCE = 1 << 20
"""Number of pairs of boxes that box voting compares at once. It limits the memory to about 100 MiB."""


def batched_nms(boxes_xyxy: Tensor, scores: Tensor, group: Tensor, iou_threshold: float) -> Tensor:
    """Drop boxes that overlap a better box of their group too much.

    Boxes of other groups have no influence. (In torchvision's function of this name they have, by rounding.) Boxes
    without area, or with a NaN, overlap nothing.

    Args:
        boxes_xyxy: `[R, 4]`, sorted by group, then by descending score.
        scores: `[R]`.
        group: int64 `[R]`.
        iou_threshold: boxes that overlap more are dropped.

    Returns:
        int64 `[M]`, ascending indices of the boxes that are kept.
    """
    if len(group) == 0:
        return torch.zeros_like(group)
    sizes = group.unique_consecutive(return_counts=True)[1].tolist()
    if not is_on_host(boxes_xyxy) and max(sizes) ** 2 <= PAIRS_AT_ONCE:
        return _nms_of_pairs(boxes_xyxy, group, iou_threshold)
    kept, start = [], 0
    for size in sizes:
        rows = slice(start, start + size)
        kept.append(start + nms(boxes_xyxy[rows], scores[rows], iou_threshold))
        start += size
    return torch.cat(kept).sort().values


def _nms_of_pairs(boxes_xyxy: Tensor, group: Tensor, iou_threshold: float) -> Tensor:
    """Do the same as `batched_nms` by comparing all pairs. On an accelerator, one call for each group would be slow.

    A box is kept if no better box that is kept overlaps it too much. The first round assumes that all boxes are kept.
    Each round applies this rule again, until nothing changes. The result for the r-th best box is final after r rounds.
    """
    place, _ = pad_groups(group)  # [G, T]
    kept = []
    for rows in place.split(max(1, PAIRS_AT_ONCE // place.shape[1] ** 2)):
        valid, boxes = rows >= 0, boxes_xyxy[rows.clamp(min=0)]
        iou = broadcast_iou(boxes[:, :, None], boxes[:, None])  # [G, T, T]
        drops = (iou > iou_threshold).triu(1)  # the first box (dim 1) drops the second (dim 2)
        stays, before = valid, None
        while before is None or not torch.equal(stays, before):
            stays, before = valid & ~(drops & stays[..., None]).any(dim=1), stays
        kept.append(rows[stays])
    return torch.cat(kept).sort().values


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
    """Soft-NMS: keep the best box of a group, lower the scores of the boxes that overlap it, and repeat.

    Each step handles one box of every group.

    Args:
        boxes_xyxy: `[R, 4]`.
        scores: `[R]`, at least 0.
        group: int64 `[R]`, at least 0; boxes of different groups have no influence on each other.
        decay: `linear` multiplies a score by 1 - IoU if the IoU reaches `iou_threshold` (equation 2), `gaussian` by
            exp(-IoU^2 / sigma) everywhere (equation 3).
        iou_threshold: used by `linear`.
        sigma: used by `gaussian`. With a value near 0, any overlap drops a box.
        score_threshold: boxes whose lowered score is not above this are dropped.
        max_per_group: largest number of boxes that are kept in a group.

    Returns:
        Indices of the boxes that are kept, int64 `[M]`, by descending lowered score, equal ones in their order, and
        these scores `[M]`.
    """
    if len(scores) == 0:
        return torch.zeros_like(group), scores
    place, sizes = pad_groups(group)  # [G, T], [G]
    padded_boxes = boxes_xyxy[place.clamp(min=0)]  # [G, T, 4]
    lowered = scores[place.clamp(min=0)]  # [G, T]
    waiting = place >= 0
    taken = torch.zeros_like(waiting)
    steps = torch.arange(min(max_per_group, int(sizes.max())), device=sizes.device)
    for active in (sizes > steps[:, None]).sum(dim=1).tolist():  # groups that have a box left; the largest come first
        now, boxes = lowered[:active], padded_boxes[:active]
        best_score, best = now.masked_fill(~waiting[:active], -1.0).max(dim=1, keepdim=True)  # [A, 1]
        good = best_score > score_threshold
        if not good.any():
            break
        taken[:active].scatter_(1, best, good)
        waiting[:active].scatter_(1, best, False)
        best_box = boxes.gather(1, best[..., None].expand(-1, -1, 4))  # [A, 1, 4]
        iou = broadcast_iou(best_box, boxes)  # [A, T]
        linear = decay == "linear"
        factor = (1 - iou).where(iou >= iou_threshold, 1.0) if linear else torch.exp(-iou.square() / sigma)
        now.mul_(factor.masked_fill(~waiting[:active], 1.0))
    kept, order = place[taken].sort()  # so that equal scores keep their order
    lowered, best = lowered[taken][order].sort(descending=True, stable=True)
    return kept[best], lowered


def vote_boxes(boxes_xyxy: Tensor, scores: Tensor, group: Tensor, kept: Tensor, *, iou_threshold: float) -> Tensor:
    """Box voting: move boxes to the mean of the boxes that overlap them, weighted by the scores.

    See arXiv 1505.01749, section 5.

    Args:
        boxes_xyxy: `[R, 4]`.
        scores: `[R]`, at least 0.
        group: int64 `[R]`, at least 0. Only boxes of the same group vote.
        kept: int64 `[M]`, indices of the boxes that move.
        iou_threshold: a box votes if it overlaps the moving box more than this. The moving box votes too.

    Returns:
        `[M, 4]`. A box without area, or with a NaN, stays as it is.
    """
    moved = boxes_xyxy[kept]
    if len(kept) == 0:
        return moved
    place, sizes = pad_groups(group)  # [G, T], [G]
    row = torch.empty_like(group)
    row[place[place >= 0]] = torch.arange(len(sizes), device=group.device).repeat_interleave(sizes)
    at_once = max(1, VOTES_AT_ONCE // place.shape[1])
    for own, rows in zip(moved.split(at_once), row[kept].split(at_once), strict=True):  # `own` is a view
        voters = place[rows]  # [m, T]
        boxes = boxes_xyxy[voters.clamp(min=0)]  # [m, T, 4]
        votes = (voters >= 0) & (broadcast_iou(own[:, None], boxes) > iou_threshold)
        weights = scores[voters.clamp(min=0)].where(votes, 0.0)
        total = weights.sum(dim=1, keepdim=True)  # [m, 1]
        mean = (weights[..., None] * boxes.where(votes[..., None], 0.0)).sum(dim=1) / total
        own.copy_(mean.where(total > 0, own))
    return moved


def rank_in_group(group: Tensor) -> Tensor:
    """Count how many rows of its group come before each row: int64 `[R]` for sorted group numbers `[R]`."""
    _, index, sizes = group.unique_consecutive(return_inverse=True, return_counts=True)
    start = sizes.cumsum(0) - sizes
    return torch.arange(len(group), device=group.device) - start[index]


def pad_groups(group: Tensor) -> tuple[Tensor, Tensor]:
    """Arrange group numbers `[R]` as rows, the largest group first.

    Returns:
        int64 `[G, T]`, indices of each group's members in their order, -1 where there are none, and the groups' sizes
        `[G]`.
    """
    _, row, sizes = group.unique(return_inverse=True, return_counts=True)
    sizes, by_size = sizes.sort(descending=True)
    row = by_size.argsort()[row]  # [R]
    order = row.argsort(stable=True)
    place = torch.full((len(sizes), int(sizes[0])), -1, device=group.device)
    place[row[order], rank_in_group(row[order])] = order
    return place, sizes
