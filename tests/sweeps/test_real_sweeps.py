"""Sweeps through the command line that do train: two or three steps an epoch on a handful of toy images."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from helpers.commands import SMALL

pytestmark = pytest.mark.slow
for launcher in ("joblib", "submitit"):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher}_launcher")
SEARCH = ["sweep=random", "sweep.n_trials=2", "sweep.batch_size=2", "optimizer.lr=tag(log,interval(1e-4,1e-2))"]


def start(directory: Path, *overrides: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ssd_lightning.train", *SMALL, "sweep.name=s", *overrides]
    return subprocess.Popen(
        command, cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    return output


def rows(directory: Path) -> list[dict[str, str]]:
    with (directory / "outputs" / "toy_tiny" / "s" / "sweep_results.csv").open() as file:
        return list(csv.DictReader(file))


def weights(job: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(job / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def test_a_sweep_that_was_killed_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    overrides = ("--multirun", "optimizer.lr=0.001,0.003", "trainer.max_epochs=6")
    jobs = tmp_path / "outputs" / "toy_tiny" / "s"
    sweep = start(tmp_path, *overrides)
    end = time.monotonic() + 300
    while not (jobs / "1" / "objective.jsonl").is_file():  # after its first epoch
        assert sweep.poll() is None, sweep.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)
    sweep.send_signal(signal.SIGKILL)
    sweep.communicate(timeout=60)
    first = (jobs / "0" / "result.json").read_bytes()
    output = finish(start(tmp_path, *overrides))
    assert "job 0 was finished before" in output
    assert "job 1 finished" in output
    assert (jobs / "0" / "result.json").read_bytes() == first
    assert [row["status"] for row in rows(tmp_path)] == ["finished", "finished"]
    finish(start(tmp_path, "optimizer.lr=0.003", "trainer.max_epochs=6", "hydra.run.dir=straight"))
    straight, swept = weights(tmp_path / "straight"), weights(jobs / "1")
    assert all(torch.equal(straight[name], swept[name]) for name in straight)


@pytest.mark.parametrize(
    ("settings", "launched"),
    [
        (["--multirun", "optimizer.lr=0.001,0.003", "trainer.devices=2"], False),
        ([*SEARCH, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"], True),
        ([*SEARCH, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"], True),
    ],
    ids=["two devices", "joblib", "submitit"],
)
def test_jobs_on_two_devices_and_beside_each_other(tmp_path: Path, settings: list[str], launched: bool) -> None:
    output = finish(start(tmp_path, *settings, "trainer.max_epochs=1"))
    jobs = tmp_path / "outputs" / "toy_tiny" / "s"
    table = rows(tmp_path)
    assert [(row["job"], row["status"]) for row in table] == [("0", "finished"), ("1", "finished")]
    assert re.search(r"best( \(2 settings are tied; the first is shown\))?: python -m ssd_lightning\.train", output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["datasets", "outputs"]
    for row in table:
        job = jobs / row["job"]
        config = yaml.safe_load((job / "config.yaml").read_text())
        assert config["optimizer"]["lr"] == float(row["optimizer.lr"])
        # 24 images, 8 in a step, 4 of them on each of two ranks
        assert torch.load(job / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
        assert (job / "train_ddp_process_1.log").is_file() != launched
        assert not launched or "training images" in (job / "console.txt").read_text()
    first, second = (weights(jobs / job) for job in "01")
    assert not all(torch.equal(first[name], second[name]) for name in first)
