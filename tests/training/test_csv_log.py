import csv
from pathlib import Path

from ssd_lightning.training._compat import GrowingCSVLogger
from ssd_lightning.training.fault_tolerance.resumption import keep_rows


def logger(folder: Path) -> GrowingCSVLogger:
    return GrowingCSVLogger(save_dir=folder, name="", version="")


def rows(folder: Path) -> list[dict]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write(folder: Path) -> None:
    log = logger(folder)
    for step in range(4):
        log.log_metrics({"loss": step / 2}, step=step)
    log.log_metrics({"val/map": 0.5}, step=3)
    log.save()


def test_a_log_goes_on(tmp_path: Path) -> None:
    write(tmp_path)
    again = logger(tmp_path)
    again.log_metrics({"loss": 9.0, "new": 1.0}, step=4)
    again.save()
    assert [row["loss"] for row in rows(tmp_path)] == ["0.0", "0.5", "1.0", "1.5", "", "9.0"]
    assert [row["new"] for row in rows(tmp_path)] == ["", "", "", "", "", "1.0"]


def test_what_comes_again_is_cut_off(tmp_path: Path) -> None:
    write(tmp_path)
    keep_rows(tmp_path / "metrics.csv", steps=4, with_last_validation=True)
    assert len(rows(tmp_path)) == 5
    keep_rows(tmp_path / "metrics.csv", steps=4, with_last_validation=False)
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2", "3"]
    keep_rows(tmp_path / "metrics.csv", steps=2, with_last_validation=True)
    assert [row["loss"] for row in rows(tmp_path)] == ["0.0", "0.5"]


def test_a_line_that_was_cut_off_and_the_end_of_a_run_come_again_too(tmp_path: Path) -> None:
    log = logger(tmp_path)
    log.log_metrics({"loss": 1.0}, step=0)
    log.log_metrics({"test/map": 0.25}, step=1)
    log.save()
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("0.3")
    keep_rows(tmp_path / "metrics.csv", steps=9, with_last_validation=True)
    assert [row["loss"] for row in rows(tmp_path)] == ["1.0"]


def test_a_run_without_a_log_has_none(tmp_path: Path) -> None:
    keep_rows(tmp_path / "metrics.csv", steps=9, with_last_validation=True)
    assert list(tmp_path.iterdir()) == []
