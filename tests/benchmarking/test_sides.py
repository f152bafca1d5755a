import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ssd_lightning.benchmarking.sides import Side


def writes_its_process(path: Path) -> Callable[[], object]:
    made = os.getpid()
    return lambda: path.write_text(f"{path.read_text() if path.exists() else ''}{made} {os.getpid()}\n")


def fails() -> None:
    raise ValueError("no luck")


def dies() -> None:
    os._exit(3)


def made_of(work: Callable[[], object]) -> Callable[[], object]:
    return work


def test_work_is_made_once_and_done_elsewhere(tmp_path: Path) -> None:
    with Side(partial(writes_its_process, tmp_path / "seen")) as side:
        side(), side()
    first, second = (tmp_path / "seen").read_text().splitlines()
    assert first == second
    made, done = first.split()
    assert made == done != str(os.getpid())


def test_what_goes_wrong_there_is_reported_here() -> None:
    with Side(partial(made_of, fails)) as side:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="ValueError: no luck"):
                side()
    with Side(partial(made_of, dies)) as side, pytest.raises(RuntimeError, match="exit code 3"):
        side()
