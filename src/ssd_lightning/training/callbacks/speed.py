"""Measures the speed of a run and the parts of a training step."""

import resource
import sys
import time
from collections import defaultdict
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import Profiler

from ssd_lightning.training.callbacks.logged_steps import is_logged

Part = Literal["data", "transfer", "forward", "backward", "batch"]

PARTS: dict[tuple[str, str], Part] = {
    ("[_TrainingEpochLoop]", "train_dataloader_next"): "data",
    ("[Strategy]", "batch_to_device"): "transfer",
    ("[Strategy]", "training_step"): "forward",
    ("[Strategy]", "backward"): "backward",
    ("", "run_training_batch"): "batch",
}
"""Lightning's names for the parts of a step, as (class, action): `[Strategy]DDPStrategy.backward`."""


class StepWatch(Profiler):
    """Measures the parts of training steps. Lightning reports them only to its profiler.

    On a GPU the parts are timed with CUDA events, which are read only when the numbers are needed. On other devices,
    and for the time waiting for data, the host's clock is used.

    Args:
        announced_to: the user's profiler. All calls are forwarded to it.
        device: device of the training.
    """

    def __init__(self, announced_to: Profiler, device: torch.device) -> None:
        super().__init__()
        self.announced_to = announced_to
        self.waits_since = 0.0
        self.is_training = False
        self._device = device
        self._begun: dict[Part, Any] = {}
        self._spans: list[tuple[Part, Any, Any]] = []

    def start(self, action_name: str) -> None:
        """Record the start of a part."""
        self.announced_to.start(action_name)
        part = part_of(action_name)
        if part == "data":
            self.waits_since = self._begun[part] = time.perf_counter()
        elif part is not None and self.is_training:
            self._begun[part] = self._now()

    def stop(self, action_name: str) -> None:
        """Record the end of a part."""
        self.announced_to.stop(action_name)
        part = part_of(action_name)
        if part is not None and part in self._begun:
            end = time.perf_counter() if part == "data" else self._now()
            self._spans.append((part, self._begun.pop(part), end))

    def take_seconds(self) -> dict[Part, float]:
        """Wait for the device, and return the total seconds of each part since the last call."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        seconds: dict[Part, float] = defaultdict(float)
        for part, begin, end in self._spans:
            seconds[part] += end - begin if isinstance(begin, float) else begin.elapsed_time(end) / 1000
        self._spans.clear()
        return seconds

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


def part_of(action_name: str) -> Part | None:
    """Return the part of a step that matches a Lightning action. None if there is none."""
    who, bracket, what = action_name.rpartition("]")
    return PARTS.get((who + bracket, what.rpartition(".")[2]))


class Speed(pl.Callback):
    """Logs images per second, the share of time spent waiting for data, times of a batch's parts, and peak memory.

    Every number covers the batches since the last log. The first batch, in which libraries choose their kernels, is
    not counted, nor are validation, checkpoints and the change of epochs. Images are counted over all ranks. All other
    numbers are of the rank that logs.
    """

    def __init__(self) -> None:
        self._watch: StepWatch | None = None
        self._is_warm = False
        self._was_interrupted = False
        self._since = self._ended = self._left_out = 0.0
        self._images = self._batches = 0
        self._unwritten: dict[str, torch.Tensor] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Wrap the trainer's profiler."""
        if stage == "fit":
            self._is_warm = False
            self._watch = trainer.profiler = StepWatch(trainer.profiler, trainer.strategy.root_device)  # type: ignore[attr-defined]

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Restore the trainer's profiler."""
        if self._watch is not None:
            trainer.profiler = self._watch.announced_to  # type: ignore[attr-defined]
            self._watch = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock until the first batch is requested."""
        assert self._watch is not None
        self._watch.is_training = self._was_interrupted = True

    on_train_start = on_train_epoch_start  # the only one of the two if a run is resumed within an epoch

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock until the next training batch is requested."""
        if self._watch is not None:
            self._watch.is_training, self._was_interrupted = False, True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure training steps again."""
        if self._watch is not None:
            self._watch.is_training = True

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Stop the clock until the next batch is requested."""
        self._was_interrupted = True

    def on_train_batch_start(self, *arguments: Any) -> None:
        """Exclude the time of an interruption between the last batch and the request for this one."""
        assert self._watch is not None
        if self._was_interrupted:
            self._left_out += self._watch.waits_since - self._ended
            self._was_interrupted = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a batch, and log at Lightning's logging steps."""
        assert self._watch is not None
        if self._is_warm:
            self._batches += 1
            self._images += len(batch[0]) * trainer.world_size
            if is_logged(trainer, batch_idx):
                self._log(trainer, pl_module, self._watch.take_seconds())
                self._start()
        else:
            self._is_warm = True
            self._watch.take_seconds()
            self._start()
        self._ended = time.perf_counter()

    def _start(self) -> None:
        self._since = time.perf_counter()
        self._left_out = 0.0
        self._images = self._batches = 0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the numbers of the epoch's last batches. A short run would log none otherwise."""
        pl_module.log_dict(self._unwritten)
        self._unwritten = {}

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule, seconds: dict[Part, float]) -> None:
        total = time.perf_counter() - self._since - self._left_out
        parts: dict[str, float] = {part: seconds[part] for part in PARTS.values()}
        parts["optimizer"] = parts.pop("batch") - parts["forward"] - parts["backward"]
        values = {
            "images_per_s": self._images / total,
            "data_wait": seconds["data"] / total,
            **{f"{part}_ms": 1000 * value / self._batches for part, value in parts.items()},
            "peak_memory_mib": peak_memory_mib(pl_module.device),
        }
        # CPU tensors: Lightning would copy plain numbers to the device and wait.
        logged = {f"speed/{name}": torch.tensor(value) for name, value in values.items()}
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every > 0 and trainer.global_step % every == 0:
            pl_module.log_dict(logged)
            self._unwritten = {}
        else:
            self._unwritten = logged
        short = {"images/s": logged["speed/images_per_s"], "data_wait": logged["speed/data_wait"]}
        pl_module.log_dict(short, prog_bar=True, logger=False)


def peak_memory_mib(device: torch.device) -> float:
    """Return the peak memory in MiB: of tensors on a GPU, otherwise of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10  # unit of `ru_maxrss`: bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
