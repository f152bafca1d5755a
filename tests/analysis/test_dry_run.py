"""The first loss against theory, and what a few steps say about a run."""

import math

import pytest
import torch
from torch import Tensor, nn

from helpers.targets import make_target
from ssd_lightning.analysis.dataset_check.dry_run import first_loss_issues, first_losses, run_estimate
from ssd_lightning.losses import BipartiteMatcher, HardNegativeCrossEntropy, MultiBoxLoss
from ssd_lightning.ops.coder import VARIANCES, encode
from ssd_lightning.ops.priors import SSD300_VOC, make_priors
from ssd_lightning.types import SSDOutput

PRIORS = make_priors(SSD300_VOC, 300)


class Scatter(nn.Module):
    """A stand-in for a network whose logits scatter, with a buffer that training changes."""

    def __init__(self, num_classes: int, scale: float) -> None:
        super().__init__()
        self.num_classes, self.scale = num_classes, scale
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images: Tensor) -> SSDOutput:
        self.seen += 1
        generator = torch.Generator().manual_seed(0)
        logits = self.scale * torch.randn(len(images), len(PRIORS), self.num_classes + 1, generator=generator)
        return SSDOutput(torch.zeros(len(images), len(PRIORS), 4), logits, PRIORS)


BATCH = (
    torch.zeros(2, 3, 300, 300),
    [make_target([[0.1, 0.1, 0.6, 0.7]], [1]), make_target([[0.4, 0.5, 0.5, 0.6]], [1])],
)


@pytest.mark.parametrize(("num_classes", "ratio"), [(1, 3.0), (20, 1.0)])
def test_the_uniform_guess_costs_what_theory_says(num_classes: int, ratio: float) -> None:
    net = Scatter(num_classes, scale=0.0)
    losses = first_losses(net, MultiBoxLoss(class_loss=HardNegativeCrossEntropy(ratio)).train(), [BATCH, BATCH])

    assert losses["expected"]["loss_cls"] == pytest.approx((1 + ratio) * math.log(num_classes + 1), rel=1e-5)
    assert losses["measured"] == pytest.approx(losses["expected"])
    assert float(net.seen) == 0  # as it was


def test_the_expected_box_loss_is_that_of_offsets_0() -> None:
    exact = PRIORS[7000]
    boxes = torch.cat((exact[:2] - exact[2:] / 2, exact[:2] + exact[2:] / 2))
    loss = MultiBoxLoss(matcher=BipartiteMatcher(1.0)).train()  # the forced match alone
    for shift in (0.0, 0.01):
        moved = boxes + torch.tensor([shift, 0.0, shift, 0.0])
        batch = torch.zeros(1, 3, 300, 300), [make_target([moved.tolist()], [1])]
        expected = first_losses(Scatter(3, 0.0), loss, [batch])["expected"]["loss_box"]
        offset = encode((exact + torch.tensor([shift, 0, 0, 0]))[None], exact[None], VARIANCES)
        by_hand = nn.functional.smooth_l1_loss(offset, torch.zeros_like(offset), reduction="sum")
        assert expected == pytest.approx(float(by_hand), abs=1e-4)


def test_a_loss_far_from_the_expected_is_found() -> None:
    loss = MultiBoxLoss().train()
    assert first_loss_issues(first_losses(Scatter(3, 1.0), loss, [BATCH])) == []
    (far,) = first_loss_issues(first_losses(Scatter(3, 50.0), loss, [BATCH]))
    assert far.severity == "warning"
    (broken,) = first_loss_issues(first_losses(Scatter(3, math.nan), loss, [BATCH]))
    assert broken.severity == "error"
    assert "cls is nan" in broken.sentence


SETTINGS = {
    "seconds_a_step": 2.0, "measured_batch_size": 8, "batch_size": 32, "num_images": 1000, "num_devices": 1,
    "max_epochs": 10, "max_steps": -1, "batches_a_step": 1, "activations_mib": 100.0, "fixed_mib": 50.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "steps", "hours", "memory_mib"),
    [
        ({}, 310, 310 * 8 / 3600, 450),  # a batch of 32 takes 8 s
        ({"num_devices": 4}, 310, 310 * 2 / 3600, 150),
        ({"batches_a_step": 2}, 310, 310 * 8 / 3600, 250),
        ({"max_epochs": -1}, None, None, 450),
        ({"max_steps": 5}, 5, 40 / 3600, 450),
        ({"max_epochs": None, "budget_s": 3600.0}, 450, 1, 450),
        ({"budget_s": 36_000.0}, 310, 310 * 8 / 3600, 450),
        ({"num_images": 3, "activations_mib": None}, 10, 80 / 3600, None),
    ],
)
def test_the_estimate_of_a_run(
    changes: dict[str, object], steps: int | None, hours: float | None, memory_mib: float | None
) -> None:
    estimate = run_estimate(**{**SETTINGS, **changes})  # type: ignore[arg-type]
    assert estimate["images_per_s"] == 4
    assert estimate["steps"] == steps
    assert estimate["hours"] == (None if hours is None else pytest.approx(hours))
    assert estimate["memory_mib"] == memory_mib
