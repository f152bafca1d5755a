"""Files of a run directory that several packages use: their names, and how they are read and written."""

import csv
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

RESULT = "result.json"
"""The last file that a run writes. If it exists, the run has finished."""
RECORD = "run.json"
"""All that is needed to repeat the run: command, seed, versions, machine, data."""
EVALUATIONS = "evaluations"
"""Folder of the evaluation records, `SPLIT.npz`: see `ssd_lightning.analysis.evaluation_record`."""
DASHBOARD = "dashboard"
"""Folder of the images that a training shows."""
OBJECTIVES = "objective.jsonl"
"""One line per validation of a job of a sweep: epoch and score. Pruning reads it."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Provide a path to write to, which replaces `path` unless an error occurs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file; empty if it does not exist. Missing values of a truncated line are empty."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file, restkey="", restval=""))


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file atomically. Its columns are all names of the rows, sorted."""
    names = sorted({name for row in rows for name in row if name})
    with written_whole(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def append_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows to a CSV file. If it fails, the file stays as it was. Only for new columns it is written again."""
    names: list[str] = []
    if path.is_file():
        with path.open(newline="") as file:
            names = next(csv.reader(file), [])
    if not {*names}.issuperset(chain.from_iterable(rows)):
        write_rows(path, [*read_rows(path), *rows])
        return
    size = path.stat().st_size
    try:
        with path.open("a", newline="") as file:
            csv.DictWriter(file, names).writerows(rows)
    except OSError:
        os.truncate(path, size)
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object atomically."""
    with written_whole(path) as partial:
        partial.write_text(json_text(content))


def json_text(content: Mapping[str, Any]) -> str:
    """Return a JSON object as text. JSON has no NaN and no infinity: they are written as null."""
    return json.dumps(_without_nan(content), indent=2, allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object. None if the file is missing or is not one."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
