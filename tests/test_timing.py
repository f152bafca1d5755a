import pytest
import torch

from ssd_lightning import timing
from ssd_lightning.memory import peak_memory_mib
from ssd_lightning.timing import Comparison, seconds_of, time_pairs

CPU = torch.device("cpu")


def compare(ours: tuple[float, ...], theirs: tuple[float, ...], **settings: object) -> Comparison:
    return Comparison(part="p", setting="s", peer="q", ours=ours, theirs=theirs, **settings)


@pytest.mark.parametrize(
    ("settings", "ratio"),
    [
        ({}, 2.0),  # seconds: half of theirs is twice as good
        ({"unit": "images/s"}, 0.5),
        ({"at_most": True}, 0.5),  # a share of their cost
        ({"at_most": True, "unit": "MiB"}, 0.5),
    ],
)
def test_what_better_means(settings: dict[str, object], ratio: float) -> None:
    assert compare((1.0,), (2.0,), **settings).ratio == ratio


def test_the_ratio_is_the_median_of_pairs_and_not_of_sides() -> None:
    """A disturbance that lasts a pair hits both of its sides."""
    comparison = compare((1.0, 10.0, 1.0), (3.0, 20.0, 3.0))
    assert comparison.ratios == [2.0, 3.0, 3.0]
    assert comparison.ratio == 3.0


@pytest.mark.parametrize(
    ("bar", "at_most", "met"), [(2.0, False, True), (2.1, False, False), (0.5, True, True), (0.4, True, False)]
)
def test_the_bar(bar: float, at_most: bool, met: bool) -> None:
    comparison = compare((1.0,), (2.0,), bar=bar, at_most=at_most)
    assert comparison.met is met
    assert comparison.as_record()["met"] is met
    assert compare((1.0,), (2.0,)).met is None


def test_sides_take_turns_and_the_warm_up_does_not_count() -> None:
    calls: list[str] = []
    ours, theirs = time_pairs(
        lambda: calls.append("ours"), lambda: calls.append("theirs"), pairs=3, device=CPU, warmup=2
    )
    assert calls == ["ours", "theirs"] * 2 + ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert len(ours) == len(theirs) == 3


def test_time_is_that_of_its_own_side(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    ours, theirs = time_pairs(lambda: clock.go(1.0), lambda: clock.go(4.0), pairs=3, device=CPU)
    assert (ours, theirs) == ((1.0,) * 3, (4.0,) * 3)
    assert seconds_of(lambda: clock.go(2.0), CPU) == 2.0


def test_time_ends_with_the_work_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there before does not count; what was started does."""
    clock, queue = Clock(), [8.0]
    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(timing, "synchronize", lambda device: [clock.go(queue.pop()) for _ in list(queue)])
    assert seconds_of(lambda: queue.append(2.0), CPU) == 2.0
    assert clock.perf_counter() == 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def go(self, seconds: float) -> None:
        self.now += seconds


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
