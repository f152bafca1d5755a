"""Run directories as trainings leave them, without training."""

import csv
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from PIL import Image

from helpers.evaluation_records import random_record
from helpers.tiny_nets import tiny_net
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.inference.detector import Detector

CLASS_NAMES = ("disk", "<script>alert(1)</script>", 'star "&', "\U000e0fff")
"""Two of the four names would break a page that does not escape; no font has the letter of the last."""
SUMMARY = ("map_11point", "map_area", "map", "map_50", "map_75")


def record_with_images(folder: Path) -> EvaluationRecord:
    """Write the images of a validation, 30 with odd names."""
    drawn = random_record(3, num_classes=len(CLASS_NAMES))
    paths = [folder / f"<b>{name}.jpg" for name in drawn.image_ids]
    pixels = np.random.default_rng(0)
    for path, (height, width) in zip(paths, drawn.sizes_px.tolist(), strict=True):
        coarse = pixels.integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(path)
    return replace(drawn, class_names=CLASS_NAMES, image_paths=tuple(map(str, paths)))


def make_run(
    directory: Path,
    *,
    record: EvaluationRecord | None = None,
    seed: int = 0,
    lr: float = 0.1,
    shift: float = 0.0,
    without: tuple[str, ...] = (),
) -> Path:
    """Write a run directory; `without` leaves out files, the `checkpoint`, or the validation (`val`)."""
    for folder in ("checkpoints", ".hydra"):
        (directory / folder).mkdir(parents=True)
    if record is not None:
        record.save(directory / "evaluations" / f"{record.split}.npz")
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
    texts = {"config.yaml": yaml.safe_dump(config), "run.json": json.dumps(run), "result.json": json.dumps(result)}
    for file, text in (texts | {".hydra/config.yaml": texts["config.yaml"]}).items():
        if file not in without:
            (directory / file).write_text(text)
    if "checkpoint" not in without:
        (directory / "checkpoints" / "best.ckpt").write_bytes(_checkpoint())
    if "metrics.csv" not in without:
        _write_metrics(directory / "metrics.csv", (0.3, 0.6, 0.5) if "val" not in without else (), shift)
    return directory


@cache
def _checkpoint() -> bytes:
    with TemporaryDirectory() as folder:
        net = tiny_net(num_classes=len(CLASS_NAMES), image_size=(48, 64))
        Detector(net, class_names=CLASS_NAMES).save(Path(folder) / "best.ckpt")
        return (Path(folder) / "best.ckpt").read_bytes()


def _write_metrics(path: Path, scores: tuple[float, ...], shift: float) -> None:
    """Write the log of three epochs of ten steps, each with one of the scores of a validation if there are any."""
    scored = [*(f"val/{name}" for name in SUMMARY), *(f"val/ap_11point/{name}" for name in CLASS_NAMES)]
    losses = {"loss": 9.0, "train/loss_cls": 6.0, "train/loss_box": 3.0}
    rows: list[dict[str, Any]] = [
        {"epoch": step // 10, "step": step, "lr": 0.1, **{name: value / (step + 1) for name, value in losses.items()}}
        for step in range(30)
    ]
    for epoch, score in enumerate(scores):
        row = {"epoch": epoch, "step": epoch * 10 + 9, "val/loss_cls": 2.0 - epoch, "val/loss_box": 1.0}
        rows.insert(11 * epoch + 10, row | dict.fromkeys(scored, score + shift))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "step", "lr", *losses, "val/loss_cls", "val/loss_box", *scored])
        writer.writeheader()
        writer.writerows(rows)
