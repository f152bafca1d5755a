"""The multibox loss (SSD paper, section 2.2, equations 1 to 3)."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.ops.boxes import xyxy_to_cxcywh
from ssd_lightning.ops.coder import VARIANCES, encode
from ssd_lightning.ops.matching import Matcher, match_priors, pad_targets
from ssd_lightning.types import SSDOutput, Target


def hardest_negatives(class_loss: Tensor, positive: Tensor, ratio: float, min_negatives: int = 0) -> Tensor:
    """Choose the background priors that teach (SSD paper, section 2.2, "Hard negative mining").

    Args:
        class_loss: `[B, K]` cross entropy of every prior.
        positive: bool `[B, K]`.
        ratio: negatives per positive at most, in each image by itself.
        min_negatives: least number in an image, so that images without objects teach too; the paper has 0.

    Returns:
        bool `[B, K]`: the negatives of highest loss.
    """
    loss = class_loss.masked_fill(positive, float("-inf"))
    num_positive = positive.sum(dim=1, keepdim=True)
    wanted = (num_positive * ratio).floor().clamp(min=min_negatives)  # [B, 1]
    order = loss.argsort(dim=1, descending=True)
    rank = torch.arange(loss.shape[1], device=loss.device).expand_as(order)
    chosen = torch.zeros_like(positive).scatter_(1, order, rank < wanted)
    return chosen & ~positive


def count_over_ranks(count: Tensor) -> tuple[Tensor, int]:
    """Sum a count over all ranks; without a process group it stays as it is. Gives (sum, number of ranks)."""
    if not (dist.is_available() and dist.is_initialized()):
        return count, 1
    count = count.clone()
    dist.all_reduce(count)
    return count, dist.get_world_size()


class MultiBoxLoss(nn.Module):
    """Localisation and classification loss over matched priors; owns the matcher.

    Args:
        matcher: `bipartite` (Caffe) or `argmax` (most ports); see `ops.matching`.
        iou_threshold: least IoU of a match that is not forced.
        negative_ratio: negatives per positive in each image.
        min_negatives: least number of negatives in an image; the paper has 0.
        loc_weight: the paper's alpha, weight of the localisation loss.
        variances: scale of the offsets.

    Raises:
        ConfigurationError: a setting that cannot work.
    """

    def __init__(
        self,
        *,
        matcher: Matcher = "bipartite",
        iou_threshold: float = 0.5,
        negative_ratio: float = 3.0,
        min_negatives: int = 0,
        loc_weight: float = 1.0,
        variances: Sequence[float] = VARIANCES,
    ) -> None:
        super().__init__()
        if matcher not in ("bipartite", "argmax"):
            raise ConfigurationError(f"loss.matcher is '{matcher}'; it can be bipartite or argmax")
        if not 0 < iou_threshold <= 1:
            raise ConfigurationError(f"loss.iou_threshold is {iou_threshold}; it must lie in (0, 1]")
        if negative_ratio < 0 or min_negatives < 0:
            raise ConfigurationError(
                f"loss.negative_ratio ({negative_ratio}) and loss.min_negatives ({min_negatives}) cannot be negative"
            )
        self.matcher: Matcher = matcher
        self.iou_threshold = iou_threshold
        self.negative_ratio = negative_ratio
        self.min_negatives = min_negatives
        self.loc_weight = loc_weight
        self.variances = (float(variances[0]), float(variances[1]))

    def forward(self, output: SSDOutput, targets: Sequence[Target]) -> dict[Literal["loc", "cls"], Tensor]:
        """Compare a batch's output with its ground truth.

        Args:
            output: of the network for B images.
            targets: B targets, each with any number of boxes.

        Returns:
            `loc` (smooth L1 over positives) and `cls` (cross entropy over positives and the hardest negatives), both
            scalars over the number of positives, at least 1, of the batch. While training on several ranks that is
            the batch of all ranks, so that the averaged gradients equal those of one big batch. In evaluation ranks
            may make different numbers of steps and each counts its own.
        """
        with torch.no_grad():
            priors = output.priors_cxcywh
            boxes_xyxy, labels = pad_targets(targets, priors.device)
            matches = match_priors(boxes_xyxy, labels, priors, self.iou_threshold, self.matcher)
            positive = matches.labels > 0  # [B, K]
            offsets = encode(xyxy_to_cxcywh(matches.boxes_xyxy), priors, self.variances)  # [B, K, 4]

        box_loss = F.smooth_l1_loss(output.box_offsets.float(), offsets, reduction="none").sum(dim=-1)  # [B, K]
        class_loss = F.cross_entropy(
            output.class_logits.float().flatten(0, 1), matches.labels.flatten(), reduction="none"
        ).view_as(matches.labels)  # [B, K]
        negative = hardest_negatives(class_loss.detach(), positive, self.negative_ratio, self.min_negatives)

        num_positive = positive.sum()
        num_ranks = 1
        if self.training:
            num_positive, num_ranks = count_over_ranks(num_positive)
        scale = num_ranks / num_positive.clamp(min=1)
        return {
            "loc": self.loc_weight * scale * torch.where(positive, box_loss, 0.0).sum(),
            "cls": scale * torch.where(positive | negative, class_loss, 0.0).sum(),
        }
