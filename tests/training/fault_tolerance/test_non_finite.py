from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import nn

from helpers.interrupted import SGD, fit, module
from ssd_lightning.errors import UserError
from ssd_lightning.training.fault_tolerance.non_finite import (
    FiniteSteps,
    advise_on_memory,
    any_non_finite,
    spread_non_finite,
)


class Spoil(pl.Callback):
    """Makes the images of some batches infinite, or the gradients of one weight NaN."""

    def __init__(self, batches: set[int], *, gradients: bool = False) -> None:
        self.batches, self.gradients, self.seen, self.names = batches, gradients, -1, []
        self.weights: list[list[torch.Tensor]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        self.seen += 1
        if self.seen in self.batches:
            self.names.append([target["image_id"] for target in batch[1]])
        self.weights.append([value.clone() for value in module.net.state_dict().values()])
        self.weights[-1] += [state["momentum_buffer"].clone() for state in trainer.optimizers[0].state.values()]

    def on_before_backward(self, trainer: pl.Trainer, module: Any, loss: torch.Tensor) -> None:
        if self.seen in self.batches and not self.gradients:
            loss.data.fill_(torch.inf)

    def on_after_backward(self, trainer: pl.Trainer, module: Any) -> None:
        if self.seen in self.batches:
            first = next(module.net.parameters()).grad
            if self.gradients:
                first[0] = torch.nan
            else:
                first.fill_(torch.inf)


def same(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return len(one) == len(two) and all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(("gradients", "fused"), [(True, False), (False, True)])
def test_a_bad_step_is_named_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, gradients: bool, fused: bool
) -> None:
    spoil, model = Spoil({1, 7}, gradients=gradients), module(optimizer=partial(SGD, fused=fused))
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())  # whose statistics are compared too
    trainer = fit(tmp_path / "run", callbacks=(spoil,), model=model, max_epochs=2)
    assert trainer.global_step == 10
    for index in range(1, 9):
        assert same(spoil.weights[index], spoil.weights[index + 1]) == (index in spoil.batches), index
    for names in spoil.names:
        assert f"images {', '.join(names)}): the step is skipped" in caplog.text
    assert "(2 of at most 10)" in caplog.text


@pytest.mark.parametrize(("gradients", "counted"), [(True, 0), (False, 2)])
def test_a_step_that_the_scaler_of_float16_skips_changes_nothing_either(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, gradients: bool, counted: int
) -> None:
    """A finite loss may have infinite gradients because the scale is too large. Any other loss is bad at any scale."""
    spoil = Spoil({1, 7}, gradients=gradients)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    scaled = MixedPrecision("16-mixed", "cpu", scaler=scaler)  # type: ignore[arg-type]
    fit(tmp_path / "run", callbacks=(spoil,), max_epochs=2, plugins=(scaled,))
    for index in spoil.batches:
        assert same(spoil.weights[index], spoil.weights[index + 1]), index
    assert not same(spoil.weights[8], spoil.weights[9])
    assert caplog.text.count("the step is skipped") == counted


def test_one_bad_batch_too_many_stops_the_run_and_spoils_no_checkpoint(tmp_path: Path) -> None:
    spoil = Spoil({1, 3, 6}, gradients=True)
    with pytest.raises(UserError, match=r"step 6 \(epoch 1; images .*2 bad batches before it were skipped"):
        fit(tmp_path / "run", callbacks=(spoil,), every_n_steps=1, max_bad_batches=2)
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["callbacks"]["FiniteSteps"] == {"num_bad": 2}
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


def test_a_gathered_step_is_named_with_all_its_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spoil = Spoil({2}, gradients=True)
    fit(tmp_path / "run", callbacks=(spoil,), batch_size=4, accumulate_grad_batches=2, max_epochs=1)
    line = next(line for line in caplog.text.splitlines() if "skipped" in line)
    assert line.count(",") - line.count("step, ") >= 3  # four images


def test_an_infinite_loss_shows_in_its_gradients() -> None:
    weight = torch.ones(3, requires_grad=True)
    (spread_non_finite((weight * torch.tensor([1.0, torch.inf, 1.0])).sum())).backward()
    assert weight.grad is not None
    assert weight.grad.isnan().all()
    loss = torch.rand(3, requires_grad=True).sum()
    assert torch.equal(spread_non_finite(loss), loss)


def test_one_number_is_enough() -> None:
    for value in (torch.inf, -torch.inf, torch.nan):
        gradients = [torch.zeros(5, 4), torch.zeros(7)]
        assert not any_non_finite(gradients)
        gradients[1][3] = value
        assert any_non_finite(gradients)


@pytest.mark.parametrize("order", [(False, True, False), (True, True, False, False)])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_the_kernel_of_a_fused_optimiser_leaves_a_step_out(
    optimizer: type[torch.optim.Optimizer], order: tuple[bool, ...]
) -> None:
    """On a GPU the host does not know; here the same kernels of the processor are asked."""
    settings: dict[str, Any] = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    twin = deepcopy(net)
    steps, made = FiniteSteps(), optimizer(net.parameters(), lr=0.1, fused=True, **settings)  # type: ignore[call-arg]
    plain = optimizer(twin.parameters(), lr=0.1, **settings)  # type: ignore[call-arg]
    steps._statistics = [(net[1].running_mean, net[1].running_mean.clone())]
    with memory_full_of_nan():
        for is_bad in order:
            for parameter in (*net.parameters(), *twin.parameters()):
                parameter.grad = torch.full_like(parameter, torch.nan if is_bad else 1.0)
            before = [parameter.clone() for parameter in net.parameters()]
            net[1].running_mean.fill_(torch.nan if is_bad else 0.0)
            steps._leave_out_on_device(made, any_non_finite(parameter.grad for parameter in net.parameters()))
            made.step()
            if not is_bad:
                plain.step()
            assert same(before, list(net.parameters())) == is_bad
            assert net[1].running_mean.isfinite().all()
    for found, expected in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


@contextmanager
def memory_full_of_nan() -> Iterator[None]:
    """Fill what is allocated without a value, which by chance may hold zeros."""
    torch.use_deterministic_algorithms(True)  # this alone makes torch fill it
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


RUN = {"batch_size": 32, "ranks": 4, "accumulate": 1, "precision": "32-true"}


@pytest.mark.parametrize(
    ("error", "settings", "told"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried\n2 GiB"),
            {},
            r"^out of memory: try trainer\.accumulate_grad_batches=2 \(.* 4 images at a time instead of 8\), or "
            r"data\.batch_size=16 \(now 32\), or trainer\.precision=bf16-mixed \(now 32-true\) \(CUDA out of memory\.",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), {}, r"data\.batch_size=16"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), {}, r"try data\.num_workers=1, or tr"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), {}, "/dev/shm"),
        (
            MemoryError(),  # what is advised can be shared evenly
            {"batch_size": 36, "accumulate": 3, "precision": "bf16-mixed"},
            r"=9 \(the same step, 1 images.*, or data\.batch_size=12 \(now 36\) \(MemoryError\)$",
        ),
        (MemoryError("no"), {"batch_size": 1, "ranks": 1, "precision": "bf16-mixed"}, r"a smaller image_size \(no\)"),
    ],
)
def test_too_little_memory_is_reported_with_what_to_try(error: Exception, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told), advise_on_memory(**{**RUN, **settings}):
        raise error


def test_other_errors_are_not_explained_away() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), advise_on_memory(**RUN):  # type: ignore[arg-type]
        raise RuntimeError("shapes differ")
