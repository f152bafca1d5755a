"""Choose the directory of a run. This module does not import torch, since Hydra calls it first."""

import itertools
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ssd_lightning.command_line import CommandLine
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.run_files import RECORD, RESULT, read_json

_chosen: dict[tuple[str, bool], str] = {}
_unused: set[str] = set()
"""Those chosen because they did not exist."""


class RunDirectory(Callback):
    """Creates the directory of a training before Hydra writes its own files there, see `create_run_dir`."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Create the directory. Other ranks and commands, which compose the same settings, have other job names."""
        from ssd_lightning.run_command import exit_at_user_errors  # imports this module

        if config.hydra.job.name == "train" and os.environ.get("LOCAL_RANK", "0") == "0":
            HydraConfig.instance().set_config(config)
            with suppress(OmegaConfBaseException), exit_at_user_errors():  # Hydra reports what cannot be resolved
                create_run_dir(config)


def create_run_dir(config: DictConfig) -> Path:
    """Create `hydra.run.dir`. A directory that was chosen because it did not exist is not shared with another process.

    Raises:
        ConfigurationError: it cannot be created, or it holds a run that this one would replace.
    """
    directory = Path(config.hydra.run.dir)
    try:
        directory.mkdir(parents=True, exist_ok=str(directory) not in _unused)
    except OSError as error:
        if isinstance(error, FileExistsError) and str(directory) in _unused:  # a run that began at the same time
            _chosen.clear()
            _unused.clear()
            return create_run_dir(config)
        reason = f"{error.filename}: {error.strerror}"
        raise ConfigurationError(f"the run directory {directory} cannot be created: {reason}") from error
    resume = config.get("resume")
    goes_on = resume == "auto" or is_restarted() or (resume and directory.resolve() in _with_parents(Path(str(resume))))
    if not goes_on and ((directory / RESULT).is_file() or any((directory / "checkpoints").glob("*.ckpt"))):
        raise ConfigurationError(
            f"{directory} already holds a run, which this one would replace: resume=auto continues it; for a new run "
            "give another hydra.run.dir=, or delete it first"
        )
    return directory


def _with_parents(path: Path) -> list[Path]:
    return [path.resolve(), *path.resolve().parents]


def run_dir(name: str, resume: str | None, *, _root_: DictConfig) -> str:
    """Resolve `${run_dir:NAME,RESUME}`: a new directory, or with `resume=auto` that of the run to continue.

    `resume=auto` continues the newest unfinished run under `outputs/NAME` that was started with the same command
    line. Jobs that SLURM or torchrun restarted continue automatically. `_root_` contains the command line.
    """
    goes_on = resume == "auto" or is_restarted()
    if (name, goes_on) not in _chosen:
        folder = Path("outputs") / name
        overrides: Any = OmegaConf.to_container(_root_.hydra.overrides.task)  # as written, with their references
        found = newest_unfinished(folder, overrides) if goes_on else None
        _chosen[name, goes_on] = str(found or unused(folder / started_at(os.environ)))
    return _chosen[name, goes_on]


def unused(folder: Path) -> Path:
    """Append a number to a timestamped directory if another run started in the same second."""
    if not folder.name[0].isdigit() or "TORCHELASTIC_RUN_ID" in os.environ:  # its ranks must share one
        return folder
    numbered = (folder.with_name(f"{folder.name}_{number}") for number in itertools.count(2))
    found = next(path for path in itertools.chain([folder], numbered) if not path.exists())
    _unused.add(str(found))
    return found


def is_restarted() -> bool:
    """Tell whether SLURM or torchrun has restarted this process."""
    counts = (os.environ.get(name, "0") for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))
    return any(count.isdigit() and int(count) > 0 for count in counts)


def newest_unfinished(folder: Path, overrides: Sequence[str]) -> Path | None:
    """Find the newest unfinished run in a folder that was started with the same overrides, in any order."""
    wanted = _deciding(overrides)
    return next((run for run in _unfinished(folder) if _deciding(_overrides_of(run)) == wanted), None)


def why_new(run: Path, overrides: Sequence[str]) -> str:
    """Explain why `resume=auto` did not continue an unfinished run next to a new `run` with these overrides."""
    others = [other for other in _unfinished(run.parent) if other.resolve() != run.resolve()]
    if not others:
        return f"no run in {run.parent} is unfinished"
    theirs, ours = (set(_deciding(found)) for found in (_overrides_of(others[0]), overrides))
    missing, new = (" ".join(sorted(overrides)) or "nothing" for overrides in (theirs - ours, ours - theirs))
    return f"{others[0]} is unfinished, but was started with {missing} while this command has {new}"


def _unfinished(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    repeated = CommandLine.current().repeated_run  # by `--config-path`, which is not an override
    wanted = str(repeated) if repeated else None
    # A rejected command leaves a directory without a record.
    runs = [run for run in folder.iterdir() if (run / RECORD).is_file() and not (run / RESULT).is_file()]
    return [run for run in sorted(runs, key=_age) if (read_json(run / RECORD) or {}).get("repeats") == wanted]


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


def saved_config(run: Path) -> DictConfig:
    """Load the configuration that Hydra saved in a run directory.

    Raises:
        ConfigurationError: it cannot be read.
    """
    path = run / ".hydra" / "config.yaml"
    try:
        saved = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigurationError(f"{path}: cannot be read: {reason}") from error
    if not isinstance(saved, DictConfig):
        raise ConfigurationError(f"{path}: this is not a configuration")
    return saved


def started_at(environment: Mapping[str, str]) -> str:
    """Name the directory of a new run, the same on all ranks that were started together.

    Under SLURM it is the name of the job step, which is kept on a restart. Under torchrun it is the start time of
    torchrun, else the current time.
    """
    if "SLURM_JOB_ID" in environment and "SLURM_STEP_ID" in environment:
        array = environment.get("SLURM_ARRAY_JOB_ID")
        job = f"{array}_{environment.get('SLURM_ARRAY_TASK_ID')}" if array else environment["SLURM_JOB_ID"]
        return f"slurm_{job}_{environment['SLURM_STEP_ID']}"
    seconds = _start_of(os.getppid()) if "TORCHELASTIC_RUN_ID" in environment else None
    return time.strftime("%Y-%m-%d_%H-%M-%S", time.localtime(seconds))


def command_start(*programs: str) -> float:
    """Return the start time of a command, in seconds of `time.monotonic`; now if the process runs another program.

    `programs` are the names of the command's module and of its script.
    """
    now, main = time.monotonic(), sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    program = Path(getattr(main, "__file__", None) or "").name if spec is None else spec.name
    since_boot = _start_since_boot(os.getpid())
    if program not in programs or since_boot is None or not hasattr(time, "CLOCK_BOOTTIME"):
        return now
    return now - max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)


def _start_of(process: int) -> float | None:
    """Return the start time of a process, in seconds since 1970, where Linux provides it."""
    since_boot = _start_since_boot(process)
    if since_boot is None:
        return None
    return since_boot + int(Path("/proc/stat").read_text().partition("\nbtime ")[2].split()[0])


def _start_since_boot(process: int) -> float | None:
    try:
        # The program name is in brackets and may contain blanks; the start time is the 22nd field.
        ticks = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
    return ticks / os.sysconf("SC_CLK_TCK")
