"""Run directories as trainings leave them, without training."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from helpers.evaluation_records import random_record
from helpers.tiny_nets import tiny_net
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.inference.detector import Detector

CLASS_NAMES = ("disk", "<script>alert(1)</script>", 'star "&', "ring")
"""Four classes; two of them have names that would break a page that does not escape."""

MakeRun = Callable[..., Path]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    net = tiny_net(num_classes=len(CLASS_NAMES), image_size=(48, 64))
    path = tmp_path_factory.mktemp("net") / "best.ckpt"
    Detector(net, class_names=CLASS_NAMES).save(path)
    return path


@pytest.fixture(scope="session")
def record(tmp_path_factory: pytest.TempPathFactory) -> EvaluationRecord:
    """A validation of 30 images that lie on the disk, but for two: one is missing, one is no image."""
    folder = tmp_path_factory.mktemp("images")
    drawn = random_record(3, num_classes=len(CLASS_NAMES))
    paths = [folder / f"<b>{name}.jpg" for name in drawn.image_ids]
    pixels = np.random.default_rng(0)
    for path, (height, width) in zip(paths, drawn.sizes_px.tolist(), strict=True):
        coarse = pixels.integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(path)
    return replace(drawn, split="val", class_names=CLASS_NAMES, image_paths=tuple(map(str, paths)))


@pytest.fixture
def make_run(tmp_path: Path, make_run_in: MakeRun) -> MakeRun:
    return partial(make_run_in, tmp_path)


@pytest.fixture(scope="session")
def make_run_in(record: EvaluationRecord, checkpoint: Path) -> MakeRun:
    """Give what writes a run directory into a folder; `without` leaves parts out."""

    def make(
        folder: Path,
        name: str = "run",
        *,
        seed: int = 0,
        lr: float = 0.1,
        shift: float = 0.0,
        without: tuple[str, ...] = (),
        splits: tuple[str, ...] = ("val",),
    ) -> Path:
        directory = folder / name
        (directory / "checkpoints").mkdir(parents=True)
        (directory / ".hydra").mkdir()
        if "checkpoint" not in without:
            (directory / "checkpoints" / "best.ckpt").write_bytes(checkpoint.read_bytes())
        for split in splits:
            replace(record, split=split).save(directory / "evaluations" / f"{split}.npz")
        config = {
            "name": "toy", "seed": seed, "image_size": [48, 64], "optimizer": {"lr": lr},
            "data": {"module": {"seed": seed, "batch_size": 8}}, "trainer": {"max_epochs": 3},
            "callbacks": {"best": {"monitor": "val/map_11point", "dirpath": str(directory)}},
        }  # fmt: skip
        run = {
            "started": "2026-01-02T03:04:05+00:00", "command": "python -m ssd_lightning.train experiment=toy <b>",
            "seed": seed, "ssd_lightning": "0.1.0", "git_commit": "0123456789abcdef", "git_dirty": False,
            "versions": {"torch": "2.15.0"}, "machine": {"processor": "2 x <i>chip</i>", "devices": []},
            "class_names": list(CLASS_NAMES), "priors": 300, "data": {"train": {"images": 99}},
        }  # fmt: skip
        result = {"finished": "2026-01-02T04:06:05+00:00", "status": "finished", "scores": {}, "digest": "0"}
        texts = {
            "config.yaml": yaml.safe_dump(config),
            "run.json": json.dumps(run),
            "result.json": json.dumps(result),
            ".hydra/config.yaml": yaml.safe_dump(config),
        }
        for file, text in texts.items():
            if file not in without:
                (directory / file).write_text(text)
        if "metrics.csv" not in without:
            write_metrics(directory / "metrics.csv", shift=shift, with_validation="val" not in without)
        return directory

    return make


def write_metrics(path: Path, *, shift: float = 0.0, with_validation: bool = True) -> None:
    """Write the log of three epochs of ten steps; the second validation, with .6 + shift, is the best."""
    summary = ("map_11point", "map_area", "map", "map_50", "map_75")
    scores = (*(f"val/{name}" for name in summary), *(f"val/ap_11point/{name}" for name in CLASS_NAMES))
    rows: list[dict[str, Any]] = []
    for epoch in range(3):
        for step in range(epoch * 10, epoch * 10 + 10):
            losses = {
                "loss": 9 / (step + 1),
                "train/loss_cls": 6 / (step + 1),
                "train/loss_box": 3 / (step + 1),
                "lr": 0.1,
            }
            rows.append({"epoch": epoch, "step": step, **losses})
        if with_validation:
            score = (0.3, 0.6, 0.5)[epoch] + shift
            losses = {"val/loss_cls": 2.0 - epoch, "val/loss_box": 1.0}
            rows.append({"epoch": epoch, "step": epoch * 10 + 9, **losses, **dict.fromkeys(scores, score)})
    names = ["epoch", "step", "loss", "train/loss_cls", "train/loss_box", "lr", "val/loss_cls", "val/loss_box", *scores]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
