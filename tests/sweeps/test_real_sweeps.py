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

SMALL = [
    "experiment=toy_tiny", "data.num_train=24", "data.num_val=5", "data.num_test=7", "data.side_px=96",
    "data.num_workers=0", "data.batch_size=8", "image_size=[64,64]", "trainer.check_val_every_n_epoch=1",
    "trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "sweep.name=s",
]  # fmt: skip

pytestmark = pytest.mark.slow


def start(directory: Path, *overrides: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ssd_lightning.train", *SMALL, *overrides]
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


def test_jobs_on_two_devices(tmp_path: Path) -> None:
    finish(start(tmp_path, "--multirun", "optimizer.lr=0.001,0.003", "trainer.max_epochs=1", "trainer.devices=2"))
    jobs = tmp_path / "outputs" / "toy_tiny" / "s"
    assert sorted(path.name for path in jobs.iterdir() if path.is_dir()) == ["0", "1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["datasets", "outputs"]
    for job, rate in (("0", 0.001), ("1", 0.003)):
        config = yaml.safe_load((jobs / job / "config.yaml").read_text())
        assert (config["optimizer"]["lr"], config["trainer"]["devices"]) == (rate, 2)
        checkpoint = torch.load(jobs / job / "checkpoints" / "last.ckpt", weights_only=True)
        assert checkpoint["global_step"] == 3  # 24 images, 8 in a step, 4 on each of two ranks
        assert (jobs / job / "train_ddp_process_1.log").is_file()
    assert [row["status"] for row in rows(tmp_path)] == ["finished", "finished"]
    first, second = (weights(jobs / job) for job in "01")
    assert not all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "launcher", [("joblib", "hydra.launcher.n_jobs=2"), ("submitit_local", "hydra.launcher.timeout_min=10")]
)
def test_jobs_beside_each_other(tmp_path: Path, launcher: tuple[str, str]) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{launcher[0].partition('_')[0]}_launcher")
    search = ["sweep=random", "sweep.n_trials=2", "sweep.batch_size=2", "optimizer.lr=tag(log,interval(1e-4,1e-2))"]
    overrides = [f"hydra/launcher={launcher[0]}", launcher[1], "trainer.max_epochs=1"]
    output = finish(start(tmp_path, *search, *overrides))
    table = rows(tmp_path)
    assert [(row["job"], row["status"]) for row in table] == [("0", "finished"), ("1", "finished")]
    assert len({row["optimizer.lr"] for row in table}) == 2
    assert re.search(r"best( \(2 settings are tied; the first is shown\))?: python -m ssd_lightning\.train", output)
    for job in "01":
        console = (tmp_path / "outputs" / "toy_tiny" / "s" / job / "console.txt").read_text()
        assert "training images" in console
