"""Handling of losses and gradients that are not finite, and of out-of-memory errors."""

import logging
import math
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ssd_lightning.checks import require_number
from ssd_lightning.errors import UserError, listed

log = logging.getLogger(__name__)


def spread_non_finite(loss: Tensor) -> Tensor:
    """Return a finite loss unchanged. Any other loss is multiplied by NaN, so that all gradients become NaN.

    It is then enough to check the gradients. Because ranks sum their gradients, all ranks see what happened on one.
    """
    return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)


def any_non_finite(gradients: Iterable[Tensor]) -> Tensor:
    """Whether any gradient is not finite, as a bool scalar on the device."""
    return ~nn.utils.get_total_norm(gradients, 1).isfinite()


class FiniteSteps(pl.Callback):
    """Skips optimiser steps whose loss or gradients are not finite, and stops the run if there are too many.

    A skipped step does not change the weights, the optimiser's state or the statistics of batch norm. The schedule
    advances. The images of the batch are logged. With a fused optimiser on a GPU, the optimiser's kernel skips the
    step, and the host reads the result one step later, so that nothing waits. Other optimisers wait for the check.

    With float16, Lightning's scaler skips such steps itself. Those whose loss is finite are not counted: the scaler
    searches its scale.

    Args:
        max_bad_batches: number of skipped steps that are allowed. 0 stops at the first.

    Raises:
        ConfigurationError: the number is negative.
    """

    def __init__(self, *, max_bad_batches: int = 10) -> None:
        require_number("callbacks.finite_steps.max_bad_batches", max_bad_batches, 0, whole=True)
        self.max_bad_batches = max_bad_batches
        self.num_bad = 0
        self._statistics: list[tuple[Tensor, Tensor]] = []
        self._unread: deque[tuple[Tensor, Any, str]] = deque()
        self._names: list[str] = []
        self._loss = torch.tensor(torch.nan)

    def state_dict(self) -> dict[str, int]:
        """Return the count."""
        return {"num_bad": self.num_bad}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Restore the count."""
        self.num_bad = state_dict["num_bad"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Allocate copies of the batch norm statistics."""
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
        """Record the image names and, at the first batch of a step, the batch norm statistics."""
        if not self._names and self._statistics:
            torch._foreach_copy_([kept for _, kept in self._statistics], [buffer for buffer, _ in self._statistics])
        self._names += [target["image_id"] for target in batch[1]]

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Keep the loss for the message."""
        self._loss = loss.detach()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Skip the step if a gradient is not finite.

        Raises:
            UserError: too many steps were skipped.
        """
        names, self._names = self._names, []
        gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
        if not gradients:
            return
        is_bad = any_non_finite(gradients)
        where = f"step {trainer.global_step} (epoch {trainer.current_epoch}; images {listed(names, 8)})"
        is_scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        if is_scaled:
            self._restore_statistics(is_bad)
            is_bad &= ~self._loss.isfinite()
        if is_bad.device.type == "cuda" and (is_scaled or optimizer.defaults.get("fused")):
            if not is_scaled:
                self._leave_out_on_device(optimizer, is_bad)
            self._read_later(is_bad, where)
        elif bool(is_bad):
            for parameter in () if is_scaled else pl_module.parameters():
                parameter.grad = None  # without a gradient, optimisers leave parameter and momentum alone
            self._restore_statistics(is_bad)
            self._count(where, float(self._loss))

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Read the result of the previous step, which the device has finished.

        Raises:
            UserError: too many steps were skipped.
        """
        self._read_all_but(1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read all results before the epoch's checkpoint is written.

        Raises:
            UserError: too many steps were skipped.
        """
        self._read_all_but(0)

    def _leave_out_on_device(self, optimizer: Optimizer, is_bad: Tensor) -> None:
        # SGD allocates its momentum at the first step and relies on the kernel to fill it. A skipped step does not
        # fill it. Zeros give the same first step (a smaller one with dampening).
        for group in optimizer.param_groups:
            for parameter in group["params"] if group.get("momentum") else ():
                if parameter.grad is not None and "momentum_buffer" not in optimizer.state[parameter]:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter.grad)
        # Fused optimisers read these attributes for float16 scaling. With found_inf = 1 the kernel changes nothing.
        optimizer.grad_scale, optimizer.found_inf = None, is_bad.float()  # type: ignore[attr-defined]
        self._restore_statistics(is_bad)

    def _restore_statistics(self, is_bad: Tensor) -> None:
        for buffer, kept in self._statistics:
            torch.where(is_bad, kept, buffer, out=buffer)

    def _read_later(self, is_bad: Tensor, where: str) -> None:
        values = torch.stack([is_bad.float(), self._loss.float()])
        on_host = torch.empty(2, pin_memory=True).copy_(values, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._unread.append((on_host, event, where))

    def _read_all_but(self, newest: int) -> None:
        while len(self._unread) > newest:
            on_host, event, where = self._unread.popleft()
            event.synchronize()
            is_bad, loss = on_host.tolist()
            if is_bad:
                self._count(where, loss)

    def _count(self, where: str, loss: float) -> None:
        self.num_bad += 1
        what = f"gradients (loss {loss:g}) are not finite" if math.isfinite(loss) else f"the loss is {loss:g}"
        if self.num_bad > self.max_bad_batches:
            raise UserError(
                f"{what} at {where}, and {self.max_bad_batches} bad batches before it were skipped: lower "
                "optimizer.lr, raise scheduler.warmup_steps or set trainer.gradient_clip_val"
            )
        log.warning("%s at %s: the step is skipped (%d of at most %d)", what, where, self.num_bad, self.max_bad_batches)


@contextmanager
def advise_on_memory(*, batch_size: int, ranks: int, accumulate: int, precision: str) -> Iterator[None]:
    """Turn an out-of-memory error into one that suggests other settings than those given.

    Raises:
        UserError: there was too little memory for the device, for the process or for its data workers.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error).strip()
        is_killed = "DataLoader worker" in text and ("killed by signal" in text or "exited unexpectedly" in text)
        is_full = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in text
        if not is_full and not is_killed:
            raise
        share, options = batch_size // (ranks * accumulate), []
        shared_by = (
            more for more in range(accumulate + 1, batch_size // ranks + 1) if batch_size % (ranks * more) == 0
        )
        if more := next(shared_by, None):
            at_a_time = f"{batch_size // (ranks * more)} images at a time instead of {share}"
            options.append(f"trainer.accumulate_grad_batches={more} (the same step, {at_a_time})")
        if share > 1:
            options.append(f"data.batch_size={ranks * accumulate * (share // 2)} (now {batch_size})")
        if is_full:
            what = "out of memory"
            options += [] if "16" in precision else [f"trainer.precision=bf16-mixed (now {precision})"]
        else:
            what = (
                "a data worker was killed, usually because the machine ran out of memory or of shared memory in "
                "/dev/shm"
            )
            options.insert(0, "data.num_workers=1")
        reason = (text or type(error).__name__).splitlines()[0]
        raise UserError(f"{what}: try {', or '.join(options or ['a smaller image_size'])} ({reason})") from error
