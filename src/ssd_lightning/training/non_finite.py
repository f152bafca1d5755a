"""What keeps one bad batch from spoiling a run."""

import logging
from collections import deque
from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ssd_lightning.checks import require_number
from ssd_lightning.errors import UserError

log = logging.getLogger(__name__)


class TrainingDiverged(UserError):
    """Losses or gradients are not finite any more."""


class OutOfMemory(UserError):
    """The device, or the machine, has not enough memory for a step."""


def spread_non_finite(loss: Tensor) -> Tensor:
    """Leave a finite loss as it is; make the gradients of another NaN.

    Then one look at the gradients tells, and since ranks add theirs up, all of them see what happened on one.
    """
    return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)


def any_non_finite(gradients: Iterable[Tensor]) -> Tensor:
    """Say, on the device, whether a number in them is not finite: a bool scalar."""
    norms = torch._foreach_norm(list(gradients), 1)
    return ~torch.stack([norm.float() for norm in norms]).isfinite().all()


class FiniteSteps(pl.Callback):
    """Leaves out optimiser steps whose loss or gradients are not finite, and stops a run that makes too many of them.

    A step that is skipped changes neither weights nor the optimiser's state nor the statistics of batch norm; the
    schedule goes on. The batch is named. With a fused optimiser on a GPU, the step is skipped by its own kernel and
    the host hears of it one step later, so that nothing waits; every other optimiser waits for the answer.

    With float16, Lightning's scaler skips such steps itself, as a part of finding its scale; they are not counted.

    Args:
        max_bad_batches: stop at one more; 0 stops at the first.

    Raises:
        ConfigurationError: a negative number.
    """

    def __init__(self, *, max_bad_batches: int = 10) -> None:
        require_number("callbacks.finite_steps.max_bad_batches", max_bad_batches, 0, whole=True)
        self.max_bad_batches = max_bad_batches
        self.num_bad = 0
        self._statistics: list[tuple[Tensor, Tensor]] = []
        self._unread: deque[tuple[Tensor, Any, str]] = deque()
        self._names: list[str] = []
        self._loss: Tensor | None = None

    def state_dict(self) -> dict[str, int]:
        """Keep the count."""
        return {"num_bad": self.num_bad}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on counting."""
        self.num_bad = state_dict["num_bad"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Allocate the statistics of batch norm before a step."""
        buffers = [
            buffer
            for module in pl_module.modules()
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats
            for buffer in module.buffers()
        ]
        self._statistics = [(buffer, buffer.clone()) for buffer in buffers]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the images, and at the first batch of a step the statistics."""
        if not self._names and self._statistics:
            torch._foreach_copy_([kept for _, kept in self._statistics], [buffer for buffer, _ in self._statistics])
        self._names += [target["image_id"] for target in batch[1]]

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Note the loss for the message."""
        self._loss = loss.detach()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Leave the step out if it has to be.

        Raises:
            TrainingDiverged: it is one too many.
        """
        names, self._names = self._names, []
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return
        gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
        if not gradients:
            return
        is_bad = any_non_finite(gradients)
        where = f"step {trainer.global_step} (epoch {trainer.current_epoch}; images {_shortened(names)})"
        if is_bad.device.type == "cuda" and optimizer.defaults.get("fused"):
            self._leave_out_on_device(optimizer, is_bad)
            self._read_later(is_bad, where)
        elif bool(is_bad):
            for parameter in pl_module.parameters():
                parameter.grad = None  # without a gradient, optimisers leave parameter and momentum alone
            for buffer, kept in self._statistics:
                buffer.copy_(kept)
            self._count(where, float(self._loss) if self._loss is not None else float("nan"))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Hear of the step before this one, which the device has finished by now.

        Raises:
            TrainingDiverged: it was one too many.
        """
        while len(self._unread) > 1:
            self._read()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hear of all steps before the epoch's checkpoint is written.

        Raises:
            TrainingDiverged: one was too many.
        """
        while self._unread:
            self._read()

    def _leave_out_on_device(self, optimizer: Optimizer, is_bad: Tensor) -> None:
        # SGD allocates its momentum at the first step and relies on the kernel to fill it, which a skipped step does
        # not. Zeros give the same first step (with dampening, a smaller one).
        for group in optimizer.param_groups:
            for parameter in group["params"] if group.get("momentum") else ():
                if parameter.grad is not None and "momentum_buffer" not in optimizer.state[parameter]:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter.grad)
        # What fused optimisers look at for the scaler of float16: 1 makes the kernel change nothing.
        optimizer.grad_scale, optimizer.found_inf = None, is_bad.float()  # type: ignore[attr-defined]
        for buffer, kept in self._statistics:
            torch.where(is_bad, kept, buffer, out=buffer)

    def _read_later(self, is_bad: Tensor, where: str) -> None:
        loss = self._loss if self._loss is not None else is_bad.new_zeros((), dtype=torch.float32)
        values = torch.stack([is_bad.float(), loss.float()])
        on_host = torch.empty(2, pin_memory=True).copy_(values, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._unread.append((on_host, event, where))

    def _read(self) -> None:
        on_host, event, where = self._unread.popleft()
        event.synchronize()
        is_bad, loss = on_host.tolist()
        if is_bad:
            self._count(where, loss)

    def _count(self, where: str, loss: float) -> None:
        self.num_bad += 1
        what = f"the loss is {loss:g}" if loss != loss or abs(loss) == float("inf") else f"gradients (loss {loss:g})"
        what = what if what.startswith("the loss") else f"{what} are not finite"
        if self.num_bad > self.max_bad_batches:
            raise TrainingDiverged(
                f"{what} at {where}, and {self.max_bad_batches} bad batches before it were skipped: lower "
                "optimizer.lr, raise scheduler.warmup_steps or set trainer.gradient_clip_val"
            )
        log.warning("%s at %s: the step is skipped (%d of at most %d)", what, where, self.num_bad, self.max_bad_batches)


def _shortened(names: list[str], at_most: int = 8) -> str:
    return ", ".join(names[:at_most]) + (f" and {len(names) - at_most} more" if len(names) > at_most else "")


def explain_memory(
    error: BaseException, *, batch_size: int, ranks: int, accumulate: int, precision: str
) -> UserError | None:
    """Say what to try when memory was not enough; None if it was something else.

    Args:
        error: what ended the run.
        batch_size: images of a step, see `data.batch_size`.
        ranks: devices that share them.
        accumulate: `trainer.accumulate_grad_batches`.
        precision: `trainer.precision`.
    """
    text = str(error)
    reason = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    share = batch_size // (ranks * accumulate)
    options = []
    for more in range(accumulate + 1, batch_size // ranks + 1):
        if batch_size % (ranks * more) == 0:
            at_a_time = f"{batch_size // (ranks * more)} images at a time instead of {share}"
            options.append(f"trainer.accumulate_grad_batches={more} (the same step, {at_a_time})")
            break
    if share > 1:
        options.append(f"data.batch_size={ranks * accumulate * (share // 2)} (now {batch_size})")
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in text:
        if "16" not in precision:
            options.append(f"trainer.precision=bf16-mixed (now {precision})")
        return OutOfMemory(f"out of memory: try {', or '.join(options or ['a smaller image_size'])} ({reason})")
    if "DataLoader worker" in text and ("killed by signal" in text or "exited unexpectedly" in text):
        return OutOfMemory(
            "a data worker was killed, most often because the machine's memory, or the shared memory in /dev/shm, ran "
            f"out: try {', or '.join(['data.num_workers=1', *options])} ({reason})"
        )
    return None
