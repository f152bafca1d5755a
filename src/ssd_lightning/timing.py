"""Time two sides alternately: noise affects both, and the result is their ratio."""

import time
from collections.abc import Callable

import torch


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Time one call, including all work that it started on the device."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def time_pairs(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    pairs: int,
    device: torch.device,
    warmup: int = 1,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Time two functions alternately, after `warmup` untimed calls of each; each goes first in every other pair.

    Returns:
        Seconds of `ours` and of `theirs`, one per pair.
    """
    for _ in range(warmup):
        seconds_of(ours, device), seconds_of(theirs, device)
    seconds: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        for side in (0, 1) if pair % 2 == 0 else (1, 0):
            seconds[side].append(seconds_of((ours, theirs)[side], device))
    return tuple(seconds[0]), tuple(seconds[1])


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
