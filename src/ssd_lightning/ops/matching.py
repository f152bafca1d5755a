"""Which prior answers for which ground truth (SSD paper, section 2.2, "Matching strategy"), a whole batch at once."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ssd_lightning.ops.assignment import argmax_assignment, greedy_bipartite
from ssd_lightning.ops.boxes import cxcywh_to_xyxy, valid_boxes
from ssd_lightning.ops.rows import Rows
from ssd_lightning.types import Target

Matcher = Literal["bipartite", "argmax"]

PAIRS_IN_CACHE = 1 << 19
"""Overlaps of boxes and priors that a processor holds at once: 2 MiB, which stay in its cache."""
PAIRS_IN_MEMORY = 1 << 26
"""The same on an accelerator: 256 MiB."""


class Matches(NamedTuple):
    """What every prior of every image should predict."""

    labels: Tensor
    """int64 `[B, K]`; 0 is the background."""
    box_index: Tensor
    """int64 `[B, K]`: which of its image's boxes a prior has, -1 for the background."""
    objects_xyxy: Tensor
    """`[B, N, 4]`: what `box_index` points into."""
    priors_cxcywh: Tensor
    """`[K, 4]`."""

    @property
    def boxes_xyxy(self) -> Tensor:
        """`[B, K, 4]`: the matched ground truth; for the background the prior itself, whose offsets are zero."""
        return self.at(None)[0].view(*self.labels.shape, 4)

    def at(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Give `boxes_xyxy` and priors (cxcywh) of some of the `[B * K]` priors alone: `[R, 4]` each."""
        (_, num_priors), num_boxes = self.labels.shape, self.objects_xyxy.shape[1]
        if rows is None:
            rows = torch.arange(self.labels.numel(), device=self.labels.device)
        box = self.box_index.flatten()[rows]
        boxes_xyxy = self.objects_xyxy.flatten(0, 1)[rows // num_priors * num_boxes + box.clamp(min=0)]
        priors_cxcywh = self.priors_cxcywh[rows % num_priors]
        return torch.where(box[:, None] >= 0, boxes_xyxy, cxcywh_to_xyxy(priors_cxcywh)), priors_cxcywh


def pad_targets(targets: Sequence[Target], device: torch.device) -> tuple[Tensor, Tensor]:
    """Stack ground truth of different lengths.

    Targets that lie on the host are padded there and travel as two tensors, which the host does not wait for.

    Returns:
        Boxes `[B, N, 4]` and labels `[B, N]`, N >= 1; the label 0 marks padding.
    """
    if not targets:
        return torch.zeros(0, 1, 4, device=device), torch.zeros(0, 1, dtype=torch.int64, device=device)
    boxes = pad_sequence([target["boxes"].reshape(-1, 4) for target in targets], batch_first=True)
    labels = pad_sequence([target["labels"] for target in targets], batch_first=True)
    if boxes.shape[1] == 0:
        boxes, labels = boxes.new_zeros(len(targets), 1, 4), labels.new_zeros(len(targets), 1)
    return to_device(boxes, device), to_device(labels, device)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor without waiting for its arrival; work that is given to the device afterwards comes after it."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


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
        What every prior should predict, in float32.
    """
    boxes_xyxy, priors_cxcywh = boxes_xyxy.float(), priors_cxcywh.float()  # half precision could not count boxes
    valid = (labels > 0) & valid_boxes(boxes_xyxy)
    boxes_xyxy = torch.where(valid[..., None], boxes_xyxy, 0.0)  # without area, so that they overlap nothing
    # A box loses at most N - 1 of its choices to the others, so its N best priors are all that can matter.
    num_choices = 1 if matcher == "argmax" else min(labels.shape[1], len(priors_cxcywh))
    overlaps = find_overlaps(boxes_xyxy, labels, cxcywh_to_xyxy(priors_cxcywh), num_choices)
    assign = argmax_assignment if matcher == "argmax" else greedy_bipartite
    forced = assign(overlaps.choice_iou, overlaps.choice_prior, len(priors_cxcywh))
    box_index = overlaps.best_box.masked_fill_(overlaps.best_iou < iou_threshold, -1)
    box_index = torch.where(forced >= 0, forced, box_index)
    matched_labels = F.pad(labels, (1, 0)).gather(1, box_index + 1)  # the background, 0, has the index -1
    return Matches(matched_labels, box_index, boxes_xyxy, priors_cxcywh)


class Overlaps(NamedTuple):
    """What matching has to know of the overlaps `[B, N, K]`."""

    best_iou: Tensor
    """`[B, K]`: the highest overlap of each prior with a box."""
    best_box: Tensor
    """int64 `[B, K]`: with which box, the first of equals."""
    choice_iou: Tensor
    """`[B, N, T]`: the highest overlaps of each box, in descending order."""
    choice_prior: Tensor
    """int64 `[B, N, T]`: with which priors."""


def find_overlaps(boxes_xyxy: Tensor, labels: Tensor, priors_xyxy: Tensor, num_choices: int) -> Overlaps:
    """Compare every box with every prior.

    The boxes of many images are compared at once, one a row; a processor, which can look at how many there are, leaves
    their padding out.

    Args:
        boxes_xyxy: `[B, N, 4]`.
        labels: int64 `[B, N]`; 0 marks padding.
        priors_xyxy: `[K, 4]`, with positive areas.
        num_choices: T, at most K.
    """
    counts = _boxes_to_compare(labels)
    if not counts:
        by_prior, by_box = (0, len(priors_xyxy)), (0, labels.shape[1], num_choices)
        return Overlaps(*(like.new_zeros(shape) for shape in (by_prior, by_box) for like in (boxes_xyxy, labels)))
    most = max(counts)
    priors_columns = priors_xyxy.t().contiguous()
    countdown = torch.arange(most, 0, -1, device=labels.device, dtype=boxes_xyxy.dtype)
    best_iou, countdown_of_best, choices = [], [], []
    for images in _blocks(counts, len(priors_xyxy), boxes_xyxy.device):
        of_block = counts[images]
        rows = [boxes[:count] for boxes, count in zip(boxes_xyxy[images], of_block, strict=True)]
        iou = pairwise_iou(torch.cat(rows), priors_columns)  # [R, K]
        choices.append(best_choices(iou, num_choices))
        # `max` with indices is far slower along the other axis than two reductions. Of equals the first counts.
        by_image = _by_image(iou, of_block)
        for overlaps in by_image:
            best = overlaps.amax(dim=1)
            overlaps.sub_(best[:, None])
            best_iou.append(best)
        is_best = iou.ge_(0)  # [R, K], 1 or 0
        is_best.mul_(torch.cat([countdown[:count] for count in of_block])[:, None])
        countdown_of_best += [overlaps.amax(dim=1) for overlaps in by_image]
    choice_iou, choice_prior = (torch.cat(parts).split(counts) for parts in zip(*choices, strict=True))
    return Overlaps(
        best_iou=torch.cat(best_iou),
        best_box=torch.cat(countdown_of_best).neg_().add_(most).long(),
        choice_iou=pad_sequence(choice_iou, batch_first=True),
        choice_prior=pad_sequence(choice_prior, batch_first=True),
    )


def best_choices(iou: Tensor, num_choices: int) -> tuple[Tensor, Tensor]:
    """Find the highest overlaps of each box; of equals the first prior comes first.

    `topk` breaks ties as its algorithm happens to go, which hangs on how many are asked for, so that matches would
    change with the largest number of boxes in a batch. Small boxes within several priors of a size tie often.

    Args:
        iou: `[R, K]`, not negative.
        num_choices: T.

    Returns:
        Overlaps `[R, T]`, in descending order, and indices of the priors, int64 `[R, T]`.
    """
    num_priors = iou.shape[1]
    if num_choices == 1:
        best_iou = iou.amax(dim=1, keepdim=True)
        return best_iou, (iou == best_iou).byte().argmax(dim=1, keepdim=True)
    if iou.dtype != torch.float32:
        values, indices = iou.sort(dim=1, descending=True, stable=True)
        return values[:, :num_choices], indices[:, :num_choices]
    # The bits of floats that are not negative, read as integers, are in the order of the floats.
    key = iou.view(torch.int32).long().mul_(num_priors)
    key += torch.arange(num_priors - 1, -1, -1, device=iou.device)
    top = key.topk(num_choices, dim=1).values
    bits = top.div(num_priors, rounding_mode="floor")
    return bits.int().view(torch.float32), num_priors - 1 - (top - bits * num_priors)


def _boxes_to_compare(labels: Tensor) -> list[int]:
    """Say how many boxes of each image are compared, at least 1: on an accelerator all `N`, without asking it."""
    num_boxes = labels.shape[1]
    if labels.device.type != "cpu":
        return [num_boxes] * len(labels)
    return torch.where(labels > 0, torch.arange(1, num_boxes + 1), 1).amax(dim=1).tolist()


def _blocks(counts: list[int], num_priors: int, device: torch.device) -> Iterator[slice]:
    """Cut a batch into blocks of images with so many pairs of boxes and priors as are compared at once."""
    most_rows = (PAIRS_IN_CACHE if device.type == "cpu" else PAIRS_IN_MEMORY) // max(1, num_priors)
    start = rows = 0
    for image, count in enumerate(counts):
        if rows and rows + count > most_rows:
            yield slice(start, image)
            start, rows = image, 0
        rows += count
    yield slice(start, len(counts))


def _by_image(rows: Tensor, counts: list[int]) -> list[Tensor]:
    """View rows `[R, K]`, `counts[i]` of image i, as `[b, n, K]`: all images at once where they have equally many."""
    if len(set(counts)) == 1:
        return [rows.view(len(counts), counts[0], rows.shape[1])]
    return [image[None] for image in rows.split(counts)]


def pairwise_iou(boxes_xyxy: Tensor, priors_columns: Tensor) -> Tensor:
    """Overlap of every box with every prior, without a temporary of another axis.

    Args:
        boxes_xyxy: `[N, 4]`.
        priors_columns: `[4, K]`, the coordinates of priors of positive areas: strided ones would be slower to
            read.

    Returns:
        `[N, K]`, bit for bit what `torchvision.ops.box_iou` gives.
    """
    left, top, right, bottom = boxes_xyxy[..., None].unbind(1)  # [N, 1] each
    prior_left, prior_top, prior_right, prior_bottom = priors_columns  # [K] each
    width = torch.minimum(right, prior_right).sub_(torch.maximum(left, prior_left)).clamp_(min=0)
    height = torch.minimum(bottom, prior_bottom).sub_(torch.maximum(top, prior_top)).clamp_(min=0)
    intersection = width.mul_(height)
    areas = (right - left) * (bottom - top), (prior_right - prior_left) * (prior_bottom - prior_top)
    union = (areas[0] + areas[1]).sub_(intersection)
    return intersection.div_(union)
