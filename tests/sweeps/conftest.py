import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from helpers import fake_job
from helpers.commands import run_command
from ssd_lightning.sweeps import processes, task
from ssd_lightning.sweeps.processes import Ending

Sweep = Callable[..., int]


@pytest.fixture
def sweep(sweep_of_processes: Sweep, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """As `sweep_of_processes`, with jobs in this process and without the plot, which take most of the time."""
    monkeypatch.setattr(task, "run_process", run_here)
    monkeypatch.setattr("ssd_lightning.visualization.sweep_plots.save_sweep_plot", lambda *_, **__: None)
    return sweep_of_processes


def run_here(command: Sequence[str], *, environment: Mapping[str, str], **_: Any) -> Ending:
    with pytest.MonkeyPatch.context() as patch:
        for name, text in environment.items():
            patch.setenv(name, text)
        try:
            fake_job.train(command[-1])
        except SystemExit as end:
            return Ending(1, str(end.code).removeprefix("error: "), None, False, 0.1)
    return Ending(0, "", None, False, 0.1)


@pytest.fixture
def sweep_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
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
