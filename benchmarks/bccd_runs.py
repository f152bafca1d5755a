"""What the BCCD benchmarks share: this project's training command, the score of the test pictures, and tables."""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.resize import resize_image
from ssd_lightning.data.voc import VOCDataset
from ssd_lightning.detector import Detector
from ssd_lightning.metrics.voc import VOCMeanAveragePrecision
from ssd_lightning.types import Detections

SCORES = ("map_11point", "map_area")


def open_split(root: Path, split: str, class_names: Sequence[str] | None = None) -> VOCDataset:
    """Open a split of BCCD without any transform; two of its boxes have no area and are left out."""
    return VOCDataset(splits=[{"root": str(root), "split": split}], class_names=class_names, on_error="skip")


def score(dataset: DetectionDataset, detect: Callable[[Sequence[Tensor]], list[Detections]]) -> dict[str, Any]:
    """Score a detector on pictures of any size with VOC's metric, in plain values."""
    metric = VOCMeanAveragePrecision(len(dataset.class_names))
    for index in range(len(dataset)):
        image, target = dataset[index]
        metric.update(detect([image]), [target])
    scores = metric.compute()
    return {
        **{name: float(scores[name]) for name in SCORES},
        "ap_11point": dict(zip(dataset.class_names, scores["ap_11point"].tolist(), strict=True)),
        "pictures": len(dataset),
    }


def train_ours(overrides: Sequence[str], run_dir: Path, *, data_root: Path, seed: int) -> dict[str, Any]:
    """Run `python -m ssd_lightning.train` on all pictures of `trainval` and score its last weights on `test`."""
    settings = [f"data.root={data_root}", "data.val_fraction=0.0", "data.num_workers=0", f"seed={seed}"]
    where = f"hydra.run.dir={run_dir}"
    subprocess.run([sys.executable, "-m", "ssd_lightning.train", *overrides, *settings, where], check=True)  # noqa: S603
    detector = Detector.load(run_dir / "checkpoints" / "last.ckpt", "cpu")
    test = open_split(data_root, "test", detector.class_names)

    def detect(images: Sequence[Tensor]) -> list[Detections]:
        sized = [resize_image(image.permute(1, 2, 0).numpy(), detector.image_size) for image in images]
        return detector.detect(torch.from_numpy(np.stack(sized)).permute(0, 3, 1, 2))

    return score(test, detect)


def result_of(path: Path, measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Measure, or read what an earlier call with this path has measured."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dict(measure()), indent=2) + "\n")
    return json.loads(path.read_text())


def table(results: Mapping[str, Sequence[Mapping[str, Any]]], title: str) -> str:
    """Lay out mean and standard deviation over seeds, in Markdown."""
    lines = [f"| {title} | seeds | mAP 11-point | mAP area |", "|---|---|---|---|"]
    for name, runs in results.items():
        cells = [_mean_and_deviation([run[score_name] for run in runs]) for score_name in SCORES]
        lines.append(f"| {name} | {len(runs)} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def _mean_and_deviation(values: Sequence[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.3f} ± {deviation:.3f}"
