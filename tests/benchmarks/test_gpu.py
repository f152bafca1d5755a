"""The program for a CUDA card, rehearsed on the processor."""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    """By its place: `gpu` is also a folder of these tests."""
    spec = importlib.util.spec_from_file_location("gpu", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.timeout(1800)  # 600 s do not suffice on a slow machine
def test_the_whole_rehearsal(tmp_path: Path) -> None:
    """From another folder, where nothing but its own place leads it to the sources, and without `.gpu`."""
    nowhere = ["--data", str(tmp_path / "none"), "--weights", str(tmp_path / "none"), "--commit", "abc"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(PROGRAM), "--out", "out", "--rehearse", *nowhere]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + (tmp_path / "out" / "log.txt").read_text()[-3000:]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"gpu.json", "gpu.md", "rows.jsonl", "log.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    record = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert list(record["parts"]) == ["tests", "step", "parts", "training", "more"]
    assert {part["status"] for part in record["parts"].values()} == {"finished"}
    assert record["errors"] == []
    assert (tmp_path / "out" / "gpu.md").read_text().startswith("**A rehearsal")
    assert {"versions", "git_commit", "command", "seed", "cuda", "cudnn", "card_and_driver"} <= record["run"].keys()
    assert record["run"]["commit_given"] == "abc"
    outcomes = {test["outcome"] for test in record["tests"]}
    assert "passed" in outcomes  # on the processor, going an accelerator's ways
    assert "failed" not in outcomes
    # A step of two sizes, compiled and not, has three rows; of the smaller one also beside the compiled peer.
    assert Counter(row["in"] for row in record["comparisons"]) == {"step": 15, "parts": 8, "training": 2, "more": 3}
    compiled = [row["in"] for row in record["comparisons"] if "compile=" in row["setting"]]
    assert Counter(compiled) == {"step": 9, "more": 3}
    assert [point["size"] for point in record["growth"]] == [2, 4]
    assert all(point["mib_a_image"] > 0 for point in record["growth"])
    facts = {fact["what"]: fact["value"] for fact in record["facts"]}
    for network in ("SSD300-VGG16-BN from scratch", "SSD300-MobileNetV2 from scratch"):
        for fact in ("test/map_11point", "data_wait", "peak_memory_mib", "steps"):
            assert any(what.startswith(f"{network}: {fact}") for what in facts)
    assert any("relative difference of the losses of 2 equal steps" in what for what in facts)


FAILS = "raise SystemExit('no luck')"
HANGS = """
import pathlib, subprocess, sys, time
rows, child = map(pathlib.Path, sys.argv[1:3])
sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
child.write_text(str(sleeper.pid))
row = '{"part": "step", "kind": "facts", "row": {"what": "before", "value": 1, "unit": ""}}'
rows.write_text(rows.read_text() + row + chr(10) + row[:20])
time.sleep(600)
"""
WORKS = """
import pathlib, sys
with open(sys.argv[1], "a") as rows:
    rows.write(chr(10) + '{"part": "parts", "kind": "facts", "row": {"what": "after", "value": 2, "unit": "s"}}')
"""


def test_a_part_that_fails_or_hangs_stops_no_other(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "PARTS", {"tests": 2, "step": 2, "parts": 20})
    places = [str(tmp_path / "rows.jsonl"), str(tmp_path / "child")]
    commands = {
        part: [sys.executable, "-c", code, *places]
        for part, code in (("tests", FAILS), ("step", HANGS), ("parts", WORKS))
    }
    header = {"command": "", "seed": 0, "started": "", "rehearsal": False, "commit_given": "abc"}
    done = gpu.run_parts(commands, header, tmp_path, seconds=24)
    statuses = [part["status"] for part in done.values()]
    assert statuses[0] == "failed with exit code 1"
    assert statuses[1].startswith("killed after its ")
    assert statuses[2] == "finished"
    assert done["tests"]["log"] == ["no luck"]
    assert is_gone(int((tmp_path / "child").read_text()))
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert [(fact["in"], fact["what"]) for fact in record["facts"]] == [("step", "before"), ("parts", "after")]
    assert record["run"]["git_commit"] == "abc"
    page = (tmp_path / "gpu.md").read_text()
    assert "| tests | no luck |" in page
    assert "| before | 1 |" in page
    assert "| after | 2 s |" in page


def is_gone(process: int) -> bool:
    """Wait a little for a process that was killed; as a zombie it may be left to whoever cares for orphans."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def test_parts_run_in_their_own_order(gpu: ModuleType) -> None:
    assert gpu.part_names("more,tests") == ["tests", "more"]
    with pytest.raises(argparse.ArgumentTypeError, match="there is no part 'speed'; there is tests, step"):
        gpu.part_names("step,speed")
