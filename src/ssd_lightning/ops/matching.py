"""Match priors (default boxes, anchors) with ground-truth boxes (SSD paper, section 2.2, "Matching strategy")."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import box_iou

from ssd_lightning.ops.boxes import cxcywh_to_xyxy, valid_boxes
from ssd_lightning.ops.rows import Rows, is_on_host
from ssd_lightning.types import Target

PAIRS_AT_ONCE = 1 << 26
"""Number of pairs of boxes and priors that an accelerator compares at once. It limits the memory to about 2 GiB."""
ROUNDS_PER_CHECK = 32
"""Rounds of `bipartite_assignment` on an accelerator between two checks whether it is done. The host waits for each."""


class Assignment(NamedTuple):
    """What each prior of each image should predict."""

    labels: Tensor
    """int64 `[B, K]`, 1..C; 0 is the background."""
    box_index: Tensor
    """int64 `[B, K]`: index of the matched box in its image's target; -1 for the background."""
    objects_xyxy: Tensor
    """float32 `[B, N, 4]`, xyxy: the boxes of each target. Padding and invalid boxes are zeros."""

    def matched_boxes(self, priors_cxcywh: Tensor, rows: Rows = None) -> tuple[Tensor, Tensor]:
        """Return the matched box of each prior, and the prior.

        Args:
            priors_cxcywh: `[K, 4]`, the priors that were matched.
            rows: int64 `[R]`, indices into the `[B * K]` priors of the batch; None stands for all of them.

        Returns:
            Boxes (xyxy) and priors (cxcywh), float32 `[R, 4]` each. For the background, the box is the prior itself,
            so its offsets are zero.
        """
        (_, num_priors), num_objects = self.labels.shape, self.objects_xyxy.shape[1]
        if rows is None:
            rows = torch.arange(self.labels.numel(), device=self.labels.device)
        priors_cxcywh = priors_cxcywh.float()[rows % num_priors]
        box = self.box_index.flatten()[rows]
        boxes_xyxy = self.objects_xyxy.flatten(0, 1)[rows // num_priors * num_objects + box.clamp(min=0)]
        return torch.where(box[:, None] >= 0, boxes_xyxy, cxcywh_to_xyxy(priors_cxcywh)), priors_cxcywh


def match_priors(
    targets: Sequence[Target],
    priors_cxcywh: Tensor,
    *,
    iou_threshold: float,
    force: Callable[[Tensor], Tensor],
) -> Assignment:
    """Assign ground truth to priors.

    Each prior takes the box of highest IoU if this IoU reaches the threshold. In addition, `force` matches each box
    with its best prior, also below the threshold. Boxes that are not finite or have no area are not matched.

    Args:
        targets: B targets, each with any number of boxes.
        priors_cxcywh: `[K, 4]`, normalised.
        iou_threshold: minimum IoU of a match that is not forced.
        force: `bipartite_assignment` or `argmax_assignment`.
    """
    priors_xyxy = cxcywh_to_xyxy(priors_cxcywh.float())  # bfloat16 has too few digits for coordinates
    boxes_xyxy, labels = pad_targets(targets, priors_xyxy.device)
    valid = (labels > 0) & valid_boxes(boxes_xyxy)
    boxes_xyxy = torch.where(valid[..., None], boxes_xyxy, 0.0)  # without area: they overlap nothing
    box_index = labels.new_zeros(len(labels), len(priors_xyxy))
    for images, most_boxes in _blocks(targets, priors_xyxy):
        boxes = boxes_xyxy[images, :most_boxes]
        iou = box_iou(boxes.flatten(0, 1), priors_xyxy).view(*boxes.shape[:2], -1)  # [images, N, K]
        best_iou, best_box = iou.max(dim=1)  # [images, K]
        forced = force(iou)
        box_index[images] = forced.where(forced >= 0, best_box.where(best_iou >= iou_threshold, -1))
    matched_labels = F.pad(labels, (1, 0)).gather(1, box_index + 1)  # the background, 0, has the index -1
    return Assignment(matched_labels, box_index, boxes_xyxy)


def _blocks(targets: Sequence[Target], priors_xyxy: Tensor) -> list[tuple[slice, int]]:
    """Split a batch into blocks of images that are matched at once: (images, largest number of boxes of an image).

    On a CPU, a block is one image, without padding. On an accelerator, it is as many images as its memory holds.
    """
    counts = [max(1, len(target["labels"])) for target in targets]
    if is_on_host(priors_xyxy):
        return [(slice(index, index + 1), count) for index, count in enumerate(counts)]
    most_boxes = max(counts, default=1)
    images = max(1, PAIRS_AT_ONCE // (most_boxes * len(priors_xyxy)))
    return [(slice(start, start + images), most_boxes) for start in range(0, len(counts), images)]


def argmax_assignment(iou: Tensor) -> Tensor:
    """Match each box with its best prior. If boxes share it, the last box gets it (ssd.pytorch and most ports).

    Args:
        iou: `[B, N, K]`.

    Returns:
        int64 `[B, K]`: index of the box that a prior must take, or -1.
    """
    batch, num_boxes, num_priors = iou.shape
    best_iou, best_prior = iou.max(dim=2)  # [B, N]
    box = torch.arange(num_boxes, device=iou.device).expand(batch, -1)
    # With plain indexing, a GPU would keep any one of several boxes. The maximum is the last box on every device.
    forced = torch.full((batch, num_priors), -1, device=iou.device)
    return forced.scatter_reduce(1, best_prior, box.masked_fill(best_iou <= 0, -1), reduce="amax")


def bipartite_assignment(iou: Tensor) -> Tensor:
    """Match each box with a prior of its own, best pairs first (Caffe).

    Greedy matching always keeps a pair in which the prior is the best of the box, and the box the best of the prior.
    Each round therefore takes all such pairs and removes them, until no overlap is left. Usually this needs three
    rounds. Among equal overlaps, the first box comes first, then the first prior.

    Args:
        iou: `[B, N, K]`, at least 0.

    Returns:
        int64 `[B, K]`: index of the box that a prior must take, or -1.
    """
    batch, num_boxes, num_priors = iou.shape
    box = torch.arange(num_boxes, device=iou.device).expand(batch, -1)
    forced = torch.full((batch, num_priors), -1, device=iou.device)
    has_prior = torch.zeros_like(box, dtype=torch.bool)
    iou = iou.clone()  # columns of priors that are taken become 0
    for past_rounds in range(min(num_boxes, num_priors)):
        best_iou, best_prior = iou.max(dim=2)  # [B, N]
        of_best_prior = best_prior[:, None].expand(-1, num_boxes, -1)
        overlaps = iou.gather(2, of_best_prior)  # [B, N, N]: of each box (dim 1) with the best prior of each (dim 2)
        best_box = overlaps.masked_fill(has_prior[..., None], -1.0).argmax(dim=1)
        is_pair = (best_box == box) & (best_iou > 0) & ~has_prior
        may_check = is_on_host(iou) or (past_rounds + 1) % ROUNDS_PER_CHECK == 0
        if may_check and not is_pair.any():
            break
        has_prior |= is_pair
        forced.scatter_reduce_(1, best_prior, box.masked_fill(~is_pair, -1), reduce="amax")
        iou.scatter_reduce_(2, of_best_prior, overlaps.masked_fill(is_pair[:, None], 0.0), reduce="amin")
    return forced


def pad_targets(targets: Sequence[Target], device: torch.device) -> tuple[Tensor, Tensor]:
    """Stack ground truth of different lengths.

    Targets on the host are padded there and sent to the device as two tensors, without waiting for their arrival.

    Returns:
        Boxes `[B, N, 4]` and labels `[B, N]`, N >= 1; the label 0 marks padding.
    """
    if not targets:
        return torch.zeros(0, 1, 4, device=device), torch.zeros(0, 1, dtype=torch.int64, device=device)
    boxes = pad_sequence([target["boxes"].reshape(-1, 4).float() for target in targets], batch_first=True)
    labels = pad_sequence([target["labels"].long() for target in targets], batch_first=True)
    if boxes.shape[1] == 0:
        boxes, labels = boxes.new_zeros(len(targets), 1, 4), labels.new_zeros(len(targets), 1)
    if device.type == "cuda" and boxes.device.type == "cpu":
        boxes, labels = boxes.pin_memory(), labels.pin_memory()
    return boxes.to(device, non_blocking=True), labels.to(device, non_blocking=True)
