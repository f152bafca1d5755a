import pytest
import torch
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from ssd_lightning.losses.class_losses import (
    FocalLoss,
    HardNegativeCrossEntropy,
    MiningScore,
    background_cross_entropy,
    cross_entropy,
)


def draw(batch: int, num_priors: int, num_classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, num_priors, num_classes + 1, generator=generator)
    labels = torch.randint(0, num_classes + 1, (batch, num_priors), generator=generator)
    return logits, labels.masked_fill(torch.rand(batch, num_priors, generator=generator) < 0.8, 0)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.75, 0.5), (0.5, 0.0)])
def test_focal_loss_of_one_class_is_torchvisions(alpha: float, gamma: float) -> None:
    """A softmax over two logits is a sigmoid of their difference; torchvision has the latter."""
    logits, labels = draw(3, 50, 1)
    logits.requires_grad_()
    loss = FocalLoss(alpha, gamma)(logits, labels)
    expected = sigmoid_focal_loss(logits[..., 1] - logits[..., 0], labels.float(), alpha=alpha, gamma=gamma)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-6)
    gradients = [torch.autograd.grad(each.sum(), logits, retain_graph=True)[0] for each in (loss, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


def test_focal_loss_of_many_classes_is_its_formula() -> None:
    logits, labels = draw(2, 30, 4)
    p = logits.double().softmax(-1).gather(2, labels[..., None])[..., 0]
    expected = -torch.where(labels > 0, 0.25, 0.75) * (1 - p) ** 2 * p.log()
    torch.testing.assert_close(FocalLoss()(logits, labels).double(), expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("logit", [0.0, 1000.0, -1000.0])
def test_focal_loss_has_a_gradient_for_priors_that_are_sure(gamma: float, logit: float) -> None:
    logits = torch.tensor([[[logit, 0.0, 0.0], [0.0, logit, 0.0]]], requires_grad=True)
    loss = FocalLoss(gamma=gamma)(logits, torch.tensor([[0, 1]]))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("mining_score", ["loss", "foreground"])
def test_mined_loss_is_that_of_the_chosen_and_of_no_other(mining_score: MiningScore) -> None:
    logits, labels = draw(3, 80, 5)
    logits.requires_grad_()
    loss = HardNegativeCrossEntropy(negative_ratio=2, mining_score=mining_score)(logits, labels)
    every = cross_entropy(logits, labels)
    ranks = {"foreground": logits[..., 1:].amax(-1).exp() / logits.exp().sum(-1)}.get(mining_score, every)
    for image in range(3):
        order = [k for k in ranks[image].argsort(descending=True).tolist() if labels[image, k] == 0]
        positives = (labels[image] > 0).nonzero().flatten().tolist()
        counted = {*positives, *order[: 2 * len(positives)]}
        assert {k for k in range(80) if loss[image, k] > 0} == counted
        assert all(loss[image, k] == every[image, k] for k in counted)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert torch.equal(gradient.abs().sum(-1) > 0, loss > 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_background_cross_entropy_is_that_of_background_labels(dtype: torch.dtype) -> None:
    logits = draw(3, 50, 20)[0].to(dtype)
    logits[0, :2] = torch.tensor([[0.0] + [1000.0] * 20, [1000.0] + [0.0] * 20])
    found = background_cross_entropy(logits)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, cross_entropy(logits, torch.zeros(3, 50, dtype=torch.int64)))
