"""Which prior is forced to take which ground truth, so that none goes without (SSD paper, section 2.2)."""

import torch
from torch import Tensor

ROUNDS_WITHOUT_A_LOOK = 32
"""An accelerator settles images of fewer boxes than that without waiting for the host."""


def argmax_assignment(choice_iou: Tensor, choice_prior: Tensor, num_priors: int) -> Tensor:
    """Give each box its first choice, the last box a shared one; see `greedy_bipartite` for the shapes."""
    batch, num_boxes, _ = choice_iou.shape
    rank = torch.arange(num_boxes, device=choice_iou.device).expand(batch, -1)
    rank = rank.masked_fill(choice_iou[..., 0] <= 0, -1)
    nobody = torch.full((batch, num_priors), -1, device=choice_iou.device)
    # A plain scatter with duplicate indices keeps an arbitrary one on a GPU; the maximum is the same everywhere.
    return nobody.scatter_reduce_(1, choice_prior[..., 0], rank, reduce="amax")


def greedy_bipartite(choice_iou: Tensor, choice_prior: Tensor, num_priors: int) -> Tensor:
    """Give priors to boxes, the best pair of all that are left first.

    Since both sides judge a pair by the same overlap, this is what deferred acceptance (Gale and Shapley 1962) arrives
    at: every box asks for the best prior that nobody better has, every prior takes the best box that asks, all at
    once, again and again. After as many rounds as there are boxes at most all are settled, mostly after two. A look
    whether they are makes the host wait for an accelerator, which so has one in `ROUNDS_WITHOUT_A_LOOK` rounds only.

    Args:
        choice_iou: `[B, N, T]`, the highest overlaps of each box in descending order, at most 0 for no choice.
        choice_prior: int64 `[B, N, T]`, with which priors.
        num_priors: K.

    Returns:
        int64 `[B, K]`: index of the box that a prior is forced to take, or -1.
    """
    batch, num_boxes, _ = choice_iou.shape
    choices = choice_prior.flatten(1)  # [B, N * T]
    rank = torch.arange(num_boxes, device=choice_iou.device).expand(batch, -1)  # [B, N]
    nobody = torch.full((batch, num_priors), num_boxes, device=choice_iou.device)  # [B, K]
    owner, owner_iou = nobody, choice_iou.new_zeros(batch, num_priors)
    for past_rounds in range(num_boxes):
        rival = owner.gather(1, choices).view_as(choice_prior)
        rival_iou = owner_iou.gather(1, choices).view_as(choice_iou)
        # Of equals the first box has a prior, and what it has is open to itself.
        is_open = (choice_iou > rival_iou) | ((choice_iou == rival_iou) & (rank[..., None] <= rival))
        is_open &= choice_iou > 0
        asked = is_open.byte().argmax(dim=2, keepdim=True)  # the first that is open
        asks = is_open.any(dim=2)  # [B, N]
        asked_prior = choice_prior.gather(2, asked)[..., 0]
        asked_iou = choice_iou.gather(2, asked)[..., 0].masked_fill(~asks, 0.0)
        owner_iou = torch.zeros_like(owner_iou).scatter_reduce(1, asked_prior, asked_iou, "amax")
        is_best = asks & (asked_iou == owner_iou.gather(1, asked_prior))
        previous = owner
        owner = nobody.scatter_reduce(1, asked_prior, rank.masked_fill(~is_best, num_boxes), "amin")
        may_look = choice_iou.device.type == "cpu" or (past_rounds + 1) % ROUNDS_WITHOUT_A_LOOK == 0
        if may_look and torch.equal(owner, previous):
            break
    return owner.masked_fill(owner == num_boxes, -1)
