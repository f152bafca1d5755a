import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from ssd_lightning import train
from ssd_lightning.sweeps import processes, task

Sweep = Callable[..., int]


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sweep]:
    """Run a command line of `train` whose jobs only pretend to train; gives the exit code."""
    fake = str(Path(__file__).parents[1] / "helpers" / "fake_job.py")
    monkeypatch.setattr(task, "job_command", lambda directory: [sys.executable, fake, str(directory / ".hydra")])
    monkeypatch.setattr(processes, "LOOK_EVERY_S", 0.05)
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_RUN_GROUP", "WANDB_JOB_TYPE", "WANDB_NAME", "WANDB_TAGS"):
        monkeypatch.delenv(name, raising=False)

    def run(*overrides: str) -> int:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["train", *overrides])
        try:
            train.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    yield run
    GlobalHydra.instance().clear()
