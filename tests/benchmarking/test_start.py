import csv
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ssd_lightning.benchmarking import start
from ssd_lightning.benchmarking.start import FIRST_STEP, PEER, compare_start


def word_of(arguments: list[str]) -> str:
    """Say which of the three processes a command line is."""
    return "help" if "--help" in arguments else "run" if FIRST_STEP[0] in arguments else "peer"


def test_each_process_has_its_own_time_and_comes_first_in_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def timed(work: Callable[[], object], device: object) -> float:
        work()
        return {"help": 1.0, "run": 6.0, "peer": 5.0}[started[-1]]

    def run(arguments: list[str], **settings: object) -> subprocess.CompletedProcess:
        started.append(word_of(arguments))
        return subprocess.CompletedProcess(arguments, 0)

    monkeypatch.setattr(start.subprocess, "run", run)
    monkeypatch.setattr(start, "seconds_of", timed)
    quick, first_step = compare_start(pairs=3, folder=tmp_path)
    assert started[:3] == ["help", "run", "peer"]  # the warm-up
    assert [started[index] for index in (3, 6, 9)] == ["help", "run", "peer"]
    assert all(started.count(word) == 4 for word in ("help", "run", "peer"))
    assert (quick.ours, first_step.ours) == ((1.0,) * 3, (6.0,) * 3)
    assert quick.theirs == first_step.theirs == (5.0,) * 3
    assert (quick.bar, first_step.bar) == (0.25, 1.5)
    assert quick.at_most
    assert first_step.at_most
    assert quick.peer == first_step.peer == PEER


@pytest.mark.slow
def test_the_run_that_is_timed_makes_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "seconds_of", lambda work, device: 1.0)  # the warm-up runs each of them
    compare_start(pairs=1, folder=tmp_path)
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["loss"] and float(row["loss"]) > 0] == ["0"]
