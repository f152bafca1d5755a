"""Cuts `metrics.csv` back to a checkpoint."""

import csv
from pathlib import Path
from typing import Any

from ssd_lightning.run_files import written_whole


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
    with written_whole(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows(kept)


def _is_before(row: dict[str, Any], steps: int, with_last_validation: bool) -> bool:
    step = row.get("step") or ""
    if not step.isdigit() or any(row.get(name) for name in row if name and name.startswith("test/")):
        return False  # a truncated line, or a row from the end of the run
    is_validation = any(value for name, value in row.items() if name and name.startswith("val/"))
    # Lightning's log counts steps from 0. A validation has the number of the step before it.
    return int(step) < steps - (1 if is_validation and not with_last_validation else 0)
