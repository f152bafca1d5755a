"""Which (prior, class) pairs of the raw output can become detections, found without looking at most of them."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

SLACK = 1e-2
"""How far below the threshold, in logits, nothing is skipped on a first look: far more than float32 rounds."""


class Candidates(NamedTuple):
    """Scores above the threshold, one a row, in any order."""

    image: Tensor
    """int64 `[R]`: which image of the batch."""
    label: Tensor
    """int64 `[R]`, 1..C."""
    prior: Tensor
    """int64 `[R]`, 0..K - 1."""
    scores: Tensor
    """float32 `[R]`, after softmax."""

    def rows(self, index: Tensor) -> "Candidates":
        """Give some of the rows."""
        return Candidates(*(column[index] for column in self))


def best_candidates(class_logits: Tensor, score_threshold: float, max_priors: int) -> tuple[Candidates, Tensor]:
    """Find the best pairs of each image, whatever their class.

    A score above t needs a logit more than log t above the background's, as softmax is at most the ratio of the two.
    This look costs no exponentials and skips nearly all of a trained network's priors.

    Args:
        class_logits: `[B, K, C + 1]`. A prior with a logit that is NaN or positive infinity has no scores.
        score_threshold: only scores above it count.
        max_priors: how many priors of an image may contribute.

    Returns:
        All pairs of an image that score as well as its `max_priors`-th best prior or better; and bool `[B]`, whether
        there may be other pairs.
    """
    batch, num_priors, num_logits = class_logits.shape
    floor = class_logits.new_zeros(batch, dtype=torch.float32)
    if batch * num_priors == 0:
        nothing = floor.new_zeros(0, dtype=torch.int64)
        return Candidates(nothing, nothing, nothing, nothing.float()), floor > 0
    logits = class_logits.float().reshape(-1, num_logits)  # [B * K, C + 1]
    least = math.log(score_threshold) - SLACK if score_threshold > 0 else -math.inf
    # Halving first, which runs along the vector units, takes a third off the time of this longest step.
    half = num_logits // 2
    best_logits = torch.maximum(logits[:, 1 : half + 1], logits[:, -half:]).amax(dim=1)
    place = (best_logits - logits[:, 0] > least).nonzero()[:, 0]  # [S], prior of image, counted through
    scores = logits.index_select(0, place).softmax(dim=1)[:, 1:]  # [S, C]
    best = scores.amax(dim=1)
    best = best.where(best > score_threshold, 0.0)  # NaN goes, too
    image = place // num_priors
    if image.bincount(minlength=batch).max() > max_priors:
        best_of_all = floor.new_zeros(batch * num_priors).index_copy_(0, place, best).view(batch, num_priors)
        floor = best_of_all.topk(max_priors, sorted=False).values.amin(dim=1)
    rows = ((best > 0) & (best >= floor[image])).nonzero()[:, 0]
    image, prior, scores = image[rows], place[rows] % num_priors, scores.index_select(0, rows)
    row, label = ((scores > score_threshold) & (scores >= floor[image, None])).nonzero(as_tuple=True)
    return Candidates(image[row], label + 1, prior[row], scores[row, label]), floor > 0


def candidates_of_classes(class_logits: Tensor, score_threshold: float, top_k: int) -> Candidates:
    """Find the best pairs of each class of each image.

    Args:
        class_logits: `[B, K, C + 1]`. A prior with a logit that is NaN or positive infinity has no scores.
        score_threshold: only scores above it count.
        top_k: how many of a class; more where several score as the last of them does.
    """
    scores = class_logits.float().softmax(dim=-1)[..., 1:].transpose(1, 2)  # [B, C, K]
    scores = scores.where(scores > score_threshold, 0.0)  # NaN goes, too
    floor = scores.topk(min(top_k, scores.shape[2])).values[..., -1:]  # [B, C, 1]
    image, label, prior = ((scores > 0) & (scores >= floor)).nonzero(as_tuple=True)
    return Candidates(image, label + 1, prior, scores[image, label, prior])
