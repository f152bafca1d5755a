"""The program that compares with peers: it runs with small numbers, and both sides do the same work."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from speed_tensors import compare_loss, compare_metric

from helpers.choices import without_initialization

FOLDER = Path(__file__).parents[2] / "benchmarks"
PARTS = ["loss", "metric", "postprocess", "data", "training", "predict", "start", "growth"]


def test_loss_and_metric_do_the_work_of_their_peers() -> None:
    with without_initialization():  # of the peer's layers, which are not used
        loss = compare_loss(device=torch.device("cpu"), batch_size=2, pairs=1)
    ours, theirs = loss.note.removeprefix("losses ").split(" and ")
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)
    area, points = (float(word.rstrip(",")) for word in compare_metric(images=30).note.split() if word[:2] == "0.")
    assert area == pytest.approx(points, abs=0.02)


@pytest.mark.slow
def test_every_part_runs_and_writes_its_ratios(tmp_path: Path) -> None:
    """From another folder, where nothing but its own place leads it to the sources."""
    numbers = ["--tiny", "--pairs", "1", "--batch-size", "2", "--device", "cpu", "--out", "figures"]
    command = [sys.executable, str(FOLDER / "speed.py"), "--what", *PARTS, *numbers]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [path.name for path in tmp_path.iterdir()] == ["figures"]
    record = json.loads((tmp_path / "figures" / "speed.json").read_text())
    assert {"git_commit", "versions", "machine", "device"} <= record["run"].keys()
    comparisons = record["comparisons"]
    assert {row["part"] for row in comparisons} | {"growth"} == {*PARTS}
    assert all(row["ratio"] > 0 and len(row["ours"]) == len(row["theirs"]) == 1 for row in comparisons)
    notes = {row["part"]: row["note"] for row in comparisons}
    assert notes["postprocess"].startswith("equal detections in 2 of 2 images")
    assert int(notes["predict"].split("%")[0]) >= 95
    curves = {(point["part"], point["axis"]) for point in record["growth"]}
    assert {("loss", "boxes"), ("postprocess", "classes"), ("network", "input"), ("loader", "workers")} <= curves
    assert all(point["ms_a_image"] > 0 for point in record["growth"])
