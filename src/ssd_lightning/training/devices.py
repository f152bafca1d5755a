"""Checks of the requested devices and precision, before anything is loaded."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric.plugins.environments import LSFEnvironment, MPIEnvironment
from pytorch_lightning import Trainer
from pytorch_lightning.accelerators import AcceleratorRegistry

from ssd_lightning.checks import require_choice, require_number
from ssd_lightning.devices import choose_device
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.visualization.tables import counted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Launch:
    """Processes that an external launcher has started."""

    name: str
    here: int | None
    """Processes on each machine, if known."""
    nodes: int | None
    """Machines, if known."""


def find_launch(environment: Mapping[str, str]) -> Launch | None:
    """Detect torchrun and srun as Lightning does. None if this process starts its ranks itself."""
    if "TORCHELASTIC_RUN_ID" in environment:
        here = int(environment["LOCAL_WORLD_SIZE"])
        return Launch("torchrun", here, int(environment["WORLD_SIZE"]) // here)
    if "SLURM_NTASKS" in environment and environment.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        here_text, nodes = environment.get("SLURM_NTASKS_PER_NODE"), environment.get("SLURM_NNODES")
        return Launch("srun", None if here_text is None else int(here_text), None if nodes is None else int(nodes))
    return None


def check_launch(launch: Launch | None, *, num_devices: int, num_nodes: int) -> None:
    """Check that the launcher has started the requested number of processes.

    Too few processes would wait for the others forever. If one device is requested, several processes would train
    independently in the same directory.

    Raises:
        ConfigurationError: the numbers differ, or there are several machines and nothing says where the first one is.
    """
    if launch is None:
        is_placed = "MASTER_ADDR" in os.environ or LSFEnvironment.detect() or MPIEnvironment.detect()
        if num_nodes > 1 and not is_placed:
            raise ConfigurationError(
                f"trainer.num_nodes={num_nodes}: start this command on each machine with torchrun or srun; alone it "
                "would wait for the others"
            )
        return
    for setting, asked, started, thing in (
        ("trainer.devices", num_devices, launch.here, "a process for each of {} devices of a machine"),
        ("trainer.num_nodes", num_nodes, launch.nodes, "processes on {} machines"),
    ):
        if started is not None and started != asked:
            raise ConfigurationError(
                f"{launch.name} has started {thing.format(started)}, but {setting}={asked}: set {setting}={started}"
            )


def device_batch_size(batch_size: int, *, ranks: int, accumulate: int, images: int | None = None) -> int:
    """Return the number of images of a batch on each device.

    Args:
        batch_size: `data.batch_size`, the images of one optimiser step over all devices.
        ranks: number of devices on all machines.
        accumulate: `trainer.accumulate_grad_batches`.
        images: images in the training split, which limit the images of a step. None if not known yet.

    Raises:
        ConfigurationError: the images of a step cannot be divided evenly, there are fewer images than shares, or a
            number is invalid.
    """
    require_number("data.batch_size", batch_size, 1, whole=True)
    require_number("trainer.accumulate_grad_batches", accumulate, 1, whole=True)
    shares = ranks * accumulate
    if batch_size % shares:
        below, above = batch_size // shares * shares, -(-batch_size // shares) * shares
        of = counted(ranks, "device") + (f" x {accumulate} accumulated batches" if accumulate > 1 else "")
        raise ConfigurationError(
            f"data.batch_size={batch_size} is the number of images in one optimiser step, and {of} cannot share it "
            f"evenly; the nearest possible values: {f'{below} or ' if below else ''}{above}"
        )
    if images is not None and images < shares:
        raise ConfigurationError(
            f"there are {images} training images for {counted(ranks, 'device')} x {accumulate} accumulated batches; "
            "each needs at least one"
        )
    return (batch_size if images is None else min(batch_size, images)) // shares


def shared_batch(batch_size: int, trainer: Trainer, *, images: int) -> dict[str, int]:
    """Return how the images of an optimiser step are divided, for the record."""
    devices, accumulate = trainer.world_size, trainer.accumulate_grad_batches
    share = device_batch_size(batch_size, ranks=devices, accumulate=accumulate, images=images)
    return {
        "batch_size": share * devices * accumulate,
        "devices": devices,
        "accumulate_grad_batches": accumulate,
        "device_batch_size": share,
    }


def describe_batch(batch: Mapping[str, int]) -> str:
    """Describe the images of one optimiser step, and how they are divided."""
    text = f"{batch['batch_size']} images in each optimiser step"
    if batch["devices"] > 1:
        text += f", shared by {batch['devices']} devices"
    if batch["accumulate_grad_batches"] > 1:
        text += f", gradients of {batch['accumulate_grad_batches']} batches accumulated"
    if batch["device_batch_size"] != batch["batch_size"]:
        text += f": {batch['device_batch_size']} at a time"
    return text


def check_sync_batchnorm(sync_batchnorm: bool, device_type: str) -> None:
    """Reject `trainer.sync_batchnorm` on the CPU.

    Raises:
        ConfigurationError: it is set, and the device is a CPU.
    """
    if sync_batchnorm and device_type == "cpu":
        raise ConfigurationError(
            "trainer.sync_batchnorm=true: torch synchronises batch norm only on GPUs; on the CPU each process has its "
            "own statistics"
        )


def check_precision(precision: str, *, clips_gradients: bool, fused: bool) -> None:
    """Reject precisions that would train incorrectly.

    `bf16-true` and `16-true` round all tensors, including boxes and priors. A bfloat16 coordinate is off by one pixel
    in 500, so that different priors match. A weight cannot change by less than a few thousandths of its value.

    Float16 gradients are scaled. A fused optimiser unscales them itself, which would be after the clipping.

    Raises:
        ConfigurationError: the precision cannot be used.
    """
    if precision in ("bf16-true", "16-true"):
        mixed = precision.replace("true", "mixed")
        raise ConfigurationError(
            f"trainer.precision={precision} would round boxes, priors and weights too; trainer.precision={mixed} "
            "computes the network in half precision and keeps these in float32"
        )
    if precision in ("16", "16-mixed") and clips_gradients and fused:
        raise ConfigurationError(
            f"trainer.gradient_clip_val with trainer.precision={precision} needs optimizer.fused=false; "
            "bf16-mixed works with both"
        )


def warn_of_slow_precision(precision: str, device_type: str) -> None:
    """Warn if half precision on this CPU would be slow. `docs/performance.md` has the measured times."""
    if device_type == "cpu" and "16" in precision and torch.backends.cpu.get_cpu_capability() in ("NO AVX", "AVX2"):
        log.warning(
            "trainer.precision=%s: this CPU has no AVX-512, so half precision is about ten times slower than 32-true",
            precision,
        )


def training_device(accelerator: str) -> torch.device:
    """Return the device of a training with this `trainer.accelerator`."""
    return choose_device("cpu" if accelerator == "cpu" else "auto")


def check_devices(accelerator: str, devices: Any) -> int:
    """Count the devices that `trainer.accelerator` and `trainer.devices` ask for on this machine.

    Raises:
        ConfigurationError: there are fewer devices, or the accelerator does not exist.
    """
    kind = _resolve(accelerator)
    if kind == "cpu":
        return _check_processes(accelerator, devices)
    available = AcceleratorRegistry[kind]["accelerator"].auto_device_count()
    if _is_list(devices) or "," in str(devices):
        indices = devices.split(",") if isinstance(devices, str) else devices
        wanted = [int(index) for index in indices if index != ""]
        if not wanted:
            raise ConfigurationError(f"trainer.devices={devices} has no device; trainer.accelerator=cpu uses none")
        if max(wanted) >= available:
            raise ConfigurationError(
                f"trainer.devices={wanted}: there is no {kind} device {max(wanted)}; this machine has {available}"
            )
        return len(wanted)
    if str(devices) in ("auto", "-1"):
        return available
    if _as_number(devices) > available:
        hint = " (srun --gpus-per-task and --gpu-bind hide the other GPUs: ask for --gpus-per-node instead)"
        raise ConfigurationError(
            f"trainer.devices={devices}: this machine has {counted(available, f'{kind} device')}; set trainer.devices="
            f"{available} or trainer.accelerator=cpu{hint if 'SLURM_NTASKS' in os.environ else ''}"
        )
    return _as_number(devices)


def _check_processes(accelerator: str, devices: Any) -> int:
    wanted = 1 if str(devices) == "auto" else _as_number(devices)
    cores = os.cpu_count() or 1
    if find_launch(os.environ) is not None:
        return wanted  # the user chose the number in the launcher
    if wanted > 1 and accelerator == "auto":
        raise ConfigurationError(
            f"trainer.devices={devices}: this machine has no GPU; trainer.accelerator=cpu trains in {wanted} processes "
            "on the CPU, trainer.devices=1 in one"
        )
    if wanted > cores:
        raise ConfigurationError(f"trainer.devices={devices}: this machine has {cores} processor cores")
    return wanted


def _is_list(devices: Any) -> bool:
    return isinstance(devices, Sequence) and not isinstance(devices, str)


def _as_number(devices: Any) -> int:
    if _is_list(devices):
        raise ConfigurationError(f"trainer.devices={devices}: a list has GPUs; on the CPU give a number of processes")
    try:
        number = int(devices)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"trainer.devices={devices} is not a number, a list of indices or auto") from error
    require_number("trainer.devices", number, 1, whole=True)
    return number


def _resolve(accelerator: str) -> str:
    names = AcceleratorRegistry.available_accelerators()
    require_choice("trainer.accelerator", accelerator, ("auto", "gpu", *sorted(names)))
    if accelerator == "auto":
        return choose_device("auto").type
    kind = "cuda" if accelerator == "gpu" else accelerator
    if AcceleratorRegistry[kind]["accelerator"].is_available():
        return kind
    raise ConfigurationError(f"trainer.accelerator={accelerator}: this machine has no such device; use cpu or auto")
