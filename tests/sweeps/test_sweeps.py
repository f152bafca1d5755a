"""Whole sweeps with jobs that only pretend to train, in this process or as real processes."""

import csv
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

import pytest

from helpers.fake_job import objective

Sweep = Callable[..., int]
FEW = ("experiment=toy_tiny", "trainer.max_epochs=2")


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "sweep_results.csv").open() as file:
        return list(csv.DictReader(file))


def only_sweep(tmp_path: Path, name: str = "toy_tiny") -> Path:
    (found,) = (tmp_path / "outputs" / name).glob("sweep_*")
    return found


def epochs(sweep: Path) -> list[int]:
    return [len(path.read_text().split()) for path in sorted(sweep.glob("*/checkpoints/epochs.txt"))]


def wandb_variables(sweep: Path) -> dict[str, list[str]]:
    """What the jobs told W&B by their environment."""
    jobs = [json.loads(path.read_text())["environment"] for path in sorted(sweep.glob("*/result.json"))]
    return {name: [job[f"WANDB_{name}"] for job in jobs] for name in ("RUN_GROUP", "JOB_TYPE", "NAME", "TAGS")}


def mean_and_deviation(lr: float, seeds: int) -> str:
    values = [objective(lr, seed, epoch=1) for seed in range(seeds)]
    return f"{fmean(values):.4f} +- {stdev(values):.4f}"


def test_a_grid_with_seeds(sweep_of_processes: Sweep, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert sweep_of_processes("--multirun", *FEW, "optimizer.lr=1e-3,3e-3", "seed=0,1", "sweep.name=rates") == 0
    directory = tmp_path / "outputs" / "toy_tiny" / "rates"
    table = rows(directory)
    assert [(row["job"], row["optimizer.lr"], row["seed"]) for row in table] == [
        ("0", "0.001", "0"), ("1", "0.001", "1"), ("2", "0.003", "0"), ("3", "0.003", "1"),
    ]  # fmt: skip
    for row in table:
        expected = objective(float(row["optimizer.lr"]), int(row["seed"]), epoch=1)
        assert float(row["val/map_11point"]) == pytest.approx(expected)
        assert float(row["val/map_area"]) == pytest.approx(expected + 0.1)
        assert (row["status"], row["reason"], row["directory"]) == ("finished", "", row["job"])
    assert not {"val/ap_11point/disk", "train/loss"} & table[0].keys()
    printed = capfd.readouterr().out
    assert mean_and_deviation(0.003, seeds=2) in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("best: ")]
    assert line == f"best: python -m ssd_lightning.train {' '.join(FEW)} optimizer.lr=0.003"
    assert (directory / "sweep_results.png").stat().st_size > 5000
    assert wandb_variables(directory) == {
        "RUN_GROUP": ["rates"] * 4, "JOB_TYPE": ["optimizer.lr=0.001"] * 2 + ["optimizer.lr=0.003"] * 2,
        "NAME": [f"rates/{job}" for job in range(4)], "TAGS": ["rates"] * 4,
    }  # fmt: skip

    another = ("optimizer.lr=5e-3", "sweep.name=rates")  # in the same directory
    assert sweep_of_processes("--multirun", *FEW, *another) == 2
    assert "outputs/toy_tiny/rates contains another sweep" in capfd.readouterr().err
    assert rows(directory) == table


def test_only_a_job_whose_settings_were_edited_is_run_again(
    sweep: Sweep, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The command line stays the same when a recipe's file is edited; its digest does not."""
    overrides = ("--multirun", *FEW, "hydra.sweep.dir='an odd=place [1]'", "optimizer.lr=1e-3,3e-3")
    assert sweep(*overrides) == 0
    directory = tmp_path / "an odd=place [1]"
    job, other = directory / "0", directory / "1"
    first, before = rows(directory), (other / "result.json").stat().st_mtime_ns
    with (job / "objective.jsonl").open("a") as file:
        file.write('{"epoch": 9, "value": 0.9}\n')
    for name in ("result.json", "job.json"):
        content = json.loads((job / name).read_text())
        (job / name).write_text(json.dumps({**content, "digest": "another"}))
    capfd.readouterr()
    assert sweep(*overrides) == 0
    printed = capfd.readouterr().out
    for said in ("job 0 was started with different settings", "job 0 finished", "job 1 was finished before"):
        assert said in printed
    assert (other / "result.json").stat().st_mtime_ns == before
    assert rows(directory) == first
    assert json.loads((job / "result.json").read_text())["digest"] != "another"
    assert epochs(directory) == [2, 2]
    assert len((job / "objective.jsonl").read_text().splitlines()) == 2


def test_a_sweep_that_was_stopped_goes_on(
    sweep_of_processes: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_EPOCH_S", "0.1")
    overrides = ("--multirun", "experiment=toy_tiny", "trainer.max_epochs=5", "optimizer.lr=1e-3,3e-3,1e-2")

    def stop_in_the_second_job() -> None:
        while not list(tmp_path.glob("outputs/*/*/1/checkpoints/epochs.txt")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_in_the_second_job, daemon=True).start()
    assert sweep_of_processes(*overrides) == 143
    directory = only_sweep(tmp_path)
    first, second = epochs(directory)
    assert first == 5
    assert 1 <= second < 5
    stopped = json.loads((directory / "1" / "job.json").read_text())
    assert stopped["status"] == "stopped"
    assert sweep_of_processes(*overrides) == 0
    assert epochs(directory) == [5, 5, 5]
    assert json.loads((directory / "1" / "job.json").read_text())["seconds"] > stopped["seconds"]


def test_a_failed_job_is_reported_and_the_others_run(
    sweep_of_processes: Sweep, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    overrides = ("--multirun", *FEW, "optimizer.lr=13,3e-3")
    assert sweep_of_processes(*overrides) == 1
    table = rows(only_sweep(tmp_path))
    assert [(row["status"], row["reason"]) for row in table] == [("failed", "13 brings bad luck"), ("finished", "")]
    assert table[0]["val/map_11point"] == ""
    printed = capfd.readouterr()
    assert "1 of the sweep's jobs failed" in printed.err
    assert "job 0" in printed.err.partition("jobs failed")[2]
    assert "optimizer.lr=0.003" in printed.out.partition("best: ")[2]


def test_a_loss_is_not_maximised(sweep: Sweep, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert sweep("--multirun", *FEW, "optimizer.lr=1e-3", "objective=val/loss_cls") == 2
    assert "objective=val/loss_cls: the highest value counts as the best" in capfd.readouterr().err
    assert not (tmp_path / "outputs").exists()


def test_an_objective_that_no_run_logs_is_named(
    sweep: Sweep, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sweep("--multirun", *FEW, "optimizer.lr=1e-3", "objective=val/mapp") == 1
    table = rows(only_sweep(tmp_path))
    assert [row["status"] for row in table] == ["failed"]
    logged = "it logged train/loss, val/map_11point, val/map_area"
    assert table[0]["reason"] == f"objective=val/mapp: the run logged no such score; {logged}"
    printed = capfd.readouterr()
    assert table[0]["reason"] in printed.err
    assert "best: " not in printed.out


def test_seeds_report_mean_and_deviation(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_TAGS", "mine")
    assert sweep(*FEW, "seeds=3") == 0
    printed = capfd.readouterr()
    assert "seeds=3: a sweep over seed=0,1,2" in printed.err
    assert mean_and_deviation(0.005, seeds=3) in printed.out
    assert "val/map_area" in printed.out
    assert [row["seed"] for row in rows(only_sweep(tmp_path))] == ["0", "1", "2"]
    told = wandb_variables(only_sweep(tmp_path))
    assert (told["RUN_GROUP"], told["JOB_TYPE"], told["TAGS"]) == (["toy_tiny"] * 3, ["train"] * 3, ["mine"] * 3)
    assert printed.out.splitlines()[-1] == f"recipe: python -m ssd_lightning.train {' '.join(FEW)}"


def test_all_jobs_lie_in_one_directory_whatever_their_names(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("--multirun", "experiment=toy_tiny,tiny_bananas", "trainer.max_epochs=1", "optimizer.lr=0.002") == 0
    table = rows(only_sweep(tmp_path, "ssd"))
    assert [row["experiment"] for row in table] == ["toy_tiny", "tiny_bananas"]
