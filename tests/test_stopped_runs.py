"""Runs as a user starts them, stopped by signals and killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from helpers.commands import SMALL, run_command
from ssd_lightning.training.fault_tolerance.checkpoint_io import check_intact
from ssd_lightning.training.fault_tolerance.signals import SECONDS_OF_GRACE

ENDLESS = [*SMALL, "trainer.max_epochs=10000", "trainer.check_val_every_n_epoch=7", "callbacks.last.every_n_steps=2"]


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PL_GLOBAL_SEED", None)
    command = [sys.executable, "-m", "ssd_lightning.train", *overrides, "hydra.run.dir=run"]
    log = (folder / "log").open("a")
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, text=True)


def wait_for(folder: Path, process: subprocess.Popen[str], steps: int) -> None:
    last = folder / "run" / "checkpoints" / "last.ckpt"
    for _ in range(2000):
        assert process.poll() is None, (folder / "log").read_text()
        if last.exists() and torch.load(last, weights_only=True)["global_step"] >= steps:
            return
        time.sleep(0.1)
    raise AssertionError((folder / "log").read_text())


TWO_RANKS = ["trainer.devices=2", "data.batch_size=4"]


@pytest.mark.parametrize(
    ("number", "code", "overrides"),
    [
        (signal.SIGTERM, 143, ["data.num_workers=1"]),
        pytest.param(signal.SIGINT, 130, TWO_RANKS, marks=pytest.mark.slow),
        pytest.param(  # most of the time in validation, where ranks have different numbers of batches
            signal.SIGTERM,
            143,
            [*TWO_RANKS, "trainer.check_val_every_n_epoch=1", "data.num_workers=1"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_signal_ends_a_run_with_a_checkpoint_and_no_orphans(
    tmp_path: Path, number: int, code: int, overrides: list[str]
) -> None:
    process = start(tmp_path, *ENDLESS, *overrides)
    try:
        wait_for(tmp_path, process, 2)
        started = psutil.Process(process.pid).children(recursive=True)
        assert started
        process.send_signal(number)
        # Data workers would live on for all of their grace, and keep the run waiting.
        assert process.wait(SECONDS_OF_GRACE - 4) == code, (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()
    log = (tmp_path / "log").read_text()
    assert f"stopped by {signal.Signals(number).name} at step" in log
    assert "Traceback" not in log
    check_intact(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert psutil.wait_procs(started, timeout=30)[1] == []  # data workers look for their parent every few seconds


@pytest.mark.slow
@pytest.mark.parametrize(("count", "ranks"), [(2, 1), (1, 2)])
def test_killed_runs_end_as_if_they_had_not_been_killed(tmp_path: Path, count: int, ranks: int) -> None:
    tool = Path(__file__).parents[1] / "tools" / "kill_runs.py"
    command = [sys.executable, str(tool), "--folder", str(tmp_path), "--count", str(count), "--ranks", str(ranks)]
    done = subprocess.run([*command, "--seed", "1"], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"bit-identical ends {count:>25}" in done.stdout
    assert f"lost checkpoints {0:>27}" in done.stdout


@pytest.mark.slow
def test_auto_goes_on_with_the_run_of_the_same_overrides(tmp_path: Path) -> None:
    for _ in range(2):
        run_command(tmp_path, "train", *SMALL, "trainer.max_epochs=1", "resume=auto", "logger=none")
        (run,) = (tmp_path / "outputs" / "toy_tiny").iterdir()
        (run / "result.json").unlink()  # as if it had been killed before its end
