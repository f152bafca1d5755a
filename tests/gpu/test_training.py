"""Training where the optimiser's kernels skip a step by themselves, and in bfloat16."""

from functools import partial
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from helpers.random_ssd import random_output, random_targets
from helpers.small_training import quiet_trainer, small_module
from helpers.targets import make_target
from helpers.tiny_nets import tiny_net
from ssd_lightning.losses import ArgmaxMatcher, FocalLoss, MultiBoxLoss
from ssd_lightning.ops.priors import SSD300_VOC, make_priors
from ssd_lightning.training.callbacks.averaging import MovingAverage
from ssd_lightning.training.fault_tolerance.non_finite import FiniteSteps
from ssd_lightning.training.schedules import multistep
from ssd_lightning.types import Target

pytestmark = pytest.mark.gpu

ACCELERATOR = "gpu" if torch.cuda.is_available() else "cpu"


def batches(count: int) -> list[tuple[Tensor, list[Target]]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 48), dtype=torch.uint8, generator=generator)
    boxes, labels = torch.tensor([[0.1, 0.1, 0.6, 0.7], [0.4, 0.5, 0.9, 0.9]]), torch.tensor([1, 2])
    targets = [make_target(boxes[: index % 3], labels[: index % 3], image_id=f"image{index}") for index in range(4)]
    return [(images, targets)] * count


class Watch(pl.Callback):
    """Makes the gradients of some steps not finite, and keeps losses, weights and the optimiser's state."""

    def __init__(self, spoiled: set[int]) -> None:
        self.spoiled, self.losses, self.states = spoiled, [], []
        self.step = -1

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        self.step += 1
        self.states.append([value.clone() for value in module.net.state_dict().values()])

    def on_before_backward(self, trainer: pl.Trainer, module: Any, loss: Tensor) -> None:
        self.losses.append(loss.item())

    def on_after_backward(self, trainer: pl.Trainer, module: Any) -> None:
        if self.step in self.spoiled:
            next(module.net.parameters()).grad[0] = torch.nan


def fit(watch: Watch, make: Any, *, steps: int, precision: str = "32-true", **settings: Any) -> pl.Trainer:
    module = small_module(net=tiny_net(num_classes=2), optimizer=make, scheduler=partial(multistep, milestones=[]))
    callbacks = [FiniteSteps(), watch, MovingAverage(0.5)]
    trainer = quiet_trainer(
        accelerator=ACCELERATOR, devices=1, max_epochs=1, precision=precision, callbacks=callbacks, **settings
    )
    trainer.fit(module, torch.utils.data.DataLoader(batches(steps), batch_size=None))  # type: ignore[arg-type]
    watch.states.append([value.cpu() for value in module.net.state_dict().values()])
    return trainer


def same(one: list[Tensor], two: list[Tensor]) -> bool:
    return all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    "make",
    [partial(torch.optim.SGD, lr=0.01, momentum=0.9, fused=True), partial(torch.optim.AdamW, lr=0.01, fused=True)],
    ids=["sgd", "adamw"],
)
def test_a_fused_optimiser_skips_steps_that_are_not_finite(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    spoiled = {0, 3}  # of the first step, optimisers have no state yet
    watch = Watch(spoiled)
    trainer = fit(watch, make, steps=6, gradient_clip_val=10.0)
    for step in range(5):
        assert same(watch.states[step], watch.states[step + 1]) == (step in spoiled), step
    assert all(value.isfinite().all() for value in watch.states[-1])
    for state in trainer.optimizers[0].state.values():
        assert all(value.isfinite().all() for value in state.values() if isinstance(value, Tensor))
    assert f"({len(spoiled)} of at most 10)" in caplog.text
    assert "images image0, image1, image2, image3" in caplog.text


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_it_learns(precision: str) -> None:
    watch = Watch(set())
    trainer = fit(watch, partial(torch.optim.AdamW, lr=0.005, fused=True), steps=40, precision=precision)
    assert all(torch.tensor(watch.losses).isfinite())
    assert watch.losses[-1] < 0.7 * watch.losses[0]
    assert {value.dtype for value in trainer.model.parameters()} == {torch.float32}  # type: ignore[union-attr]
    assert all(value.isfinite().all() for value in watch.states[-1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(
    "settings", [{}, {"matcher": ArgmaxMatcher(), "class_loss": FocalLoss()}], ids=["paper", "focal"]
)
def test_matching_and_loss_of_the_published_size_never_wait(settings: dict[str, Any]) -> None:
    """Thousands of priors are sorted by other kernels than the few of a small network."""
    priors = make_priors(SSD300_VOC, 300).cuda()
    output, targets = random_output(8, priors, 20), random_targets(8, 20, (0, 30))
    loss = MultiBoxLoss(**settings).train()
    for mode in ("default", "error"):  # at first, kernels are loaded
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode(mode)
        try:
            losses = loss(output, targets)
            (losses["loss_box"] + losses["loss_cls"]).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert output.class_logits.grad is not None
    assert output.class_logits.grad.isfinite().all()
