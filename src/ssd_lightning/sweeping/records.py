"""What lies in the directories of a sweep and its jobs."""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ssd_lightning.run_files import RESULT

SWEEP = "sweep.json"
JOB = "job.json"
OBJECTIVES = "objective.jsonl"
"""One line a validation, written by `ssd_lightning.training.objective`."""

RUNNING, FINISHED, FAILED, PRUNED, STOPPED = "running", "finished", "failed", "pruned", "stopped"


@dataclass
class JobRecord:
    """How a job stands.

    Args:
        number: of the job in its sweep.
        overrides: `key=value`, all of the job's.
        digest: of its configuration, see `ssd_lightning.digest`.
        status: `running`, `finished`, `failed`, `pruned` (given up by the search) or `stopped` (with the whole sweep).
        objective: what the sweep maximises; None unless the job finished.
        scores: the last value of everything that was logged.
        seconds: that it took, those of earlier beginnings included.
        reason: why it failed.
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
        """Read `job.json`; None where no job has begun, or another version of this package began it."""
        record = read_json(directory / JOB)
        return cls(**record) if record is not None and record.keys() == cls.__dataclass_fields__.keys() else None

    def settings(self) -> dict[str, str]:
        """Give the job's values by key or group."""
        return {key.lstrip("+"): value for key, _, value in (override.partition("=") for override in self.overrides)}


def read_jobs(sweep: Path) -> list[tuple[Path, JobRecord]]:
    """Read all jobs of a sweep that have begun, by their numbers."""
    found = [(path.parent, JobRecord.read(path.parent)) for path in sweep.glob(f"**/{JOB}")]
    return sorted(((path, job) for path, job in found if job is not None), key=lambda item: item[1].number)


def clear(directory: Path) -> None:
    """Remove what a run with other settings has left in a job's directory, so that nothing goes on from it."""
    shutil.rmtree(directory / "checkpoints", ignore_errors=True)
    for name in (RESULT, OBJECTIVES):
        (directory / name).unlink(missing_ok=True)


def read_result(directory: Path) -> dict[str, Any] | None:
    """Read what a run writes last, see `ssd_lightning.training.record`; None if it is not over."""
    return read_json(directory / RESULT)


def last_objective(directory: Path) -> float | None:
    """Give the objective of the last validation that a run reported."""
    values = [value for _, value in read_objectives(directory)]
    return values[-1] if values else None


def read_objectives(directory: Path) -> list[tuple[int, float]]:
    """Read (epoch, objective) of every validation so far; a line that is being written is left for later."""
    try:
        text = (directory / OBJECTIVES).read_text()
    except OSError:
        return []
    whole = text[: text.rfind("\n") + 1].splitlines()
    return [(line["epoch"], line["value"]) for line in map(json.loads, whole)]


def read_json(path: Path) -> dict[str, Any] | None:
    """Read an object; None if there is no such file or it is no JSON."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(path)
