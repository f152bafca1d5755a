import pytest
import torch

from helpers.clock import Clock
from ssd_lightning import timing
from ssd_lightning.memory import peak_memory_mib
from ssd_lightning.timing import seconds_of, time_pairs

CPU = torch.device("cpu")


def test_sides_take_turns_and_the_warm_up_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = Clock(), []
    monkeypatch.setattr(timing, "time", clock)

    def work(seconds: float) -> None:
        calls.append(seconds)
        clock.go(seconds)

    ours, theirs = time_pairs(lambda: work(1.0), lambda: work(4.0), pairs=3, device=CPU, warmup=2)
    assert calls == [1, 4] * 2 + [1, 4, 4, 1, 1, 4]
    assert (ours, theirs) == ((1.0,) * 3, (4.0,) * 3)


def test_time_ends_with_the_work_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there before does not count; what was started does."""
    clock, queue = Clock(), [8.0]
    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(timing, "synchronize", lambda device: [clock.go(queue.pop()) for _ in list(queue)])
    assert seconds_of(lambda: queue.append(2.0), CPU) == 2.0
    assert clock.perf_counter() == 10.0


def test_peak_memory_counts_what_is_held_together() -> None:
    mib = 1 << 18  # float32 numbers

    def two_of_three() -> None:
        first = torch.zeros(mib)
        second = first + 1
        del first
        third = second + 1
        del second, third

    assert peak_memory_mib(two_of_three, CPU) == pytest.approx(2, rel=0.01)
    assert peak_memory_mib(lambda: None, CPU) == 0


def test_a_device_that_tells_no_peak_gives_none() -> None:
    assert peak_memory_mib(lambda: None, torch.device("mps")) is None
