"""The program that compares with peers: it runs with small numbers, and both sides do the same work."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
QUICK = ["loss", "metric"]
SLOW = ["postprocess", "data", "training", "predict", "start", "growth"]


@pytest.mark.parametrize("parts", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["quick", "slow"])
def test_every_part_runs_and_writes_its_ratios(parts: list[str], tmp_path: Path) -> None:
    """From another folder, where nothing but its own place leads it to the sources."""
    numbers = ["--tiny", "--pairs", "1", "--batch-size", "2", "--device", "cpu", "--out", "figures"]
    command = [sys.executable, str(FOLDER / "speed.py"), "--what", *parts, *numbers]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [path.name for path in tmp_path.iterdir()] == ["figures"]
    record = json.loads((tmp_path / "figures" / "speed.json").read_text())
    assert {"git_commit", "versions", "machine", "device"} <= record["run"].keys()
    comparisons = record["comparisons"]
    assert {row["part"] for row in comparisons} | {"growth"} == {*parts, "growth"}
    assert all(row["ratio"] > 0 and len(row["ours"]) == len(row["theirs"]) == 1 for row in comparisons)
    notes = {row["part"]: row["note"] for row in comparisons}
    if parts == QUICK:
        ours, theirs = notes["loss"].removeprefix("losses ").split(" and ")
        assert float(ours) == pytest.approx(float(theirs), rel=1e-5)
        area, points = (float(word.rstrip(",")) for word in notes["metric"].split() if word[:2] == "0.")
        assert area == pytest.approx(points, abs=0.02)
    else:
        assert notes["postprocess"].startswith("equal detections in 2 of 2 images")
        assert int(notes["predict"].split("%")[0]) >= 95
        curves = {(point["part"], point["axis"]) for point in record["growth"]}
        assert {("loss", "boxes"), ("postprocess", "classes"), ("network", "input"), ("loader", "workers")} <= curves
        assert all(point["ms_a_image"] > 0 for point in record["growth"])
