from pathlib import Path

import pytest

from ssd_lightning.sweeps.records import FINISHED, JobRecord
from ssd_lightning.sweeps.summary import best_commands, result_table, short


def job(number: int, lr: str, objective: float) -> tuple[Path, JobRecord]:
    record = JobRecord(number, [f"optimizer.lr={lr}"], "digest")
    record.status, record.objective = FINISHED, objective
    return Path(str(number)), record


def test_equal_settings_are_all_named() -> None:
    jobs = [job(0, "0.1", 0.25), job(1, "0.2", 0.5), job(2, "0.3", 0.5)]
    train = "python -m ssd_lightning.train optimizer.lr="
    assert best_commands(jobs, ["optimizer.lr"]) == [f"{train}0.2", f"{train}0.3"]
    assert best_commands([], ["optimizer.lr"]) == []


def test_a_number_that_a_search_drew_fits_its_column() -> None:
    jobs = [job(0, "0.0012345678901234", 0.25)]
    assert result_table(jobs, ["optimizer.lr"], "val/map").rows[0][1] == "0.001235"


@pytest.mark.parametrize("value", ["0.001", "1e-3", "a long word that is none", "[1, 2, 3, 4]", ""])
def test_other_values_stay(value: str) -> None:
    assert short(value) == value
