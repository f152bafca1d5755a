"""One job of a sweep: its configuration, its process, its record."""

import logging
import math
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ssd_lightning.digest import config_digest
from ssd_lightning.run_files import RESULT, read_json
from ssd_lightning.sweeps.plan import what_it_is
from ssd_lightning.sweeps.processes import Ending, run_process
from ssd_lightning.sweeps.pruning import find_pruning
from ssd_lightning.sweeps.records import (
    FAILED,
    FINISHED,
    PRUNED,
    REPEATS,
    STOPPED,
    SWEEP,
    JobRecord,
    clear,
    read_objectives,
)

log = logging.getLogger(__name__)

CONFIG_NAME = "job"


def run_as_job(config: DictConfig) -> float:
    """Run one job of a sweep, as Hydra composed it, in its own process, unless it is already finished.

    Returns:
        The objective. NaN if the job did not finish, so that the sweep continues with the next one.

    Raises:
        SystemExit: the sweep received a signal. It ends after its job has ended, with exit code 130 after SIGINT, 143
            after SIGTERM, and the job's own code after SIGUSR1.
    """
    hydra = HydraConfig.get()
    directory = Path(hydra.runtime.output_dir)
    if int(os.environ.get("SLURM_PROCID", "0")) > 0:  # the cluster starts every rank; only rank 0 keeps the record
        run_process(job_command(directory))
        return math.nan
    job = _open_record(config, hydra, directory)
    ending = _run(job, config, hydra, directory) if finished_result(directory, job.digest) is None else None
    conclude(job, ending, finished_result(directory, job.digest), str(config.objective))
    if job.status == PRUNED:
        job.scores = dict([(str(config.objective), value) for _, value in read_objectives(directory)][-1:])
    job.write(directory)
    log.info("job %d %s", job.number, _describe(job, str(config.objective), was_finished=ending is None))
    if ending is not None and ending.signal in (signal.SIGINT, signal.SIGTERM):
        log.warning("the sweep was stopped; run the same command again to continue it")
        sys.exit(128 + ending.signal)
    if ending is not None and ending.signal is not None and job.status != FINISHED:  # SIGUSR1: it may be requeued
        sys.exit(ending.code)
    return math.nan if job.objective is None else job.objective


def _open_record(config: DictConfig, hydra: HydraConf, directory: Path) -> JobRecord:
    """Write a job's configuration and return its record. With a changed configuration, the job starts from scratch."""
    own_config = job_config(config, hydra)
    (directory / ".hydra").mkdir(parents=True, exist_ok=True)
    OmegaConf.save(own_config, directory / ".hydra" / f"{CONFIG_NAME}.yaml")
    settings: Any = OmegaConf.create({key: value for key, value in own_config.items() if key != "hydra"})
    digest = config_digest(OmegaConf.to_container(settings, resolve=True))  # type: ignore[arg-type]
    job = JobRecord(hydra.job.num, what_it_is(hydra.overrides.task), digest)
    before = JobRecord.read(directory)
    if before is not None and before.digest == digest:
        job.seconds = before.seconds
    elif before is not None:  # a configuration file was edited
        log.info("job %d was started with different settings: it starts from scratch", job.number)
        clear(directory)
    return job


def _run(job: JobRecord, config: DictConfig, hydra: HydraConf, directory: Path) -> Ending:
    """Run a job's process, and add its time to the record."""
    job.write(directory)
    console = None
    if not str(hydra.launcher._target_).endswith("BasicLauncher"):  # beside other jobs
        console = directory / "console.txt"
        log.info("job %d writes to %s", job.number, console)
    sweep = Path(hydra.sweep.dir)
    ending = run_process(
        job_command(directory),
        environment=job_environment(sweep, job, str(config.name)),
        console=console,
        give_up=find_pruning(config.get("sweep"), sweep, job.number, directory),
    )
    job.seconds = round(job.seconds + ending.seconds, 1)
    return ending


def _describe(job: JobRecord, objective: str, *, was_finished: bool) -> str:
    if job.status == FINISHED:
        return f"{'was finished before' if was_finished else 'finished'}: {objective} {job.objective:.4f}"
    if job.status == PRUNED:
        return f"pruned after {job.seconds:.0f} s: other trials were better"
    return f"{job.status}: {job.reason}"


def job_config(config: DictConfig, hydra: HydraConf) -> dict[str, Any]:
    """Return the configuration of a job's process: all settings without the sweep's, and Hydra's settings."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=False)  # type: ignore[assignment]
    plain.pop("sweep", None)
    callbacks = plain.get("callbacks") or {}
    reported = {
        "_target_": "ssd_lightning.training.callbacks.objective_report.ObjectiveReport",
        "objective": config.objective,
    }
    return {
        **plain,
        "callbacks": {**callbacks, "objective": reported},
        "resume": "auto",
        "hydra": {
            "mode": "RUN",
            "run": {"dir": hydra.runtime.output_dir},
            "output_subdir": None,  # the sweep wrote it
            "job": {"name": hydra.job.name, "chdir": hydra.job.chdir},
            "job_logging": OmegaConf.to_container(hydra.job_logging, resolve=False),
        },
    }


def job_command(directory: Path) -> list[str]:
    """Return the command that trains with the configuration in a job's directory."""
    folder = str((directory / ".hydra").resolve())
    return [sys.executable, "-m", "ssd_lightning.train", "--config-path", folder, "--config-name", CONFIG_NAME]


def job_environment(sweep: Path, job: JobRecord, recipe: str) -> dict[str, str]:
    """Return W&B variables that the user has not set: a group per sweep, and a job type for runs that differ in seed.

    If only the seed is swept, the group is the recipe: the `name` of the runs.
    """
    swept = [key for key in (read_json(sweep / SWEEP) or {}).get("swept", []) if key not in REPEATS]
    settings = job.settings()
    variables = {
        "WANDB_RUN_GROUP": sweep.name if swept else recipe,
        "WANDB_JOB_TYPE": ", ".join(f"{key}={settings[key]}" for key in swept if key in settings)[:64] or "train",
        "WANDB_NAME": f"{sweep.name}/{job.number}",
        "WANDB_TAGS": sweep.name,
    }
    return {key: value for key, value in variables.items() if key not in os.environ}


def conclude(job: JobRecord, ending: Ending | None, result: Mapping[str, Any] | None, objective: str) -> None:
    """Set status, scores and reason of a job.

    `ending` is None if the job was already finished, `result` if there is none with this configuration.
    """
    if ending is not None and ending.given_up and ending.code != 0:
        job.status = PRUNED
    elif ending is not None and ending.code != 0:
        job.status = FAILED if ending.signal is None else STOPPED
        job.reason = ending.reason
    elif result is None:
        job.status, job.reason = FAILED, "it ended without a result"
    else:
        job.scores = dict(result["scores"])
        job.objective = job.scores.get(objective)
        job.status = FAILED if job.objective is None else FINISHED
        if objective not in job.scores:
            logged = ", ".join(sorted(name for name in job.scores if name.count("/") == 1)) or "nothing"
            job.reason = f"objective={objective}: the run logged no such score; it logged {logged}"
        elif job.objective is None:
            job.reason = f"objective={objective}: the score is not finite"


def finished_result(directory: Path, digest: str) -> dict[str, Any] | None:
    """Return the result in a directory if it has this configuration's digest."""
    result = read_json(directory / RESULT)
    return result if result is not None and result.get("digest") == digest else None
