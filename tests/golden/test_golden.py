"""Losses, detections and scores of fixed inputs are those that were recorded; digests hang on the processor."""

import json
from pathlib import Path
from typing import Any

import pytest
from golden_record import record_functions

RECORDED = Path(__file__).with_name("functions.json")


def numbers(values: Any, name: str = "") -> dict[str, float]:
    """Give all numbers of nested values by their place."""
    if isinstance(values, int | float):
        return {name: values}
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return {place: number for key, value in inner for place, number in numbers(value, f"{name}/{key}").items()}


def test_functions_compute_what_they_did(tmp_path: Path) -> None:
    recorded = numbers(json.loads(RECORDED.read_text()))
    assert len(recorded) >= 50
    assert numbers(record_functions(tmp_path)) == pytest.approx(recorded, rel=1e-4, nan_ok=True)
