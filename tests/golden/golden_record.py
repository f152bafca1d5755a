"""What the product computes, recorded: run it before and after a change that must not change results.

    python tests/golden/golden_record.py before.json
    python tests/golden/golden_record.py after.json --against before.json

Everything runs at fixed seeds, in one thread on the CPU, in a temporary folder. On the same machine equal code gives
equal bits, so both files are equal; another processor may differ in the last digits. Names of parameters do not
matter, since weights are compared by their values. Takes about four minutes.
"""

import argparse
import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssd_lightning.data.augmentation import SSDAugmentation
from ssd_lightning.losses import (
    ArgmaxMatcher,
    BipartiteMatcher,
    CrossEntropy,
    FocalLoss,
    HardNegativeCrossEntropy,
    IoULoss,
    MultiBoxLoss,
    SmoothL1Loss,
)
from ssd_lightning.metrics.voc import VOCMeanAveragePrecision
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.ops.priors import SSD300_VOC, make_priors
from ssd_lightning.types import SSDOutput

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "offline"}
TOY = ["data.num_train=24", "data.num_val=5", "data.num_test=7", "data.side_px=96"]
TRAIN = [
    "data=toy", *TOY, "data.num_workers=0", "data.batch_size=8", "report=false", "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1",
]  # fmt: skip
TINY = ["experiment=toy_tiny", "image_size=[64,64]"]
NETWORKS = {
    "tiny_ssd": [*TINY, "trainer.max_steps=20", "trainer.max_epochs=-1"],
    "ssdlite320": ["model=ssdlite320", "backbone.weights=null", "trainer.max_steps=20", "trainer.max_epochs=-1"],
    "ssd300_vgg16": ["model=ssd300", "backbone.weights=null", "trainer.max_steps=2", "trainer.max_epochs=-1"],
}


def digest(values: Any) -> str:
    """Hash tensors, arrays or plain values, their kind and shape included."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    if isinstance(values, np.ndarray):
        content = f"{values.dtype}{values.shape}".encode() + np.ascontiguousarray(values).tobytes()
    elif isinstance(values, bytes):
        content = values
    elif isinstance(values, Mapping):
        content = "".join(f"{key}{digest(value)}" for key, value in sorted(values.items())).encode()
    elif isinstance(values, Iterable) and not isinstance(values, str):
        content = "".join(map(digest, values)).encode()
    else:
        content = repr(values).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def run(folder: Path, command: str, *overrides: str) -> str:
    line = [sys.executable, "-m", f"ssd_lightning.{command}", *overrides]
    done = subprocess.run(line, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command} {' '.join(overrides)} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def losses_of(run_dir: Path) -> list[list[float]]:
    with (run_dir / "metrics.csv").open() as text:
        rows = [row for row in csv.DictReader(text) if row.get("loss")]
    return [[float(row[name]) for name in ("loss", "train/loss_box", "train/loss_cls")] for row in rows]


def weights_of(run_dir: Path) -> str:
    saved = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    return digest(sorted(digest(tensor) for name, tensor in saved["state_dict"].items() if name.startswith("net.")))


def record_training(folder: Path) -> dict[str, Any]:
    found = {}
    for name, overrides in NETWORKS.items():
        run(folder, "train", *TRAIN, *overrides, f"hydra.run.dir={name}")
        found[name] = {"losses": losses_of(folder / name), "weights": weights_of(folder / name)}
    return found


def record_resumption(folder: Path) -> dict[str, Any]:
    """Kill a run after its first epoch and go on with it."""
    overrides = [*TRAIN, *TINY, "trainer.max_epochs=8", "trainer.check_val_every_n_epoch=1", "hydra.run.dir=killed"]
    overrides.append("resume=auto")
    line, quiet = [sys.executable, "-m", "ssd_lightning.train", *overrides], subprocess.DEVNULL
    process = subprocess.Popen(line, cwd=folder, env=ENVIRONMENT, stdout=quiet, stderr=quiet)
    last = folder / "killed" / "checkpoints" / "last.ckpt"
    while not last.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    was_killed = process.returncode == -signal.SIGKILL
    run(folder, "train", *overrides)
    return {"was_killed": was_killed, "weights": weights_of(folder / "killed")}


def record_commands(folder: Path) -> dict[str, Any]:
    data = ["data=toy", *TOY, "data.num_workers=0"]
    run(folder, "evaluate", "checkpoint=tiny_ssd", *data, "device=cpu", "output=scores.json")
    scores = json.loads((folder / "scores.json").read_text())
    image = sorted((folder / "datasets/toy/JPEGImages").glob("test_*.jpg"))[0]
    run(folder, "predict", "checkpoint=tiny_ssd", f"source={image}", "device=cpu", "score_threshold=0.1", "save=[json]")
    predictions = json.loads((folder / "predictions/predictions.json").read_text())
    run(folder, "export", "checkpoint=tiny_ssd", "format=onnx", "output=tiny.onnx", "latency=false")
    formats = {}
    for target in ("coco", "csv", "voc", "yolo"):
        run(folder, "convert", *data, f"to={target}", f"output=as_{target}")
        run(
            folder, "evaluate", "checkpoint=tiny_ssd", f"data={target}_folder", f"data.root=as_{target}",
            "data.num_workers=0", "device=cpu", "output=as.json",
        )  # fmt: skip
        formats[target] = plain_scores(json.loads((folder / "as.json").read_text()))
    return {
        "evaluation": plain_scores(scores),
        "prediction": sorted(numbers_in(predictions)),
        "export": run_onnx(folder / "tiny.onnx", image),
        "formats": formats,
    }


def plain_scores(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {name: scores[name] for name in ("map_11point", "map_area", "map", "ap_11point", "ap_area")}


def numbers_in(values: Any) -> list[float]:
    if isinstance(values, bool) or values is None or isinstance(values, str):
        return []
    if isinstance(values, int | float):
        return [float(values)]
    inner = values.values() if isinstance(values, dict) else values
    return [number for value in inner for number in numbers_in(value)]


def run_onnx(path: Path, image: Path) -> str:
    import cv2
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    pixels = cv2.imread(str(image), cv2.IMREAD_COLOR_RGB)
    return digest(session.run(None, {session.get_inputs()[0].name: pixels[None]}))


def record_functions(folder: Path) -> dict[str, Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    parts = {
        "augmentation": record_augmentation,
        "loss": record_losses,
        "detections": record_detections,
        "metric": record_metric,
    }
    found = {name: record() for name, record in parts.items()}
    torch.set_num_threads(threads)
    return found


def random_targets(count: int, seed: int) -> list[dict[str, Any]]:
    """Draw targets of 0 to 12 boxes of 4 classes; every second box is close to the one before it."""
    generator = torch.Generator().manual_seed(seed)
    targets = []
    for index in range(count):
        corners = torch.rand(index % 13, 2, 2, generator=generator).sort(dim=1).values
        shift = 0.01 * torch.rand(len(corners) // 2, 2, 2, generator=generator)
        corners[1::2] = (corners[::2][: len(shift)] + shift).clamp(max=1)
        targets.append(
            {
                "boxes": corners.flatten(1),
                "labels": torch.randint(1, 5, (len(corners),), generator=generator),
                "difficult": torch.rand(len(corners), generator=generator) < 0.1,
                "image_id": str(index),
                "size_px": (100, 120),
            }
        )
    return targets


def random_output(count: int, seed: int, spread: float) -> SSDOutput:
    generator = torch.Generator().manual_seed(seed)
    priors = make_priors(SSD300_VOC, 300)
    offsets = torch.randn(count, len(priors), 4, generator=generator)
    logits = torch.randn(count, len(priors), 5, generator=generator) * spread
    return SSDOutput(offsets, logits, priors)


def record_augmentation() -> dict[str, str]:
    ways = {
        "paper": {},
        "center": {"crop_rule": "center", "photometric": False, "max_expand_ratio": 2.0, "min_crop_scale": 0.5},
        "all_letterbox": {"crop_rule": "all", "resize": "letterbox", "vertical_flip": True},
    }
    found = {}
    for name, settings in ways.items():
        augment = SSDAugmentation(image_size=(96, 128), **settings)
        samples = []
        for index, target in enumerate(random_targets(26, seed=3)):
            generator = np.random.default_rng(index)
            pixels = generator.integers(0, 256, (80 + index, 120 - index, 3), dtype=np.uint8)
            samples.append(augment(pixels, target["boxes"].numpy(), seed=index))
        found[name] = digest(samples)
    return found


LOSSES: dict[str, Callable[[], MultiBoxLoss]] = {
    "paper": lambda: MultiBoxLoss(),
    "argmax_focal_giou": lambda: MultiBoxLoss(
        matcher=ArgmaxMatcher(), class_loss=FocalLoss(), box_loss=IoULoss("giou")
    ),
    "ciou_ce": lambda: MultiBoxLoss(class_loss=CrossEntropy(), box_loss=IoULoss("ciou"), normalizer="priors"),
    "l1_min_negatives": lambda: MultiBoxLoss(
        matcher=BipartiteMatcher(0.4), class_loss=HardNegativeCrossEntropy(3, 5), box_loss=SmoothL1Loss(beta=0)
    ),
    "diou_foreground": lambda: MultiBoxLoss(
        class_loss=HardNegativeCrossEntropy(2, 0, "foreground"), box_loss=IoULoss("diou"), box_weight=2
    ),
    "per_image": lambda: MultiBoxLoss(normalizer="positives_per_image", box_loss=SmoothL1Loss(0.11)),
    "batch_size": lambda: MultiBoxLoss(normalizer="batch_size"),
}


def record_losses() -> dict[str, Any]:
    found = {}
    for name, make in LOSSES.items():
        loss, targets = make(), random_targets(26, seed=5)
        output = random_output(26, seed=7, spread=1.0)
        output = SSDOutput(
            output.box_offsets.requires_grad_(), output.class_logits.requires_grad_(), output.priors_cxcywh
        )
        parts = loss(output, targets)
        sum(parts.values()).backward()
        assignment = loss.matcher(targets, output.priors_cxcywh)
        found[name] = {
            "losses": sorted(value.item() for value in parts.values()),
            "gradients": digest([output.box_offsets.grad, output.class_logits.grad]),
            "matches": digest(assignment.labels),
        }
    return found


POSTPROCESS: dict[str, dict[str, Any]] = {
    "paper": {},
    "agnostic_clip": {"class_agnostic": True, "clip_first": True, "iou_threshold": 0.6},
    "few": {"score_threshold": 0.3, "top_k": 20, "max_detections": 10},
    "many": {"score_threshold": 0.0001, "max_detections": 300},
    "soft_linear": {"soft_nms": "linear", "score_threshold": 0.2},
    "soft_gaussian": {"soft_nms": "gaussian", "score_threshold": 0.2},
}


def record_detections() -> dict[str, Any]:
    found = {}
    for name, settings in POSTPROCESS.items():
        for spread in (0.5, 3.0):
            detections = PostProcess(**settings)(random_output(3, seed=11, spread=spread))
            columns = [[one["boxes"], one["scores"], one["labels"]] for one in detections]
            counts = [len(one["scores"]) for one in detections]
            found[f"{name}_{spread}"] = {"counts": counts, "digest": digest(columns)}
    return found


def record_metric() -> dict[str, Any]:
    """Score targets that were moved a little as if they were detections."""
    metric, targets = VOCMeanAveragePrecision(num_classes=4), random_targets(26, seed=13)
    generator = torch.Generator().manual_seed(17)
    for target in targets:
        shift = 0.03 * torch.randn(target["boxes"].shape, generator=generator)
        scores = torch.rand(len(shift), generator=generator).sort(descending=True).values
        detections = {"boxes": target["boxes"] + shift, "scores": scores, "labels": target["labels"]}
        metric.update([detections], [target])
    result = metric.compute()
    return {name: result[name].tolist() for name in ("map_11point", "map_area", "ap_11point", "ap_area")}


PARTS = {
    "functions": record_functions,
    "training": record_training,
    "commands": record_commands,
    "resumption": record_resumption,
}


def differences(before: Any, after: Any, name: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted({*before, *after})
        return [line for key in keys for line in differences(before.get(key), after.get(key), f"{name}/{key}")]
    return [] if json.dumps(before) == json.dumps(after) else [f"{name}: {before} -> {after}"[:300]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--against", type=Path, help="an earlier record; differences end with exit code 1")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {name: PARTS[name](Path(folder)) for name in PARTS if name in arguments.parts}
    arguments.output.write_text(json.dumps(found, indent=1) + "\n")
    if arguments.against is None:
        return 0
    before = json.loads(arguments.against.read_text())
    wrong = differences({name: before[name] for name in found}, found)
    print("\n".join(wrong) or "nothing differs")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
