"""Which directory a run lies in. Imports no torch: Hydra asks before anything is loaded."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from ssd_lightning.run_files import RESULT

_chosen: dict[tuple[str, bool], str] = {}


def register_run_dirs() -> None:
    """Let configurations say `${run_dir:NAME,RESUME}`."""
    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)


def run_dir(name: str, resume: str | None, *, _root_: DictConfig) -> str:
    """Choose the directory of a run: a new one, or with `resume=auto` that of the run it goes on with.

    Gone on with is the newest run under `outputs/NAME` that was begun by the same words of the command line and is
    not over. Jobs that SLURM or torchrun have started again go on by themselves.

    Args:
        name: of the experiment.
        resume: setting of that name.
        _root_: the whole configuration, of which the command line is read.
    """
    goes_on = resume == "auto" or is_restarted()
    if (name, goes_on) not in _chosen:
        folder = Path("outputs") / name
        words = list(_root_.hydra.overrides.task)
        found = newest_unfinished(folder, words) if goes_on else None
        _chosen[name, goes_on] = str(found or folder / started_at(os.environ))
    return _chosen[name, goes_on]


def is_restarted() -> bool:
    """Say whether SLURM or torchrun have started this process before."""
    counts = (os.environ.get(name, "0") for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))
    return any(count.isdigit() and int(count) > 0 for count in counts)


def newest_unfinished(folder: Path, words: Sequence[str]) -> Path | None:
    """Find the newest run in a folder that was begun by the same words and is not over; None if there is none.

    Args:
        folder: of run directories.
        words: of the command line; their order counts for nothing, nor does `resume`.
    """
    if not folder.is_dir():
        return None
    runs = sorted((path for path in folder.iterdir() if (path / ".hydra").is_dir()), key=_age)
    wanted = _deciding(words)
    for run in runs:
        if not (run / RESULT).is_file() and _deciding(_words_of(run)) == wanted:
            return run
    return None


def _age(run: Path) -> tuple[float, str]:
    return (-(run / ".hydra").stat().st_mtime, run.name)


def _deciding(words: Sequence[str]) -> list[str]:
    return sorted(word for word in words if not word.lstrip("+").startswith(("resume=", "hydra.")))


def _words_of(run: Path) -> list[str]:
    try:
        words: Any = OmegaConf.to_container(OmegaConf.load(run / ".hydra" / "overrides.yaml"))
    except (OSError, ValueError, YAMLError):
        return []
    return [str(word) for word in words] if isinstance(words, list) else []


def started_at(environment: Mapping[str, str]) -> str:
    """Name a new run's directory: the same on all ranks that were started together.

    Args:
        environment: variables of this process. Under SLURM the name is that of the job's step, which it keeps when it
            is started again; under torchrun the time when torchrun was started; else the time.
    """
    if "SLURM_JOB_ID" in environment and "SLURM_STEP_ID" in environment:
        array = environment.get("SLURM_ARRAY_JOB_ID")
        job = f"{array}_{environment.get('SLURM_ARRAY_TASK_ID')}" if array else environment["SLURM_JOB_ID"]
        return f"slurm_{job}_{environment['SLURM_STEP_ID']}"
    seconds = _start_of(os.getppid()) if "TORCHELASTIC_RUN_ID" in environment else None
    return time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(seconds))


def _start_of(process: int) -> float | None:
    """Give the time when a process was started, in seconds since 1970, where Linux tells."""
    try:
        # The name of the program stands in brackets and may hold blanks; the start is the 22nd entry.
        ticks = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
        lines = Path("/proc/stat").read_text().splitlines()
    except (OSError, ValueError, IndexError):
        return None
    booted = next(int(line.split()[1]) for line in lines if line.startswith("btime"))
    return booted + ticks / os.sysconf("SC_CLK_TCK")
