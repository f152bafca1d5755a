"""A `metrics.csv` that supports resuming."""

import csv
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.csv_logs import _ExperimentWriter
from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter


class GrowingCSVLogger(CSVLogger):
    """Writes `metrics.csv`, and appends to an existing one. Lightning's logger would remove it."""

    @property
    @rank_zero_experiment
    def experiment(self) -> _ExperimentWriter:
        """The writer, created at the first use, on the rank that logs."""
        if self._experiment is None:
            self._experiment = _GrowingWriter(log_dir=self.log_dir)
        return self._experiment


class _GrowingWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="") as file:
                self.metrics_keys = list(csv.DictReader(file).fieldnames or [])


def keep_rows(path: Path, *, steps: int, with_last_validation: bool) -> None:
    """Remove the rows after a checkpoint, because the resumed run writes them again.

    Args:
        path: path of `metrics.csv`. Nothing is done if it does not exist.
        steps: optimiser steps before the checkpoint.
        with_last_validation: whether the checkpoint was saved after the validation that follows the last step.
    """
    if not path.is_file():
        return
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        names, rows = list(reader.fieldnames or []), list(reader)
    kept = [row for row in rows if _is_before(row, steps, with_last_validation)]
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows(kept)
    partial.replace(path)


def _is_before(row: dict[str, Any], steps: int, with_last_validation: bool) -> bool:
    step = row.get("step") or ""
    if not step.isdigit() or any(row.get(name) for name in row if name and name.startswith("test/")):
        return False  # a truncated line, or a row from the end of the run
    is_validation = any(value for name, value in row.items() if name and name.startswith("val/"))
    # Lightning's log counts steps from 0. A validation has the number of the step before it.
    return int(step) < steps - (1 if is_validation and not with_last_validation else 0)
