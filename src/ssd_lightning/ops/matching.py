"""Which prior answers for which ground truth (SSD paper, section 2.2, "Matching strategy"), a whole batch at once."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import box_iou

from ssd_lightning.ops.boxes import cxcywh_to_xyxy, valid_boxes
from ssd_lightning.types import Target

Matcher = Literal["bipartite", "argmax"]


class Matches(NamedTuple):
    """What every prior of every image should predict."""

    labels: Tensor
    """int64 `[B, K]`; 0 is the background."""
    boxes_xyxy: Tensor
    """`[B, K, 4]`: the matched ground truth; for the background the prior itself, whose offsets are zero."""


def pad_targets(targets: Sequence[Target], device: torch.device) -> tuple[Tensor, Tensor]:
    """Stack ground truth of different lengths.

    Returns:
        Boxes `[B, N, 4]` and labels `[B, N]`, N >= 1; the label 0 marks padding.
    """
    if not targets:
        return torch.zeros(0, 1, 4, device=device), torch.zeros(0, 1, dtype=torch.int64, device=device)
    boxes = pad_sequence([target["boxes"].reshape(-1, 4) for target in targets], batch_first=True).to(device)
    labels = pad_sequence([target["labels"] for target in targets], batch_first=True).to(device)
    if boxes.shape[1] == 0:
        boxes, labels = boxes.new_zeros(len(targets), 1, 4), labels.new_zeros(len(targets), 1)
    return boxes, labels


def match_priors(
    boxes_xyxy: Tensor,
    labels: Tensor,
    priors_cxcywh: Tensor,
    iou_threshold: float = 0.5,
    matcher: Matcher = "bipartite",
) -> Matches:
    """Assign ground truth to priors.

    A prior takes the ground truth of highest IoU if that reaches the threshold; and every ground truth that overlaps
    any prior gets one, whatever its IoU. Boxes that are padding, not finite or without area match nothing.

    Args:
        boxes_xyxy: `[B, N, 4]`, normalised.
        labels: int64 `[B, N]`, 1..C; 0 marks padding.
        priors_cxcywh: `[K, 4]`, normalised.
        iou_threshold: least IoU of a match that is not forced.
        matcher: how each ground truth gets its own prior. `bipartite` (Caffe): best pairs first, all priors
            distinct. `argmax` (ssd.pytorch and most ports): each its best prior, the last one wins a shared prior.

    Returns:
        Labels `[B, K]` and boxes `[B, K, 4]`.
    """
    batch, num_boxes, num_priors = *labels.shape, len(priors_cxcywh)
    priors_xyxy = cxcywh_to_xyxy(priors_cxcywh)
    valid = (labels > 0) & valid_boxes(boxes_xyxy)
    boxes_xyxy = torch.where(valid[..., None], boxes_xyxy, 0.0)
    iou = box_iou(boxes_xyxy.reshape(-1, 4), priors_xyxy).reshape(batch, num_boxes, num_priors)
    iou = iou.masked_fill(~valid[..., None], -1.0)

    best_iou, box_index = iou.max(dim=1)  # [B, K]
    positive = best_iou >= iou_threshold

    assign = assign_bipartite if matcher == "bipartite" else assign_argmax
    forced = assign(iou)  # [B, K]
    box_index = torch.where(forced >= 0, forced, box_index)
    positive = positive | (forced >= 0)

    matched_labels = labels.gather(1, box_index).masked_fill(~positive, 0)
    matched_boxes = boxes_xyxy.gather(1, box_index[..., None].expand(-1, -1, 4))
    return Matches(matched_labels, torch.where(positive[..., None], matched_boxes, priors_xyxy))


def assign_argmax(iou: Tensor) -> Tensor:
    """Give each ground truth its best prior; of those that want the same, the last one has it.

    Args:
        iou: `[B, N, K]`, at most 0 where there is nothing to match.

    Returns:
        int64 `[B, K]`: index of the ground truth that a prior is forced to take, or -1.
    """
    best_iou, prior_index = iou.max(dim=2)  # [B, N]
    rank = torch.arange(iou.shape[1], device=iou.device).expand_as(prior_index)
    rank = rank.masked_fill(best_iou <= 0, -1)
    nobody = torch.full((iou.shape[0], iou.shape[2]), -1, device=iou.device)
    # A plain scatter with duplicate indices keeps an arbitrary one on a GPU; the maximum is the same everywhere.
    return nobody.scatter_reduce(1, prior_index, rank, reduce="amax")


def assign_bipartite(iou: Tensor) -> Tensor:
    """Pair ground truth and priors greedily: the best pair of all that are left first, each prior once.

    A ground truth loses at most N - 1 of its choices to the others, so its N best priors are all that can matter.

    Args:
        iou: `[B, N, K]`, at most 0 where there is nothing to match.

    Returns:
        int64 `[B, K]`: index of the ground truth that a prior is forced to take, or -1.
    """
    batch, num_boxes, num_priors = iou.shape
    num_choices = min(num_boxes, num_priors)
    choice_iou, choice_prior = iou.topk(num_choices, dim=2)  # [B, N, N]
    choice_iou, choice_prior = choice_iou.flatten(1), choice_prior.flatten(1)  # [B, N * N]
    owner = torch.arange(num_boxes, device=iou.device).repeat_interleave(num_choices)  # [N * N]
    forced = torch.full((batch, num_priors), -1, device=iou.device)
    for _ in range(num_choices):
        best_iou, best = choice_iou.max(dim=1, keepdim=True)  # [B, 1]
        prior, box = choice_prior.gather(1, best), owner[best]
        taken = torch.where(best_iou > 0, box, forced.gather(1, prior))
        forced.scatter_(1, prior, taken)
        choice_iou = choice_iou.masked_fill((owner == box) | (choice_prior == prior), -1.0)
    return forced
