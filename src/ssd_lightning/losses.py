"""The multibox loss (SSD paper, section 2.2, equations 1 to 3), and what later detectors changed in it."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssd_lightning.checks import require_choice, require_number
from ssd_lightning.ops.box_losses import BOX_LOSSES, BoxLoss, box_regression_loss
from ssd_lightning.ops.boxes import xyxy_to_cxcywh
from ssd_lightning.ops.class_losses import ClassLoss, MiningScore, cross_entropy, focal_loss, mined_cross_entropy
from ssd_lightning.ops.coder import VARIANCES, encode
from ssd_lightning.ops.matching import Matcher, Matches, match_priors, pad_targets
from ssd_lightning.ops.rows import rows_that_count, take_rows
from ssd_lightning.types import SSDOutput, Target

Normalizer = Literal["positives", "positives_per_image", "batch_size", "priors"]


class PriorTargets(NamedTuple):
    """What every prior of every image should predict; offsets are computed for those that are asked for."""

    matches: Matches
    variances: tuple[float, float]
    """Scale of the offsets."""

    @property
    def labels(self) -> Tensor:
        """int64 `[B, K]`; 0 is the background."""
        return self.matches.labels

    @property
    def offsets(self) -> Tensor:
        """`[B, K, 4]`: the boxes, encoded; 0 for the background."""
        return encode(xyxy_to_cxcywh(self.matches.boxes_xyxy), self.matches.priors_cxcywh, self.variances)


def count_over_ranks(count: Tensor) -> tuple[Tensor, int]:
    """Sum a count over all ranks; without a process group it stays as it is. Gives (sum, number of ranks)."""
    if not (dist.is_available() and dist.is_initialized()):
        return count, 1
    count = count.clone()
    dist.all_reduce(count)
    return count, dist.get_world_size()


def image_weights(
    num_positive: Tensor, num_priors: int, normalizer: Normalizer = "positives", *, over_ranks: bool = False
) -> Tensor:
    """Say what an image's summed loss is multiplied with.

    Args:
        num_positive: int64 `[B]`, positives of each image.
        num_priors: K.
        normalizer: what the summed loss of a batch is divided by, at least 1. `positives`: all positives of the batch
            (the paper, Caffe, ssd.pytorch, lufficc, qfgaohao, torchvision, gluon, mmdet). `positives_per_image`: each
            image by its own positives, then the mean over images (NVIDIA). `batch_size`: the images. `priors`: all
            priors of the batch (Caffe's `FULL`; d2l's TinySSD for the classes, and with `box_weight` .25 for the
            boxes, as it counts four numbers a prior).
        over_ranks: count over all ranks, so that averaged gradients equal those of one big batch.

    Returns:
        `[B]`.
    """
    batch = len(num_positive)
    weights = torch.ones_like(num_positive, dtype=torch.float32)
    if normalizer == "positives_per_image":
        weights = 1 / num_positive.clamp(min=1)
    if normalizer == "positives":
        count = num_positive.sum()
    else:
        count = num_positive.new_full((), batch * num_priors if normalizer == "priors" else batch)
    count, num_ranks = count_over_ranks(count) if over_ranks else (count, 1)
    return weights * (num_ranks / count.clamp(min=1))


class MultiBoxLoss(nn.Module):
    """Localisation and classification loss over matched priors; owns the matcher.

    Args:
        matcher: `bipartite` (Caffe) or `argmax` (most ports); see `ops.matching`.
        iou_threshold: least IoU of a match that is not forced.
        box_loss: `smooth_l1` (the paper), `l1`, `giou`, `diou` or `ciou`; see `ops.box_losses`.
        smooth_l1_beta: where the smooth L1 loss becomes linear, in units of the offsets.
        box_weight: the paper's alpha, weight of the localisation loss.
        class_loss: `ce_hnm`, cross entropy with hard negative mining (the paper); `focal`; or `ce`, over all priors.
        negative_ratio: negatives per positive in each image (`ce_hnm`).
        min_negatives: least number of negatives in an image; the paper has 0 (`ce_hnm`).
        mining_score: `loss`, `background` (the same ranking) or `foreground`; see `ops.class_losses` (`ce_hnm`).
        focal_alpha: weight of objects, that of the background being the rest to 1 (`focal`).
        focal_gamma: discount of easy priors (`focal`).
        normalizer: what both losses are divided by; see `image_weights`.
        variances: scale of the offsets.

    Raises:
        ConfigurationError: a setting that cannot work.
    """

    def __init__(
        self,
        *,
        matcher: Matcher = "bipartite",
        iou_threshold: float = 0.5,
        box_loss: BoxLoss = "smooth_l1",
        smooth_l1_beta: float = 1.0,
        box_weight: float = 1.0,
        class_loss: ClassLoss = "ce_hnm",
        negative_ratio: float = 3.0,
        min_negatives: int = 0,
        mining_score: MiningScore = "loss",
        focal_alpha: float = 0.25,
        focal_gamma: float = 2.0,
        normalizer: Normalizer = "positives",
        variances: Sequence[float] = VARIANCES,
    ) -> None:
        super().__init__()
        require_choice("loss.matcher", matcher, ("bipartite", "argmax"))
        require_number("loss.iou_threshold", iou_threshold, 0, 1, above_low=True)
        require_choice("loss.box_loss", box_loss, BOX_LOSSES)
        require_number("loss.smooth_l1_beta", smooth_l1_beta, 0)
        require_number("loss.box_weight", box_weight, 0)
        require_choice("loss.class_loss", class_loss, ("ce_hnm", "ce", "focal"))
        require_number("loss.negative_ratio", negative_ratio, 0)
        require_number("loss.min_negatives", min_negatives, 0, whole=True)
        require_choice("loss.mining_score", mining_score, ("loss", "background", "foreground"))
        require_number("loss.focal_alpha", focal_alpha, 0, 1)
        require_number("loss.focal_gamma", focal_gamma, 0)
        require_choice("loss.normalizer", normalizer, ("positives", "positives_per_image", "batch_size", "priors"))
        for variance in variances:
            require_number("loss.variances", variance, 0, above_low=True)
        self.matcher: Matcher = matcher
        self.iou_threshold = iou_threshold
        self.box_loss: BoxLoss = box_loss
        self.smooth_l1_beta = smooth_l1_beta
        self.box_weight = box_weight
        self.class_loss: ClassLoss = class_loss
        self.negative_ratio = negative_ratio
        self.min_negatives = min_negatives
        self.mining_score: MiningScore = mining_score
        self.focal_alpha = focal_alpha
        self.focal_gamma = focal_gamma
        self.normalizer: Normalizer = normalizer
        self.variances = (float(variances[0]), float(variances[1]))

    def forward(self, output: SSDOutput, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Compare a batch's output with its ground truth: `compare` after `match`.

        Args:
            output: of the network for B images.
            targets: B targets, each with any number of boxes.
        """
        return self.compare(output, self.match(targets, output.priors_cxcywh))

    @torch.no_grad()
    def match(self, targets: Sequence[Target], priors_cxcywh: Tensor) -> PriorTargets:
        """Say what every prior of B images should predict, given B targets and priors `[K, 4]`."""
        boxes_xyxy, labels = pad_targets(targets, priors_cxcywh.device)
        matches = match_priors(boxes_xyxy, labels, priors_cxcywh, self.iou_threshold, self.matcher)
        return PriorTargets(matches, self.variances)

    def compare(self, output: SSDOutput, wanted: PriorTargets) -> dict[str, Tensor]:
        """Compare a batch's output with what `match` gave.

        Returns:
            `loc` (localisation, over positives) and `cls` (classification), both float32 scalars over the same
            normaliser, at least 1; the total loss is their sum. While training on several ranks the normaliser is
            that of all ranks, so that the averaged gradients equal those of one big batch. In evaluation ranks may
            make different numbers of steps and each counts its own.
        """
        positive = wanted.labels > 0  # [B, K]
        weights = image_weights(
            positive.sum(dim=1), positive.shape[1], self.normalizer, over_ranks=self.training
        )  # [B]
        class_loss = self._classify(output.class_logits, wanted.labels)  # [B, K]
        rows = rows_that_count(positive)
        boxes_xyxy, priors_cxcywh = wanted.matches.at(rows)
        box_loss = box_regression_loss(
            take_rows(output.box_offsets, rows),
            encode(xyxy_to_cxcywh(boxes_xyxy), priors_cxcywh, self.variances),
            boxes_xyxy,
            take_rows(positive, rows),
            priors_cxcywh,
            kind=self.box_loss,
            beta=self.smooth_l1_beta,
            variances=self.variances,
        )  # [R]
        box_weights = take_rows(weights[:, None].expand_as(positive), rows)
        return {
            "loc": self.box_weight * (box_weights * box_loss).sum(),
            "cls": (weights * class_loss.sum(dim=1)).sum(),
        }

    def _classify(self, class_logits: Tensor, labels: Tensor) -> Tensor:
        match self.class_loss:
            case "ce":
                return cross_entropy(class_logits, labels)
            case "focal":
                return focal_loss(class_logits, labels, alpha=self.focal_alpha, gamma=self.focal_gamma)
            case "ce_hnm":
                return mined_cross_entropy(
                    class_logits,
                    labels,
                    ratio=self.negative_ratio,
                    min_negatives=self.min_negatives,
                    mining_score=self.mining_score,
                )
