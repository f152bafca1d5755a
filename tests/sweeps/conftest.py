import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.commands import run_command
from ssd_lightning.sweeps import processes, task

Sweep = Callable[..., int]


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Run a command line of `train` whose jobs only pretend to train; gives the exit code."""
    fake = str(Path(__file__).parents[1] / "helpers" / "fake_job.py")
    monkeypatch.setattr(task, "job_command", lambda directory: [sys.executable, fake, str(directory / ".hydra")])
    monkeypatch.setattr(processes, "LOOK_EVERY_S", 0.05)
    for name in ("WANDB_RUN_GROUP", "WANDB_JOB_TYPE", "WANDB_NAME", "WANDB_TAGS"):
        monkeypatch.delenv(name, raising=False)

    def run(*overrides: str) -> int:
        try:
            run_command(tmp_path, "train", *overrides)
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return run
