"""The comparison on real data sets, rehearsed on drawn ones."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import peer_torchvision
import pytest
import real_sets
import real_sets_factors
import real_sets_sides
import torch
from torchvision.models import mobilenet_v2

from helpers.commands import run_command
from ssd_lightning.config import compose_config
from ssd_lightning.data.toy import write_toy_dataset

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shapes in the layout and under the name of one of the sets."""
    root = tmp_path_factory.mktemp("data")
    write_toy_dataset(root / "bccd", num_train=20, num_val=2, num_test=3, image_size_px=(96, 128))
    return root


def command_of(data_root: Path, out: Path, *overrides: str) -> list[str]:
    fixed = ["--tiny", "--commit", "tree", "--sets", "bccd", "--threads", "1"]
    return ["--data-root", str(data_root), "--out", str(out), *fixed, *overrides]


@pytest.fixture
def rehearse_here(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run it with this project's processes inside this one, which has everything imported; gives the table."""

    def run(command: list[str], *more: object, **settings: object) -> SimpleNamespace:
        if command[1].endswith("real_sets_sides.py"):
            monkeypatch.setattr(sys, "argv", command[1:])
            real_sets_sides.main()
        elif command[1] == "-m":
            run_command(tmp_path, command[2].rpartition(".")[2], *command[3:])
        else:
            return subprocess.run(command, *more, **settings)  # type: ignore[call-overload,no-any-return]
        return SimpleNamespace(returncode=0, stdout="")

    for program in (real_sets, real_sets_sides):
        monkeypatch.setattr(program, "subprocess", SimpleNamespace(run=run, DEVNULL=subprocess.DEVNULL))

    def rehearse(*overrides: str) -> str:
        capsys.readouterr()
        assert real_sets.main(command_of(data_root, tmp_path / "out", *overrides)) == 0
        return capsys.readouterr().out

    return rehearse


def results(out: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in (out / "results").glob("*.json")}


def test_a_rehearsal_of_this_project(rehearse_here: Callable[..., str], tmp_path: Path) -> None:
    recipe = ("model=tiny_ssd", "image_size=[64,64]", "report=false", "~callbacks.dashboard")
    overrides = ("--sides", "ours", "--recipe", *recipe, "--seeds", "3", "--budget", "7s")
    table = rehearse_here(*overrides)
    out = tmp_path / "out"
    assert "| bccd | ours | 7s | its own | 3 | " in table
    (record,) = results(out).values()
    assert (record["images_seen"], record["seed"], record["threads"], record["seconds_train"] > 0) == (4, 3, 1, True)
    assert (out / "runs" / "bccd-ours-7s-seed3" / "run" / "checkpoints" / "last.ckpt").is_file()
    assert record["scores"].keys() == {"test"}
    assert record["scores"]["test"]["images"] == 3
    assert record["scores"]["test"]["ap_area"].keys() == {"disk", "ring", "square", "star", "triangle"}
    assert {"commit", "hardware", "versions", "epochs", "seconds_in_all", "overrides"} <= record.keys()

    (trained,) = out.glob("runs/*/trained.json")
    trained.write_text(trained.read_text().replace('"images_seen": 4', '"images_seen": 8'))
    rehearse_here(*overrides, "--split", "valid")
    assert results(out)["bccd-ours-7s-seed3"]["scores"].keys() == {"test", "valid"}
    assert results(out)["bccd-ours-7s-seed3"]["images_seen"] == 8, "it was trained again"


ULTRALYTICS = '''
"""Stands in for the package: what the driver calls, as its documentation has it."""
from pathlib import Path
from types import SimpleNamespace
import numpy as np
__version__ = "0"

class YOLO:
    def __init__(self, model):
        self.model, self.callbacks = str(model), {}
        assert self.model == "yolo11n.yaml" or Path(model).read_text() == "trained"

    def add_callback(self, event, function):
        self.callbacks[event] = function

    def train(self, *, data, time, imgsz, pretrained, project, name, **more):
        assert not pretrained and imgsz == 320 and 0 < time < 1
        root = Path(data).parent
        assert len(list(root.glob("images/train/*.png"))) == len(list(root.glob("labels/train/*.txt"))) == 8
        for _ in range(3):
            self.callbacks["on_train_batch_end"](self)
        weights = Path(project, name, "weights")
        weights.mkdir(parents=True)
        (weights / "last.pt").write_text("trained")

    def predict(self, path, *, conf, max_det, **more):
        """Find what the label file has."""
        assert (conf, max_det, self.model != "yolo11n.yaml") == (0.001, 300, True) and Path(path).is_file()
        label = Path(str(path).replace("images", "labels")).with_suffix(".txt")
        rows = np.array([line.split() for line in label.read_text().splitlines()], dtype=float).reshape(-1, 5)
        corners = np.concatenate([rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2], axis=1)
        boxes = SimpleNamespace(xyxyn=corners, conf=np.ones(len(rows)), cls=rows[:, 0])
        return [SimpleNamespace(boxes=boxes)]
'''


TORCH = """
from types import SimpleNamespace
cuda, set_num_threads = SimpleNamespace(is_available=lambda: False), print
"""
"""Takes seconds less than torch to import."""


def test_yolo_is_run_by_another_python_and_scored_by_our_metric(
    rehearse_here: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "ultralytics.py").write_text(ULTRALYTICS)
    (tmp_path / "torch.py").write_text(TORCH)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    overrides = ("--sides", "yolo11n", "--seeds", "0", "--yolo-python", str(python))
    rehearse_here(*overrides)
    (record,) = results(tmp_path / "out").values()
    assert record["scores"]["test"]["map_area"] == pytest.approx(1.0)
    assert (record["images_seen"], record["ultralytics"]) == (6, "0")


def test_yolo_is_skipped_without_its_environment(rehearse_here: Callable[..., str]) -> None:
    assert "Nothing was run." in rehearse_here("--sides", "yolo11n", "--seeds", "0")


@pytest.mark.slow
def test_a_rehearsal_of_torchvision_chooses_a_rate(rehearse_here: Callable[..., str], tmp_path: Path) -> None:
    side = "torchvision_scratch_ssdlite"
    rehearse_here("--sides", side, "--seeds", "0", "1", "--lr", "0.001", "0.002")
    records = results(tmp_path / "out").values()
    first = {record["lr"]: record["scores"] for record in records if record["seed"] == 0}
    (chosen,) = [lr for lr, scores in first.items() if "test" in scores]
    assert first[chosen]["valid"]["map_area"] == max(scores["valid"]["map_area"] for scores in first.values())
    (second,) = [record for record in records if record["seed"] == 1]
    assert (second["lr"], second["scores"].keys()) == (chosen, {"test"})
    assert [record["images_seen"] for record in records] == [4] * 3


@pytest.mark.slow
def test_a_rehearsal_of_factors(data_root: Path, tmp_path: Path) -> None:
    """With the tree as it is, each run in a process of its own."""
    no_drawings = ("--overrides", "report=false", "callbacks.dashboard=null")
    overrides = ("--list", "paper", "--factors", "giou", "--seeds", "0", "--epochs", "1", *no_drawings)
    command = [sys.executable, str(FOLDER / "real_sets_factors.py"), *command_of(data_root, tmp_path, *overrides)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split("|")[1].strip() for line in done.stdout.splitlines()[2:4]] == ["baseline", "giou"]
    assert "loss/box_loss=giou" in results(tmp_path)["bccd-ours-paper_giou-1epochs-seed0"]["overrides"]


def test_the_peer_has_its_weights_and_torchvisions_priors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = mobilenet_v2(weights=None).state_dict()
    torch.save(weights, tmp_path / "weights.pth")
    model = peer_torchvision.ssdlite320_mobilenet_v2(4, str(tmp_path / "weights.pth")).eval()
    mine = {tensor.sum().item() for tensor in model.backbone.features.state_dict().values()}
    assert {tensor.sum().item() for name, tensor in weights.items() if name.startswith("features.")} == mine
    maps = model.backbone(torch.zeros(1, 3, 320, 320))
    assert [grid.shape[-1] for grid in maps.values()] == [20, 10, 5, 3, 2, 1]
    assert model.head(list(maps.values()))["cls_logits"].shape == (1, 3234, 4)
    found = peer_torchvision.detect(model, torch.zeros(3, 40, 60, dtype=torch.uint8))
    assert len(found["boxes"]) == len(found["scores"]) == len(found["labels"]) <= 300


def test_the_rate_follows_the_clock() -> None:
    factor = peer_torchvision.rate_factor
    assert [factor(share) for share in (0.0, 0.05, 0.525, 1.0)] == pytest.approx([0.01, 1.0, 0.5, 0.0])
    assert factor(1.2) == pytest.approx(0.0)


def test_runs_work_with_a_commit_and_not_with_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository, out = tmp_path / "repository", tmp_path / "out"
    repository.mkdir()
    out.mkdir()
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    (repository / "code.py").write_text("committed")
    for overrides in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "a"]):
        subprocess.run([*git, *overrides], check=True)
    (repository / "code.py").write_text("changed")
    monkeypatch.setattr(real_sets, "REPOSITORY", repository)
    with real_sets.code_of("HEAD", out) as (code, commit):
        assert (code / "code.py").read_text() == "committed"
        assert len(commit) == 40
    assert not list(out.iterdir())
    with real_sets.code_of("tree", out) as (code, commit):
        assert (code / "code.py").read_text() == "changed"
        assert commit.endswith(" and changes")


def record(side: str, seed: int, area: float, **more: object) -> dict:
    return {
        "set": "cards", "side": side, "seed": seed, "lr": None, "budget": "5min", "label": "", "images_seen": 1000,
        "commit": "0123456789", "hardware": "h", "threads": 2,
        "scores": {"test": {"map_area": area, "coco_map": area / 2}}, **more,
    }  # fmt: skip


def test_the_table_has_mean_and_spread() -> None:
    records = [record("torchvision", 0, 0.5, lr=0.001), record("ours", 0, 0.6), record("ours", 1, 0.7)]
    own = {**record("ours", 0, 0.4), "set": "plates"}
    unscored = {**record("ours", 2, 0.0), "scores": {"valid": {}}}
    table = real_sets.table([own, *records, unscored], split="test").splitlines()
    assert table[2:5] == [
        "| cards | ours | 5min | its own | 0, 1 | .650 +- .071 | .325 +- .035 | 1,000 | 0123456 |",
        "| cards | torchvision | 5min | 0.001 | 0 | .500 | .250 | 1,000 | 0123456 |",
        "| plates | ours | 5min | its own | 0 | .400 | .200 | 1,000 | 0123456 |",
    ]
    assert len(table) == 7


def test_factors_are_compared_seed_by_seed() -> None:
    records = [
        record("ours", seed, area, label=f"finetune_{factor}")
        for factor, areas in (("baseline", (0.5, 0.7)), ("argmax", (0.4, 0.62)))
        for seed, area in enumerate(areas)
    ]
    table = real_sets_factors.table(records, ["baseline", "argmax", "expand"], split="test").splitlines()
    assert table[2:5] == [
        "| baseline | .600 +- .141 | .600 |",
        "| argmax | -.090 +- .014 | -.090 |",
        "| expand |  |  |",
    ]


@pytest.mark.parametrize("name", real_sets_factors.LISTS)
def test_every_factor_changes_the_baseline(name: str) -> None:
    factors = real_sets_factors.LISTS[name]
    baseline = factors[real_sets_factors.BASELINE]
    unchanged = compose_config("train", baseline)
    changed = {factor: compose_config("train", [*baseline, *overrides]) for factor, overrides in factors.items()}
    assert [factor for factor, config in changed.items() if config == unchanged] == [real_sets_factors.BASELINE]


def test_a_set_of_ones_own_is_read_as_its_overrides_say() -> None:
    command = ["--data-root", "a", "--out", "b", "--own-set", "plates", "data=auto", "data.val_fraction=.2"]
    arguments = real_sets.parse([*command, "--sides", "ours"])
    assert arguments.only == [("plates", "ours")]
    run = real_sets.first_run(arguments, "plates", "ours")
    assert run.data_overrides[:3] == ["data=auto", "data.val_fraction=.2", f"data.root={Path('a/plates').resolve()}"]


@pytest.mark.parametrize(("budget", "seconds"), [("90s", 90), ("5min", 300), ("1.5h", 5400)])
def test_budgets(budget: str, seconds: float) -> None:
    assert real_sets.seconds_of(budget) == seconds


@pytest.mark.parametrize(
    "overrides", [["--budget", "5"], ["--budget", "0s"], ["--only", "cards:us"], ["--only", "cards"]]
)
def test_what_cannot_be_is_said(overrides: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        real_sets.parse(["--data-root", "a", "--out", "b", *overrides])
    last = capsys.readouterr().err.splitlines()[-1]
    assert overrides[0] in last
    assert f"'{overrides[1]}'" in last
