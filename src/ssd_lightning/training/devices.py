"""How many devices a run asks for, checked before anything is loaded."""

import os
from typing import Any

import torch
from pytorch_lightning.accelerators import AcceleratorRegistry

from ssd_lightning.errors import ConfigurationError


def check_devices(accelerator: str, devices: Any) -> int:
    """Count the devices that `trainer.accelerator` and `trainer.devices` ask for on this machine.

    Raises:
        ConfigurationError: there are not so many, or there is no such accelerator.
    """
    kind = _resolve(accelerator)
    if kind == "cpu":
        return _check_processes(accelerator, devices)
    available = AcceleratorRegistry[kind]["accelerator"].auto_device_count()
    if isinstance(devices, (list, tuple)) or "," in str(devices):
        wanted = [
            int(index) for index in (devices if not isinstance(devices, str) else devices.split(",")) if index != ""
        ]
        too_large = [index for index in wanted if index >= available]
        if too_large:
            raise ConfigurationError(
                f"trainer.devices={wanted}: there is no {kind} device {too_large[0]}; this machine has {available}"
            )
        return len(wanted)
    if str(devices) in ("auto", "-1"):
        return available
    if _as_number(devices) > available:
        raise ConfigurationError(
            f"trainer.devices={devices}: this machine has {available} {kind} "
            f"device{'' if available == 1 else 's'}; set trainer.devices={available} or trainer.accelerator=cpu"
        )
    return int(devices)


def _check_processes(accelerator: str, devices: Any) -> int:
    wanted = 1 if str(devices) == "auto" else _as_number(devices)
    cores = os.cpu_count() or 1
    if wanted > 1 and accelerator == "auto":
        raise ConfigurationError(
            f"trainer.devices={devices}: this machine has no GPU; trainer.accelerator=cpu trains in {wanted} processes "
            "on the processor, trainer.devices=1 in one"
        )
    if wanted > cores:
        raise ConfigurationError(f"trainer.devices={devices}: this machine has {cores} processor cores")
    return wanted


def _as_number(devices: Any) -> int:
    try:
        return int(devices)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"trainer.devices={devices} is neither a number, a list of indices nor auto"
        ) from error


def choose_device(device: str) -> torch.device:
    """Find the device that a command asks for; `auto` is the first GPU, else the processor.

    Raises:
        ConfigurationError: this machine has no such device.
    """
    if device == "auto":
        kind = _resolve("auto")
        return torch.device(kind if kind in ("cuda", "mps") else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"device={device}: this machine has no such device ({reason})") from error
    return chosen


def _resolve(accelerator: str) -> str:
    names = AcceleratorRegistry.available_accelerators()
    kind = {"gpu": "cuda"}.get(accelerator, accelerator)
    order = ("cuda", "mps", "tpu") if kind == "auto" else (kind,)
    for name in order:
        if name == "cpu":
            return "cpu"
        if name in names and AcceleratorRegistry[name]["accelerator"].is_available():
            return name
    if kind == "auto":
        return "cpu"
    if kind not in names:
        raise ConfigurationError(
            f"there is no trainer.accelerator={accelerator}; there is auto, gpu, {', '.join(names)}"
        )
    raise ConfigurationError(f"trainer.accelerator={accelerator}: this machine has no such device; use cpu or auto")
