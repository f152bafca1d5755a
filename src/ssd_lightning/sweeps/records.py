"""Files in the directories of a sweep and its jobs."""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ssd_lightning.run_files import OBJECTIVES, RESULT, read_json, write_json

SWEEP = "sweep.json"
JOB = "job.json"

REPEATS = {"seed": "seed", "data.fold": "fold"}
"""Keys whose values repeat a run, and their short names."""
RUNNING, FINISHED, FAILED, PRUNED, STOPPED = "running", "finished", "failed", "pruned", "stopped"


@dataclass
class JobRecord:
    """State of a job.

    Args:
        number: number of the job in its sweep.
        overrides: all `key=value` overrides of the job.
        digest: digest of its configuration, see `ssd_lightning.digest`.
        status: `running`, `finished`, `failed`, `pruned` (by the search) or `stopped` (with the whole sweep).
        objective: score that the sweep maximises. None unless the job finished.
        scores: last value of everything that was logged.
        seconds: run time, including earlier starts.
        reason: why the job failed.
    """

    number: int
    overrides: list[str]
    digest: str
    status: str = RUNNING
    objective: float | None = None
    scores: dict[str, float | None] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""

    def write(self, directory: Path) -> None:
        """Write `job.json`."""
        write_json(directory / JOB, asdict(self))

    @classmethod
    def read(cls, directory: Path) -> "JobRecord | None":
        """Read `job.json`. None if no job has started, or if another version of this package wrote it."""
        record = read_json(directory / JOB)
        return cls(**record) if record is not None and record.keys() == cls.__dataclass_fields__.keys() else None

    def settings(self) -> dict[str, str]:
        """Return the job's values by key or group."""
        return {key.lstrip("+"): value for key, _, value in (override.partition("=") for override in self.overrides)}


def read_jobs(sweep: Path) -> list[tuple[Path, JobRecord]]:
    """Read all started jobs of a sweep, sorted by number."""
    found = [(path.parent, JobRecord.read(path.parent)) for path in sweep.glob(f"**/{JOB}")]
    return sorted(((path, job) for path, job in found if job is not None), key=lambda item: item[1].number)


def clear(directory: Path) -> None:
    """Remove the files of a run with different settings, so that the job does not resume from them."""
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    for name in (RESULT, OBJECTIVES):
        (directory / name).unlink(missing_ok=True)


def read_objectives(directory: Path) -> list[tuple[int, float]]:
    """Read (epoch, objective) of every validation so far. An incomplete last line is ignored."""
    path = directory / OBJECTIVES
    text = path.read_text() if path.is_file() else ""
    whole = text[: text.rfind("\n") + 1].splitlines()
    return [(line["epoch"], line["value"]) for line in map(json.loads, whole)]
