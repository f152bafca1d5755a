"""Read the curves of `metrics.csv`."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssd_lightning.errors import DataError


@dataclass(frozen=True, eq=False)
class Curve:
    """The values logged under one name; all arrays are `[P]`."""

    steps: np.ndarray
    """int64: optimiser steps."""
    epochs: np.ndarray
    """int64."""
    values: np.ndarray
    """float64; may contain non-finite values."""


def read_curves(path: Path) -> dict[str, Curve]:
    """Read the curves of `metrics.csv` by name. A last line that was cut off by a crash is skipped.

    Raises:
        DataError: the file is damaged.
    """
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
