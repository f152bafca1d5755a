"""How fast a run is, and where the time of a step goes."""

import resource
import sys
import time
from collections import defaultdict
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import Profiler

from ssd_lightning.training.callbacks import is_looked_at

Part = Literal["data", "transfer", "forward", "backward", "batch"]

PARTS: dict[tuple[str, str], Part] = {
    ("[_TrainingEpochLoop]", "train_dataloader_next"): "data",
    ("[Strategy]", "batch_to_device"): "transfer",
    ("[Strategy]", "training_step"): "forward",
    ("[Strategy]", "backward"): "backward",
    ("", "run_training_batch"): "batch",
}
"""What Lightning calls the parts of a step, as (who does it, what): `[Strategy]DDPStrategy.backward`."""


class StepWatch(Profiler):
    """Measures the parts of training steps, which Lightning announces to its profiler alone.

    On a GPU these are events in its queue of work, which are read where the numbers are wanted and nowhere else;
    elsewhere the host's clock. Waiting for data is the host's matter everywhere.

    Args:
        announced_to: the profiler that the user asked for; it goes on hearing everything.
        device: where the network is trained.
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
        """Note the beginning of a part."""
        self.announced_to.start(action_name)
        part = part_of(action_name)
        if part == "data":
            self.waits_since = self._begun[part] = time.perf_counter()
        elif part is not None and self.is_training:
            self._begun[part] = self._now()

    def stop(self, action_name: str) -> None:
        """Note the end of a part."""
        self.announced_to.stop(action_name)
        part = part_of(action_name)
        if part is not None and part in self._begun:
            end = time.perf_counter() if part == "data" else self._now()
            self._spans.append((part, self._begun.pop(part), end))

    def take_seconds(self) -> dict[Part, float]:
        """Wait for the device, add up the parts that ended since the last call, and forget them."""
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
    """Find the part of a step that an action of Lightning is; None for all others."""
    who, bracket, what = action_name.rpartition("]")
    return PARTS.get((who + bracket, what.rpartition(".")[2]))


class Speed(pl.Callback):
    """Logs images a second, the share of time that waits for data, what a batch's parts take, and peak memory.

    Every number is over the batches since the last time. Left out are the first batch, in which libraries choose
    their kernels, and validation, checkpoints and the change of epochs. Images are those of all ranks; all else is of
    the rank that logs.
    """

    def __init__(self) -> None:
        self._watch: StepWatch | None = None
        self._is_warm = False
        self._was_interrupted = False
        self._since = self._ended = self._left_out = 0.0
        self._images = self._batches = 0
        self._unwritten: dict[str, torch.Tensor] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Listen to what Lightning announces."""
        if stage == "fit":
            self._is_warm = False
            self._watch = trainer.profiler = StepWatch(trainer.profiler, trainer.strategy.root_device)  # type: ignore[attr-defined]

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the profiler as it was."""
        if self._watch is not None:
            trainer.profiler = self._watch.announced_to  # type: ignore[attr-defined]
            self._watch = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin; a run that goes on in mid-epoch has no beginning of an epoch."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock until the first batch is asked for."""
        assert self._watch is not None
        self._watch.is_training = self._was_interrupted = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock until the next training batch is asked for."""
        if self._watch is not None:
            self._watch.is_training, self._was_interrupted = False, True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen again."""
        if self._watch is not None:
            self._watch.is_training = True

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Stop the clock until the next batch is asked for."""
        self._was_interrupted = True

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Skip what came between the last batch and the request for this one, where that was not training."""
        assert self._watch is not None
        if self._was_interrupted:
            self._left_out += self._watch.waits_since - self._ended
            self._was_interrupted = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a batch, and log where Lightning writes."""
        assert self._watch is not None
        if self._is_warm:
            self._batches += 1
            self._images += len(batch[0]) * trainer.world_size
            if is_looked_at(trainer, batch_idx):
                self._log(trainer, pl_module, self._watch.take_seconds())
                self._start(time.perf_counter())
        else:
            self._is_warm = True
            self._watch.take_seconds()
            self._start(time.perf_counter())
        self._ended = time.perf_counter()

    def _start(self, now: float) -> None:
        self._since = self._ended = now
        self._left_out = 0.0
        self._images = self._batches = 0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what the last batches of the epoch gave, which a short run would never do otherwise."""
        pl_module.log_dict(self._unwritten)
        self._unwritten = {}

    def _log(self, trainer: pl.Trainer, pl_module: pl.LightningModule, seconds: dict[Part, float]) -> None:
        total = time.perf_counter() - self._since - self._left_out
        images_per_s, data_wait = self._images / total, seconds["data"] / total
        seconds_optimizer = seconds["batch"] - seconds["forward"] - seconds["backward"]
        milliseconds = {
            "data": seconds["data"],
            "transfer": seconds["transfer"],
            "forward": seconds["forward"],
            "backward": seconds["backward"],
            "optimizer": seconds_optimizer,
        }
        values = {
            "images_per_s": images_per_s,
            "data_wait": data_wait,
            **{f"{part}_ms": 1000 * value / self._batches for part, value in milliseconds.items()},
            "peak_memory_mib": peak_memory_mib(pl_module.device),
        }
        # Tensors of the host, since Lightning would send plain numbers to the device, and wait.
        logged = {f"speed/{name}": torch.tensor(value) for name, value in values.items()}
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every > 0 and trainer.global_step % every == 0:
            pl_module.log_dict(logged)
            self._unwritten = {}
        else:
            self._unwritten = logged
        short = {"images/s": torch.tensor(images_per_s), "data_wait": torch.tensor(data_wait)}
        pl_module.log_dict(short, prog_bar=True, logger=False)


def peak_memory_mib(device: torch.device) -> float:
    """Give the most memory that tensors had on a GPU, else that this process had, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10  # of `ru_maxrss`: bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
