"""What every prior's class costs, and which of the many background priors may teach."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssd_lightning.ops.rows import put_rows, rows_that_count, take_rows

ClassLoss = Literal["ce_hnm", "ce", "focal"]
MiningScore = Literal["loss", "background", "foreground"]

MAX_LOSS = 88.0
"""The largest whole number whose exponential is a float32 number."""
ROWS_IN_CACHE = 1 << 14
"""Priors whose logits a processor looks at together."""


def cross_entropy(class_logits: Tensor, labels: Tensor) -> Tensor:
    """Softmax cross entropy of every prior, in float32.

    Args:
        class_logits: `[B, K, C + 1]`.
        labels: int64 `[B, K]`; 0 is the background.

    Returns:
        `[B, K]`.
    """
    return F.cross_entropy(class_logits.float().flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)


def mined_cross_entropy(
    class_logits: Tensor,
    labels: Tensor,
    *,
    ratio: float = 3.0,
    min_negatives: int = 0,
    mining_score: MiningScore = "loss",
) -> Tensor:
    """Cross entropy over positives and the hardest negatives (SSD paper, section 2.2, equation 3).

    Args:
        class_logits: `[B, K, C + 1]`.
        labels: int64 `[B, K]`; 0 is the background.
        ratio: negatives per positive at most, in each image by itself.
        min_negatives: least number of negatives in an image.
        mining_score: see `mining_scores`.

    Returns:
        `[B, K]`, 0 for the negatives that were not chosen.
    """
    positive = labels > 0
    with torch.no_grad():
        rank_by = mining_scores(class_logits, background_cross_entropy(class_logits), mining_score)
        chosen = positive | hardest_negatives(rank_by, positive, ratio, min_negatives)
    # Only what was chosen has a gradient, and so only there is the loss computed with one.
    rows = rows_that_count(chosen)
    loss = F.cross_entropy(take_rows(class_logits, rows).float(), take_rows(labels, rows), reduction="none")
    return put_rows(loss, rows, chosen)


def background_cross_entropy(class_logits: Tensor) -> Tensor:
    """Cross entropy of every prior if it is background, in float32 and without a gradient.

    Args:
        class_logits: `[B, K, C + 1]`.

    Returns:
        `[B, K]`; on a processor at most `MAX_LOSS`, which a network reaches only as it diverges.
    """
    logits = class_logits.detach()
    if logits.device.type != "cpu":
        return -logits.float().log_softmax(dim=-1)[..., 0]
    # log sum exp(l_c - l_0), as many rows at a time as stay in the cache; a product with ones adds up short rows faster
    # than a sum does.
    rows = logits.flatten(0, 1)
    losses, odds, ones = (
        torch.ones(shape, dtype=torch.float32)
        for shape in ((len(rows),), (min(ROWS_IN_CACHE, len(rows)), rows.shape[1]), (rows.shape[1],))
    )
    for part, loss in zip(rows.split(ROWS_IN_CACHE), losses.split(ROWS_IN_CACHE), strict=True):
        part = part.float()
        torch.mv(torch.sub(part, part[:, :1], out=odds[: len(part)]).exp_(), ones, out=loss)
    return losses.log_().clamp_(max=MAX_LOSS).view(logits.shape[:-1])


def mining_scores(class_logits: Tensor, class_loss: Tensor, mining_score: MiningScore) -> Tensor:
    """Say how hard every prior is if it is background.

    `loss` ranks by cross entropy (the paper, Caffe, ssd.pytorch, torchvision), `background` by the lowest background
    score (lufficc, qfgaohao). These are one ranking, for the cross entropy of a background prior is the negative log
    of its background score. `foreground` ranks by the highest score of any object class (Caffe's first release and
    PaddlePaddle): a prior that is sure of one class comes before one that wavers between many.

    Args:
        class_logits: `[B, K, C + 1]`.
        class_loss: `[B, K]`, cross entropy against the labels.
        mining_score: the ranking.

    Returns:
        `[B, K]`, for priors that are background; positives have a value without a meaning.
    """
    if mining_score != "foreground":
        return class_loss
    logits = class_logits.float()
    return logits[..., 1:].amax(dim=-1) - logits.logsumexp(dim=-1)


def hardest_negatives(mining_scores: Tensor, positive: Tensor, ratio: float, min_negatives: int = 0) -> Tensor:
    """Choose the background priors that teach (SSD paper, section 2.2, "Hard negative mining").

    Args:
        mining_scores: `[B, K]`, higher is harder.
        positive: bool `[B, K]`.
        ratio: negatives per positive at most, in each image by itself.
        min_negatives: least number in an image, so that images without objects teach too; the paper has 0.

    Returns:
        bool `[B, K]`: the hardest negatives.
    """
    mining_scores = mining_scores.masked_fill(positive, float("-inf"))
    num_positive = positive.sum(dim=1, keepdim=True)
    wanted = (num_positive * ratio).floor().clamp(min=min_negatives)  # [B, 1]
    most = mining_scores.shape[1]
    if wanted.device.type == "cpu" and len(wanted):  # an accelerator sorts them all before the host knew how many
        most = min(most, int(wanted.max()))
    hardest = mining_scores.topk(most, dim=1).indices
    rank = torch.arange(most, device=mining_scores.device).expand_as(hardest)
    chosen = torch.zeros_like(positive).scatter_(1, hardest, rank < wanted)
    return chosen & ~positive


def focal_loss(class_logits: Tensor, labels: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss over all priors (Lin et al. 2017, equation 5), in its softmax form.

    With p the softmax score of a prior's own label it is -a (1 - p)^gamma log p, where a is alpha for objects and
    1 - alpha for the background. RetinaNet has a sigmoid for each class instead; the softmax is kept because the
    scores are read by a softmax over the background too, whatever the loss. For one class both are the same.

    Early training needs a network that starts out with background: with P the wanted share of objects, .01 in the
    paper, and C classes the first background bias is log(C (1 - P) / P), all others 0.

    Args:
        class_logits: `[B, K, C + 1]`.
        labels: int64 `[B, K]`; 0 is the background.
        alpha: weight of objects against the background, in [0, 1].
        gamma: how strongly easy priors are discounted; 0 is a weighted cross entropy.

    Returns:
        `[B, K]`.
    """
    loss = cross_entropy(class_logits, labels)
    # At p = 1 the power has no gradient for gamma < 1, and with 1 - exp no digits for any.
    missing = (-torch.expm1(-loss)).clamp(min=torch.finfo(loss.dtype).tiny)
    return torch.where(labels > 0, alpha, 1 - alpha) * missing**gamma * loss
