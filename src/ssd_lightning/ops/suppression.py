"""Greedy non-maximum suppression of many groups of boxes at once (SSD paper, section 3.1: "inference time")."""

from itertools import accumulate

import torch
from torch import Tensor
from torchvision.ops import nms

PAIRS_AT_ONCE = 1 << 24
"""Bounds the memory of `suppress_by_pairs`, of about 100 bytes a pair."""


def suppress(boxes_xyxy: Tensor, scores: Tensor, group: Tensor, iou_threshold: float) -> Tensor:
    """Say which boxes are left after each group has been through non-maximum suppression.

    The best box of a group removes those that overlap it more than `iou_threshold`, then the best of the others does,
    and so on. What boxes of other groups there are, and where, has no influence, not by a rounding either. A box
    without area, or one that is not a number, overlaps nothing.

    Args:
        boxes_xyxy: `[R, 4]`, sorted by group.
        scores: `[R]`, descending within a group.
        group: int64 `[R]`, ascending.
        iou_threshold: the least overlap that is not yet too much.

    Returns:
        bool `[R]`.
    """
    largest = int(group.unique_consecutive(return_counts=True)[1].max()) if len(group) else 0
    if goes_by_groups(boxes_xyxy.device, largest):
        return suppress_by_groups(boxes_xyxy, scores, group, iou_threshold)
    return suppress_by_pairs(boxes_xyxy, group, iou_threshold)


def goes_by_groups(device: torch.device, largest_group: int) -> bool:
    """Choose a call of compiled code for every group, or all pairs at once.

    In order of the scores, compiled code skips what is removed already: on a processor this is the faster way, most of
    all where boxes crowd. On an accelerator the call for every group, and the wait for each, is what takes time; only
    groups whose pairs do not fit its memory, as where all classes are one, go the other way.
    """
    return device.type == "cpu" or largest_group * (largest_group - 1) // 2 > PAIRS_AT_ONCE


def suppress_by_groups(boxes_xyxy: Tensor, scores: Tensor, group: Tensor, iou_threshold: float) -> Tensor:
    """Do what `suppress` does with a call of torchvision's `nms` for every group."""
    sizes = group.unique_consecutive(return_counts=True)[1].tolist()
    parts = zip(boxes_xyxy.split(sizes), scores.split(sizes), strict=True)
    # Half of the groups of a trained network are single boxes, whose call would take as long as that of a dozen.
    alone = torch.zeros(1, dtype=torch.int64, device=group.device)
    ranks = [nms(group_boxes, best, iou_threshold) if len(best) > 1 else alone for group_boxes, best in parts]
    starts = accumulate(sizes[:-1], initial=0)
    kept = torch.zeros_like(group, dtype=torch.bool)
    if ranks:
        kept[torch.cat([rank + start for rank, start in zip(ranks, starts, strict=True)])] = True
    return kept


def suppress_by_pairs(boxes_xyxy: Tensor, group: Tensor, iou_threshold: float) -> Tensor:
    """Do what `suppress` does with a few operations over all pairs of boxes that share a group.

    A box stays if no box before it stays that overlaps it too much. Starting from all boxes and asking this of each
    again and again comes to rest, for the answer of rank r is final after r + 1 times, mostly far sooner.
    """
    _, sizes = group.unique_consecutive(return_counts=True)
    pairs_before = (sizes * (sizes - 1) // 2).cumsum(0)
    in_block = (pairs_before // PAIRS_AT_ONCE).unique_consecutive(return_counts=True)[1]
    rows = [block.sum() for block in sizes.split(in_block.tolist())]
    blocks = torch.stack(rows).tolist() if rows else []
    return torch.cat(
        [
            _suppress_block(boxes, members, iou_threshold)
            for boxes, members in zip(boxes_xyxy.split(blocks), group.split(blocks), strict=True)
        ]
        or [torch.zeros_like(group, dtype=torch.bool)]
    )


def _suppress_block(boxes_xyxy: Tensor, group: Tensor, iou_threshold: float) -> Tensor:
    rank = rank_in_group(group)
    rows = torch.arange(len(rank), device=rank.device)
    later = rows.repeat_interleave(rank)  # [P]
    pairs_before = rank.cumsum(0) - rank
    earlier = (rows - rank - pairs_before)[later] + torch.arange(len(later), device=rank.device)
    too_much = (_overlap(boxes_xyxy, earlier, later) > iou_threshold).nonzero()[:, 0]
    later, earlier = later[too_much], earlier[too_much]
    kept = torch.ones_like(rank)
    while True:
        removed = torch.zeros_like(rank).scatter_reduce_(0, later, kept[earlier], "amax")
        if torch.equal(kept, 1 - removed):
            return kept.bool()
        kept = 1 - removed


def rank_in_group(group: Tensor) -> Tensor:
    """Count how many rows of its group come before each row: int64 `[R]` for ascending group numbers `[R]`."""
    _, index, sizes = group.unique_consecutive(return_inverse=True, return_counts=True)
    start = sizes.cumsum(0) - sizes
    return torch.arange(len(group), device=group.device) - start[index]


def _overlap(boxes_xyxy: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """IoU of pairs of rows, `[P]`, rounded as torchvision's `nms` rounds it."""
    area = (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])
    boxes, others = boxes_xyxy[first], boxes_xyxy[second]
    sides = (torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])).clamp(min=0)
    common = sides[:, 0] * sides[:, 1]
    return common / (area[first] + area[second] - common)
