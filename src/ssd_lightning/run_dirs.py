"""Which directory a run lies in. Imports no torch: Hydra asks before anything is loaded."""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from ssd_lightning.overrides import repeated_run
from ssd_lightning.run_files import RECORD, RESULT

_chosen: dict[tuple[str, bool], str] = {}


def register_run_dirs() -> None:
    """Let configurations say `${run_dir:NAME,RESUME}`."""
    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)


def run_dir(name: str, resume: str | None, *, _root_: DictConfig) -> str:
    """Choose the directory of a run: a new one, or with `resume=auto` that of the run it goes on with.

    Gone on with is the newest run under `outputs/NAME` that was begun by the same command line and is
    not over. Jobs that SLURM or torchrun have started again go on by themselves.

    Args:
        name: of the experiment.
        resume: setting of that name.
        _root_: the whole configuration, of which the command line is read.
    """
    goes_on = resume == "auto" or is_restarted()
    if (name, goes_on) not in _chosen:
        folder = Path("outputs") / name
        overrides = list(_root_.hydra.overrides.task)
        found = newest_unfinished(folder, overrides) if goes_on else None
        _chosen[name, goes_on] = str(found or unused(folder / started_at(os.environ)))
    return _chosen[name, goes_on]


def unused(folder: Path) -> Path:
    """Number a directory that is named after its second where another run began in that second."""
    if not folder.name[0].isdigit() or "TORCHELASTIC_RUN_ID" in os.environ:  # whose ranks have to meet in one
        return folder
    number, free = 2, folder
    while free.exists():
        number, free = number + 1, folder.with_name(f"{folder.name}_{number}")
    return free


def is_restarted() -> bool:
    """Say whether SLURM or torchrun have started this process before."""
    counts = (os.environ.get(name, "0") for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))
    return any(count.isdigit() and int(count) > 0 for count in counts)


def newest_unfinished(folder: Path, overrides: Sequence[str]) -> Path | None:
    """Find the newest run in a folder that was begun by the same overrides and is not over; None if there is none.

    Args:
        folder: of run directories.
        overrides: of the command line; their order counts for nothing, nor does `resume`.
    """
    wanted = _deciding(overrides)
    return next((run for run in _unfinished(folder) if _deciding(_overrides_of(run)) == wanted), None)


def why_new(run: Path, overrides: Sequence[str]) -> str:
    """Say which unfinished run beside a new one `resume=auto` did not take, and for which overrides.

    Args:
        run: directory of the new one.
        overrides: of the command line.
    """
    others = [other for other in _unfinished(run.parent) if other.resolve() != run.resolve()]
    if not others:
        return f"no run in {run.parent} waits for its end"
    theirs, ours = (set(_deciding(found)) for found in (_overrides_of(others[0]), overrides))
    missing, new = (" ".join(sorted(overrides)) or "nothing" for overrides in (theirs - ours, ours - theirs))
    return f"{others[0]} is not over, but was begun with {missing} where this command has {new}"


def _unfinished(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    # A command that was refused leaves a directory, but no record.
    runs = sorted((path for path in folder.iterdir() if (path / RECORD).is_file()), key=_age)
    repeated = repeated_run()
    wanted = str(repeated) if repeated else None
    return [run for run in runs if not (run / RESULT).is_file() and _repeats(run) == wanted]


def _repeats(run: Path) -> str | None:
    """Name the run that a run repeats: `--config-path` is no override."""
    try:
        record = json.loads((run / RECORD).read_text())
    except (OSError, ValueError):
        return None
    return record.get("repeats") if isinstance(record, dict) else None


def _age(run: Path) -> tuple[float, str]:
    begun = run / ".hydra"
    return (-begun.stat().st_mtime if begun.is_dir() else 0.0, run.name)


def _deciding(overrides: Sequence[str]) -> list[str]:
    return sorted(override for override in overrides if not override.lstrip("+").startswith(("resume=", "hydra.")))


def _overrides_of(run: Path) -> list[str]:
    try:
        overrides: Any = OmegaConf.to_container(OmegaConf.load(run / ".hydra" / "overrides.yaml"))
    except (OSError, ValueError, YAMLError):
        return []
    return [str(override) for override in overrides] if isinstance(overrides, list) else []


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


def command_start(*programs: str) -> float:
    """Give when a command began, in seconds of `time.monotonic`: with its process, or now if that runs something else.

    Args:
        programs: names that the command has as the program of a process: of its module, of its script.
    """
    now, main = time.monotonic(), sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    program = Path(getattr(main, "__file__", None) or "").name if spec is None else spec.name
    since_boot = _start_since_boot(os.getpid())
    if program not in programs or since_boot is None or not hasattr(time, "CLOCK_BOOTTIME"):
        return now
    return now - max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)


def _start_of(process: int) -> float | None:
    """Give the time when a process was started, in seconds since 1970, where Linux tells."""
    since_boot = _start_since_boot(process)
    if since_boot is None:
        return None
    lines = Path("/proc/stat").read_text().splitlines()
    return since_boot + next(int(line.split()[1]) for line in lines if line.startswith("btime"))


def _start_since_boot(process: int) -> float | None:
    try:
        # The name of the program stands in brackets and may hold blanks; the start is the 22nd entry.
        ticks = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
    return ticks / os.sysconf("SC_CLK_TCK")
