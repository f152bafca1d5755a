"""Class losses: objects that score the class logits of each prior."""

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ssd_lightning.checks import require_choice, require_number
from ssd_lightning.ops.rows import is_on_host, put_rows, rows_that_count, take_rows

MiningScore = Literal["loss", "foreground"]


class ClassLoss(Protocol):
    """Loss of the class logits of B images with K priors. `MultiBoxLoss` sums it over the priors."""

    def __call__(self, class_logits: Tensor, labels: Tensor) -> Tensor:
        """Compare logits `[B, K, C + 1]` with labels int64 `[B, K]`, 0 for the background: float32 `[B, K]`."""


@dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross entropy of every prior (d2l.ai's TinySSD)."""

    def __call__(self, class_logits: Tensor, labels: Tensor) -> Tensor:
        """Compare logits `[B, K, C + 1]` with labels int64 `[B, K]`, 0 for the background: float32 `[B, K]`."""
        return cross_entropy(class_logits, labels)


@dataclass(frozen=True)
class HardNegativeCrossEntropy:
    """Cross entropy of the positives and of the hardest negatives (SSD paper, section 2.2, equation 3).

    The defaults are the paper's. `train` differs in one number: it uses `min_negatives=3`, which
    `conf/loss/class_loss/hard_negative.yaml` sets (`loss/class_loss=hard_negative_paper` has 0).

    Args:
        negative_ratio: maximum number of negatives for each positive of an image.
        min_negatives: minimum number of negatives of an image. With 0, an image without objects has no loss.
        mining_score: which negatives are the hardest. `loss`: those with the highest cross entropy (the paper, Caffe,
            ssd.pytorch, torchvision; also lufficc and qfgaohao, as the loss of a negative is -log p(background)).
            `foreground`: those with the highest probability of a single object class (Caffe's first release,
            PaddlePaddle).

    Raises:
        ConfigurationError: a setting that cannot work.
    """

    negative_ratio: float = 3.0
    min_negatives: int = 0
    mining_score: MiningScore = "loss"

    def __post_init__(self) -> None:
        require_number("loss.class_loss.negative_ratio", self.negative_ratio, 0)
        require_number("loss.class_loss.min_negatives", self.min_negatives, 0, whole=True)
        require_choice("loss.class_loss.mining_score", self.mining_score, get_args(MiningScore))

    def __call__(self, class_logits: Tensor, labels: Tensor) -> Tensor:
        """Compare logits `[B, K, C + 1]` with labels int64 `[B, K]`, 0 for the background.

        Returns:
            float32 `[B, K]`; 0 for the negatives that are not chosen.
        """
        positive = labels > 0
        with torch.no_grad():
            score = background_cross_entropy if self.mining_score == "loss" else foreground_scores
            chosen = positive | hardest_negatives(
                score(class_logits), positive, self.negative_ratio, self.min_negatives
            )
        # Only the chosen priors have a gradient, so the loss is computed for them alone.
        rows = rows_that_count(chosen)
        loss = F.cross_entropy(take_rows(class_logits, rows).float(), take_rows(labels, rows), reduction="none")
        return put_rows(loss, rows, chosen)


@dataclass(frozen=True)
class FocalLoss:
    """Focal loss of every prior (Lin et al. 2017, equation 5), in its softmax form.

    p is the softmax score of the prior's own label. The loss is -a (1 - p)^gamma log p, where a is alpha for objects
    and 1 - alpha for the background. RetinaNet uses one sigmoid for each class. This project uses a softmax over all
    classes and the background, because post-processing does so too. With one class, the two forms are equal.

    Training needs a head that predicts background at the start: set `head.prior_probability=0.01`.

    Args:
        alpha: weight of objects; the background has 1 - alpha.
        gamma: how much the loss of easy priors is reduced; with 0, this is a weighted cross entropy.

    Raises:
        ConfigurationError: a setting that cannot work.
    """

    alpha: float = 0.25
    gamma: float = 2.0

    def __post_init__(self) -> None:
        require_number("loss.class_loss.alpha", self.alpha, 0, 1)
        require_number("loss.class_loss.gamma", self.gamma, 0)

    def __call__(self, class_logits: Tensor, labels: Tensor) -> Tensor:
        """Compare logits `[B, K, C + 1]` with labels int64 `[B, K]`, 0 for the background: float32 `[B, K]`."""
        loss = cross_entropy(class_logits, labels)
        # At p = 1 the power has no gradient for gamma < 1, and 1 - exp(-loss) would lose its digits.
        missing = (-torch.expm1(-loss)).clamp(min=torch.finfo(loss.dtype).tiny)
        return torch.where(labels > 0, self.alpha, 1 - self.alpha) * missing**self.gamma * loss


def cross_entropy(class_logits: Tensor, labels: Tensor) -> Tensor:
    """Softmax cross entropy of logits `[B, K, C + 1]` and labels int64 `[B, K]`: float32 `[B, K]`."""
    return F.cross_entropy(class_logits.float().flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)


def background_cross_entropy(class_logits: Tensor) -> Tensor:
    """Compute -log p(background), which is the loss of a negative, for logits `[B, K, C + 1]`: `[B, K]`."""
    return -class_logits.float().log_softmax(dim=-1)[..., 0]


def foreground_scores(class_logits: Tensor) -> Tensor:
    """Compute the log of the highest softmax score of an object class, for logits `[B, K, C + 1]`: `[B, K]`."""
    logits = class_logits.float()
    return logits[..., 1:].amax(dim=-1) - logits.logsumexp(dim=-1)


def hardest_negatives(scores: Tensor, positive: Tensor, ratio: float, min_negatives: int = 0) -> Tensor:
    """Hard negative mining: choose the background priors that count in the loss (SSD paper, section 2.2).

    Args:
        scores: `[B, K]`, higher is harder.
        positive: bool `[B, K]`.
        ratio: maximum number of negatives for each positive, in each image.
        min_negatives: minimum number of negatives of an image.

    Returns:
        bool `[B, K]`.
    """
    wanted = (positive.sum(dim=1, keepdim=True) * ratio).floor().clamp(min=min_negatives)  # [B, 1]
    most = scores.shape[1]
    if is_on_host(wanted) and len(wanted):  # on an accelerator, the host would have to wait for this number
        most = min(most, int(wanted.max()))
    hardest = scores.masked_fill(positive, float("-inf")).topk(most, dim=1).indices
    rank = torch.arange(most, device=scores.device).expand_as(hardest)
    return torch.zeros_like(positive).scatter(1, hardest, rank < wanted) & ~positive
