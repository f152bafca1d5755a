"""Runs as a user starts them, stopped by signals and killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from helpers.commands import SMALL
from ssd_lightning.training.fault_tolerance.checkpoint_io import check_intact
from ssd_lightning.training.fault_tolerance.signals import SECONDS_OF_GRACE

TOOLS = Path(__file__).parents[1] / "tools"
ENDLESS = [*SMALL, "trainer.max_epochs=10000", "trainer.check_val_every_n_epoch=7", "callbacks.last.every_n_steps=2"]


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PL_GLOBAL_SEED", None)
    command = [sys.executable, "-m", "ssd_lightning.train", *overrides, "hydra.run.dir=run"]
    log = (folder / "log").open("a")
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, text=True)


def descendants(process: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        children += map(int, (task / "children").read_text().split())
    return children + [grandchild for child in children for grandchild in descendants(child)]


def lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(folder: Path, process: subprocess.Popen[str], steps: int) -> None:
    last = folder / "run" / "checkpoints" / "last.ckpt"
    for _ in range(2000):
        assert process.poll() is None, (folder / "log").read_text()
        if last.exists() and torch.load(last, weights_only=True)["global_step"] >= steps:
            return
        time.sleep(0.1)
    raise AssertionError((folder / "log").read_text())


@pytest.mark.parametrize(
    ("number", "code", "overrides"),
    [
        (signal.SIGTERM, 143, ["data.num_workers=1"]),
        pytest.param(signal.SIGTERM, 143, ["trainer.devices=2", "data.batch_size=4"], marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, [], marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, ["trainer.devices=2", "data.batch_size=4"], marks=pytest.mark.slow),
        pytest.param(  # most of the time in validation, where ranks have different numbers of batches
            signal.SIGTERM,
            143,
            ["trainer.devices=2", "trainer.check_val_every_n_epoch=1", "data.num_workers=1"],
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
        started = descendants(process.pid)
        assert started or not overrides
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
    for _ in range(300):  # data workers look for their parent every few seconds
        if not any(map(lives, started)):
            break
        time.sleep(0.1)
    assert not any(map(lives, started))


def kill_runs(tmp_path: Path, *overrides: str) -> str:
    command = [sys.executable, str(TOOLS / "kill_runs.py"), "--folder", str(tmp_path), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("count", "more"), [(2, ("--seed", "1")), (1, ("--ranks", "2"))])
def test_killed_runs_end_as_if_they_had_not_been_killed(tmp_path: Path, count: int, more: tuple[str, ...]) -> None:
    printed = kill_runs(tmp_path, "--count", str(count), *more)
    assert f"bit-identical ends {count:>25}" in printed
    assert f"lost checkpoints {0:>27}" in printed


@pytest.mark.slow
def test_auto_goes_on_by_the_same_overrides_and_then_has_nothing_to_do(tmp_path: Path) -> None:
    overrides = [*SMALL, "trainer.max_epochs=3", "resume=auto", "hydra.run.dir=run"]
    command = [sys.executable, "-m", "ssd_lightning.train", *[word for word in overrides if "run.dir" not in word]]
    for _ in range(2):
        subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    runs = list((tmp_path / "outputs" / "toy_tiny").iterdir())
    assert len(runs) == 2  # the first is over, so the second is a new one
    (runs[0] / "result.json").unlink()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"run in {runs[0].resolve()}" in done.stdout + done.stderr
    assert (runs[0] / "result.json").is_file()
