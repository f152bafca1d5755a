"""Read a run directory: its record, its log and its evaluations."""

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.errors import DataError
from ssd_lightning.run_files import EVALUATIONS, RECORD, RESULT

CONFIG, METRICS = "config.yaml", "metrics.csv"
SPLITS = {"val": "validation", "test": "test"}
SHOWN = (METRICS, *(f"{EVALUATIONS}/{split}.npz" for split in SPLITS))
"""A page needs at least one of these files."""
OBJECTIVE = "val/map_11point"
"""Metric that selects `best.ckpt` if the configuration has none."""


def lookup(content: Any, *keys: str, kind: type) -> Any:
    """Return a value of nested mappings; None if a key is missing, or if the value is of another type than `kind`."""
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content if isinstance(content, kind) else None


class NothingToShowError(DataError):
    """A run has neither figures nor evaluations, or not yet."""


@dataclass(frozen=True, eq=False)
class Curve:
    """The values logged under one name; all arrays are `[P]`."""

    steps: np.ndarray
    """int64: optimiser steps."""
    epochs: np.ndarray
    """int64."""
    values: np.ndarray
    """float64; may contain non-finite values."""


@dataclass(frozen=True, eq=False)
class Run:
    """The contents of a run directory; missing parts are empty.

    `record` is `run.json`, `config` is `config.yaml`, and `result` is `result.json`, None if the run is unfinished.
    `curves` are those of `metrics.csv` by logged name; `evaluations` are by split; `checkpoint` is the best, or last.
    """

    directory: Path
    record: Mapping[str, Any]
    config: Mapping[str, Any]
    result: Mapping[str, Any] | None
    curves: Mapping[str, Curve]
    evaluations: Mapping[str, EvaluationRecord]
    checkpoint: Path | None

    @property
    def name(self) -> str:
        """Name of the experiment and of the directory."""
        experiment = self.config.get("name")
        directory = self.directory.resolve().name
        return f"{experiment} · {directory}" if experiment and experiment != directory else directory

    @property
    def objective(self) -> str:
        """Name of the metric that selects `best.ckpt`."""
        return lookup(self.config, "callbacks", "best", "monitor", kind=str) or OBJECTIVE

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 1..C; empty if unknown."""
        if self.evaluations:
            return next(iter(self.evaluations.values())).class_names
        return tuple(map(str, lookup(self.record, "class_names", kind=list) or ()))

    def best_validation(self) -> int | None:
        """Return the index of the best validation in the objective's curve, the last among equals, as for `best.ckpt`.

        None without a finite score.
        """
        curve = self.curves.get(self.objective)
        if curve is None or not np.isfinite(curve.values).any():
            return None
        finite = np.where(np.isfinite(curve.values), curve.values, -np.inf)
        return int(np.flatnonzero(finite == finite.max())[-1])

    def score(self, name: str) -> float | None:
        """Return a score: for validation that of the best validation by the objective, else the last logged value."""
        curve, best = self.curves.get(name), self.best_validation()
        if curve is None:
            return lookup(self.result, "scores", name, kind=(int | float))  # type: ignore[arg-type]
        if name.startswith("val/") and best is not None:
            here = np.flatnonzero(curve.steps == self.curves[self.objective].steps[best])
            return float(curve.values[here[-1]]) if len(here) else None
        return float(curve.values[-1])

    def epochs_trained(self) -> int | None:
        """Return the number of started epochs; None if nothing was logged."""
        # The test after training is logged under an epoch that does not exist.
        lasts = [int(curve.epochs[-1]) + 1 for name, curve in self.curves.items() if not name.startswith("test/")]
        return max(lasts, default=None)

    def seconds(self) -> float | None:
        """Return the time from the last start of the run to its end; None if it is unfinished."""
        try:
            started = datetime.fromisoformat(self.record["started"])
            finished = datetime.fromisoformat((self.result or {})["finished"])
        except (KeyError, TypeError, ValueError):
            return None
        return (finished - started).total_seconds()

    def images(self) -> dict[str, int]:
        """Return the number of images of each split, as far as recorded."""
        data = lookup(self.record, "data", kind=Mapping) or {}
        counts = {split: lookup(entry, "images", kind=int) for split, entry in data.items()}
        counts |= {split: len(record.image_ids) for split, record in self.evaluations.items()}
        return {split: count for split, count in counts.items() if count is not None}


def read_run(directory: Path) -> Run:
    """Read all files of a run. Raises `NothingToShowError` if it has neither figures nor evaluations."""
    if directory.is_file():
        raise DataError(f"{directory} is a file outside of a run directory; give the directory of a run")
    if not directory.is_dir():
        raise DataError(f"there is no run directory {directory}")
    if not is_run(directory):
        names = f"{RECORD}, {CONFIG}, {METRICS}, {EVALUATIONS}/val.npz"
        raise DataError(f"{directory} is not a run directory: it has none of {names}")
    evaluations = {split: path for split in SPLITS if (path := directory / EVALUATIONS / f"{split}.npz").is_file()}
    curves = read_curves(directory / METRICS)
    checkpoints = [directory / "checkpoints" / f"{name}.ckpt" for name in ("best", "last")]
    checkpoint = next((path for path in checkpoints if path.is_file()), None)
    if not curves and not evaluations:
        what = f"neither {METRICS} nor {EVALUATIONS}/val.npz"
        if checkpoint is None:
            raise NothingToShowError(f"{directory} has nothing to show yet: {what} nor a checkpoint")
        record = directory / EVALUATIONS / "val.npz"
        raise NothingToShowError(
            f"{directory} has a checkpoint but {what}; evaluate it first: python -m ssd_lightning.evaluate "
            f"checkpoint={directory} data=... split=val record={record}"
        )
    return Run(
        directory=directory,
        record=_read(directory / RECORD, json.loads) or {},
        config=_read(directory / CONFIG, yaml.safe_load) or {},
        result=_read(directory / RESULT, json.loads),
        curves=curves,
        evaluations={split: EvaluationRecord.load(path) for split, path in evaluations.items()},
        checkpoint=checkpoint,
    )


def read_curves(path: Path) -> dict[str, Curve]:
    """Read the curves of `metrics.csv` by name. A last line that was cut off by a crash is skipped."""
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    if not rows:
        return {}
    names = rows[0]
    if not {"epoch", "step"} <= set(names):
        raise DataError(f"{path} is not the log of a run: its first line has no columns 'epoch' and 'step'")
    if len(rows[-1]) != len(names):
        rows.pop()
    found: dict[str, list[tuple[int, int, float]]] = {}
    epoch = "0"
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(names):
            raise DataError(f"{path} is damaged: line {number} has {len(row)} values for {len(names)} columns")
        entry = dict(zip(names, row, strict=True))
        epoch = entry["epoch"] or epoch  # Lightning's learning rate monitor does not write it
        for name, text in entry.items():
            if text and name not in ("epoch", "step"):
                try:
                    found.setdefault(name, []).append((int(entry["step"]), int(epoch), float(text)))
                except ValueError as error:
                    raise DataError(f"{path} is damaged: line {number}: {error}") from error
    return {name: Curve(*map(np.array, zip(*points, strict=True))) for name, points in found.items()}


def runs_below(path: Path) -> list[Path]:
    """Return the directory of a run or checkpoint; for any other folder, the run directories inside.

    Such a folder belongs to a sweep, to all runs of one name, or is `outputs` with the folders of several names. Runs
    are sorted by name, with numbers by value. Runs without logs and evaluations are skipped. A path without runs is
    returned unchanged, so that its reader reports the error.
    """
    if path.is_file():
        return [next((folder for folder in (path.parent, path.parent.parent) if is_run(folder)), path)]
    if is_run(path) or not path.is_dir():
        return [path]
    found = _shown_in(path) or [run for folder in _by_name(path) for run in _shown_in(folder)]
    return found or [path]


def is_run(directory: Path) -> bool:
    """Tell whether a directory contains any file of a run."""
    return any((directory / name).is_file() for name in (RECORD, CONFIG, *SHOWN))


def _shown_in(folder: Path) -> list[Path]:
    return [run for run in _by_name(folder) if any((run / name).is_file() for name in SHOWN)]


def _by_name(folder: Path) -> list[Path]:
    folders = [path for path in folder.iterdir() if path.is_dir()]
    return sorted(folders, key=lambda path: (len(path.name) if path.name.isdigit() else 0, path.name))


def _read(path: Path, parse: Callable[[bytes], Any]) -> dict[str, Any] | None:
    """Read a mapping from a JSON or YAML file; None if it is missing."""
    if not path.is_file():
        return None
    try:
        content = parse(path.read_bytes())
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged: it contains a {type(content).__name__}, not named values")
    return content
