"""Time two sides alternately: noise affects both, and the result is their ratio."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Comparison:
    """Measurements of this project and its peer for the same work, pair by pair.

    Args:
        part: measured part, e.g. "loss".
        setting: conditions, e.g. "batch 32, 8732 priors, 20 classes".
        peer: name of the other side.
        ours: one measurement per pair, in `unit`.
        theirs: measurements of the peer, in the same order.
        unit: unit of the measurements: "s", "MiB", or anything "/s", where more is better.
        bar: target of the ratio; None if there is no target.
        at_most: the ratio is a cost that should be at most `bar`.
        note: extra information, e.g. that both sides gave the same result.
    """

    part: str
    setting: str
    peer: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    unit: str = "s"
    bar: float | None = None
    at_most: bool = False
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """How many times better this project is, per pair; with `at_most`, its fraction of the peer's cost."""
        ours_over_theirs = self.at_most or self.unit.endswith("/s")
        pairs = zip(self.ours, self.theirs, strict=True)
        return sorted(ours / theirs if ours_over_theirs else theirs / ours for ours, theirs in pairs)

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios."""
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None without one."""
        if self.bar is None:
            return None
        return self.ratio <= self.bar if self.at_most else self.ratio >= self.bar

    def as_record(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return {
            "part": self.part,
            "setting": self.setting,
            "peer": self.peer,
            "unit": self.unit,
            "ours": list(self.ours),
            "theirs": list(self.theirs),
            "ratio": self.ratio,
            "ratios": self.ratios,
            "bar": self.bar,
            "at_most": self.at_most,
            "met": self.met,
            "note": self.note,
        }


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
    """Time two functions alternately; each goes first in every other pair.

    Args:
        ours: the work of this project.
        theirs: the same work of the peer.
        pairs: number of timings of each.
        device: device to synchronise before the clock is read.
        warmup: number of untimed calls of each.

    Returns:
        Seconds of `ours` and of `theirs`, one per pair.
    """
    for _ in range(warmup):
        seconds_of(ours, device), seconds_of(theirs, device)
    seconds: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        order = (0, 1) if pair % 2 == 0 else (1, 0)
        for side in order:
            seconds[side].append(seconds_of((ours, theirs)[side], device))
    return tuple(seconds[0]), tuple(seconds[1])


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
