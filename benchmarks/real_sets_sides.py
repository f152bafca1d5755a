"""The sets and sides of `real_sets.py`, and the process that does one run.

    python benchmarks/real_sets_sides.py RUN SPLIT STARTED

A side trains until its time is over and leaves what it finds in the images of `val` and `test` as JSON; whatever the
side, the same code scores that. Only then is a split scored when it is asked for.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peer_torchvision import Peer

    from ssd_lightning.data.dataset import DetectionDataset

HERE = Path(__file__).resolve().parent
SETS = {
    "bccd": ("data=voc_folder", "data.train_split=trainval", "data.val_fraction=0.1"),
    "aquarium": ("data=yolo_folder", "data.val_split=valid", "data.test_split=test"),
    "cards": (
        "data=csv_folder",
        "data.train_split=train_labels.csv",
        "data.test_split=test_labels.csv",
        "data.val_fraction=0.1",
    ),
    "chess": ("data=yolo_folder", "data.val_split=valid", "data.test_split=test"),
    "aerial_maritime": (
        "data=voc_folder",
        "data.train_split=train",
        "data.val_split=valid",
        "data.test_split=test",
    ),
}
"""What the command line says of each set, to every side; boxes without area are skipped, too."""
STAGES = {"valid": "val", "test": "test"}
SCORE_THRESHOLD, MAX_DETECTIONS = 0.001, 300
BATCH_SIZE = 16
"""The peers'."""

Found = Mapping[str, Any]
"""`boxes` normalised xyxy, `scores` descending, `labels` 1..C of one image, in plain lists."""


@dataclass(frozen=True)
class Run:
    """One training of one side on one set."""

    set: str
    side: str
    seed: int
    root: str
    """Folder of the set."""
    folder: str
    """What the run leaves."""
    budget: str
    """How the table names its length."""
    threads: int
    seconds: float | None = None
    """Wall-clock of the training, counted from the start of its process; None: `recipe` says the length."""
    lr: float | None = None
    """None: the side's own."""
    data: Sequence[str] = ()
    """What the command line says of the set; empty: what `SETS` has."""
    recipe: Sequence[str] = field(default_factory=tuple)
    """Overrides of this project's training command."""
    weights: str | None = None
    """ImageNet weights of MobileNetV2."""
    yolo_python: str | None = None
    label: str = ""
    """Tells runs of one side apart."""
    tiny: bool = False
    """Two steps on few images."""

    @property
    def name(self) -> str:
        """What its files are called."""
        parts = [self.set, self.side, self.label, self.budget, self.lr and f"lr{self.lr}", f"seed{self.seed}"]
        return "-".join(str(part) for part in parts if part)

    @property
    def data_overrides(self) -> list[str]:
        """What the command line says of the data."""
        few = ["data.max_images=8", "data.batch_size=2"] if self.tiny else []
        return [*(self.data or SETS[self.set]), f"data.root={self.root}", "data.on_error=skip", *few]


@dataclass(frozen=True)
class Side:
    """One row of the table.

    Args:
        train: trains, leaves detections by `leave` and gives `seconds_train`, `images_seen`, `epochs` and more facts.
        learning_rates: the best of them by the validation images is taken; None is the side's own.
        needs: fields of `Run` that have to be there.
    """

    train: Callable[[Run, float], dict[str, Any]]
    learning_rates: tuple[float | None, ...] = (None,)
    needs: tuple[str, ...] = ()

    def missing(self, run: Run) -> str:
        """Say what the side lacks; empty if nothing."""
        lacking = [name for name in self.needs if not getattr(run, name) or not Path(getattr(run, name)).exists()]
        return ", ".join(f"--{name.replace('_', '-')} is {getattr(run, name)}" for name in lacking)


def main() -> None:
    """Train unless that was done, and score a split."""
    run, split, started = Run(**json.loads(sys.argv[1])), sys.argv[2], float(sys.argv[3])
    folder, begin = Path(run.folder), time.time()
    trained = folder / "trained.json"
    if not trained.is_file():
        write(trained, SIDES[run.side].train(run, started))
    scores = {split: score(run, split)}
    facts = json.loads(trained.read_text())
    facts["seconds_in_all"] = facts.get("seconds_in_all", 0) + time.time() - min(begin, started)
    write(trained, facts)
    named = {name: getattr(run, name) for name in ("set", "side", "label", "seed", "lr", "budget", "threads")}
    write(folder / "answer.json", {**named, **facts, **machine(), "scores": scores})


def write(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""
    partial_path = path.with_suffix(".partial")
    partial_path.write_text(json.dumps(content, indent=2) + "\n")
    partial_path.replace(path)


def machine() -> dict[str, Any]:
    """Name hardware and versions."""
    from importlib.metadata import version

    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = f"{len(names)} x {names[0]}" if names else platform.processor() or platform.machine()
    cards = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    packages = ("torch", "torchvision", "pytorch-lightning")
    return {
        "hardware": ", ".join([*cards, processor]),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


@cache
def open_data(run_root: str, overrides: tuple[str, ...]) -> Any:
    """Open a set as this project's training command does, see `split_of`."""
    from ssd_lightning.assembly import make_data
    from ssd_lightning.config import compose_config

    return make_data(compose_config("train", list(overrides)))


def split_of(run: Run, stage: str) -> "DetectionDataset":
    """Open the images of `train`, `val` or `test` without any transform."""
    dataset: DetectionDataset = open_data(run.root, tuple(run.data_overrides)).dataset(stage)
    dataset.transform = None
    return dataset


def leave(run: Run, stage: str, found: Iterable[tuple[str, Found]]) -> None:
    """Write what was found in the images of a split, by their names."""
    write(Path(run.folder) / f"{stage}.json", dict(found))


def score(run: Run, split: str) -> dict[str, Any]:
    """Score what a run left for `valid` or `test`."""
    import torch

    from ssd_lightning.metrics.coco import COCOMeanAveragePrecision
    from ssd_lightning.metrics.voc import VOCMeanAveragePrecision

    dataset = split_of(run, STAGES[split])
    found = json.loads((Path(run.folder) / f"{STAGES[split]}.json").read_text())
    voc = VOCMeanAveragePrecision(len(dataset.class_names))
    coco = COCOMeanAveragePrecision((1, 10, MAX_DETECTIONS))
    for index in range(len(dataset)):
        _, target = dataset[index]
        one = found[target["image_id"]]
        detections = {
            "boxes": torch.tensor(one["boxes"], dtype=torch.float32).reshape(-1, 4),
            "scores": torch.tensor(one["scores"], dtype=torch.float32),
            "labels": torch.tensor(one["labels"], dtype=torch.int64),
        }
        for metric in (voc, coco):
            metric.update([detections], [target])
    scores, summary = voc.compute(), coco.compute()
    return {
        **{name: float(scores[name]) for name in ("map_area", "map_11point")},
        "coco_map": float(summary["map"]),
        "coco_map_50": float(summary["map_50"]),
        "ap_area": dict(zip(dataset.class_names, scores["ap_area"].tolist(), strict=True)),
        "images": len(dataset),
    }


def run_program(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run a program whose messages are in the log already; this process fails with it."""
    done = subprocess.run(command, env=environment, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"{' '.join(command[:2])} ... ended with exit code {done.returncode}")


# The sides.


def train_ours(run: Run, started: float) -> dict[str, Any]:
    """Train by this project's command, and detect with the checkpoint that a user would take."""
    run_dir = Path(run.folder) / "run"
    shutil.rmtree(run_dir, ignore_errors=True)  # of a run that was ended
    length = [f"budget={run.budget}"] if run.seconds is not None and not run.tiny else []
    length += ["trainer.max_steps=2"] if run.tiny else []
    weights = [f"backbone.weights={run.weights}"] if run.weights else []
    overrides = [*run.recipe, *run.data_overrides, *weights, *length, f"seed={run.seed}", f"hydra.run.dir={run_dir}"]
    run_program([sys.executable, "-m", "ssd_lightning.train", *overrides], os.environ)
    seconds = time.time() - started

    import torch

    from ssd_lightning.inference.detector import Detector

    record = json.loads((run_dir / "run.json").read_text())
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    images_seen = checkpoint["global_step"] * record["batch"]["batch_size"]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    detector = Detector.load(run_dir, device)
    detector.use_postprocess(score_threshold=SCORE_THRESHOLD, max_detections=MAX_DETECTIONS)
    for stage in STAGES.values():
        leave(run, stage, detect_all(split_of(run, stage), partial(detect_ours, detector)))
    epochs = images_seen / len(split_of(run, "train"))
    return {"overrides": overrides, "seconds_train": seconds, "images_seen": images_seen, "epochs": epochs}


def detect_ours(detector: Any, image: Any) -> Found:
    """Detect in one image of any size."""
    one, (height, width) = detector(image), image.shape[-2:]
    sides = [width, height, width, height]
    return {
        "boxes": (one.boxes_xyxy_px / sides).tolist(),
        "scores": one.scores.tolist(),
        "labels": one.labels.tolist(),
    }


def detect_all(dataset: "DetectionDataset", detect: Callable[[Any], Found]) -> Iterable[tuple[str, Found]]:
    """Detect in every image of a split, uint8 `[3, H, W]`, in its own size."""
    for index in range(len(dataset)):
        image, target = dataset[index]
        yield target["image_id"], detect(image)


def train_torchvision(network: str, run: Run, started: float) -> dict[str, Any]:
    """Train one of `peer_torchvision.PEERS` by a plain loop until the time is over.

    What this project needs to read the annotations does not count: its imports take seconds, and a plain loop would
    do without them. To decode the images does.
    """
    import torch
    from peer_torchvision import PEERS, detect, train

    torch.set_num_threads(run.threads)
    assert run.seconds is not None
    assert run.lr is not None
    peer: Peer = PEERS[network]
    begin = time.time()
    dataset = split_of(run, "train")
    started += time.time() - begin
    model, steps, batch_size = train(
        dataset,
        peer=peer,
        weights=run.weights,
        lr=run.lr,
        batch_size=2 if run.tiny else BATCH_SIZE,
        seed=run.seed,
        deadline=started + run.seconds,
        max_steps=2 if run.tiny else None,
    )
    seconds = time.time() - started
    for stage in STAGES.values():
        leave(run, stage, detect_all(split_of(run, stage), partial(detect, model)))
    images_seen = steps * batch_size
    return {"seconds_train": seconds, "images_seen": images_seen, "epochs": images_seen / len(dataset)}


def train_yolo(run: Run, started: float) -> dict[str, Any]:
    """Train YOLO11n from its YAML by the Python of another environment."""
    assert run.seconds is not None
    splits = {stage: split_of(run, stage) for stage in ("train", *STAGES.values())}
    folder = Path(run.folder) / "yolo"
    names = write_yolo_set(splits, folder / "data")
    settings = {
        "data": str(folder / "data" / "data.yaml"),
        "images": {stage: names[stage] for stage in STAGES.values()},
        "found": {stage: str(Path(run.folder) / f"{stage}.json") for stage in STAGES.values()},
        "facts": str(folder / "facts.json"),
        "project": str(folder),
        "hours": run.seconds / 3600,
        "batch": 2 if run.tiny else BATCH_SIZE,
        "threads": run.threads,
        "seed": run.seed,
        "score_threshold": SCORE_THRESHOLD,
        "max_detections": MAX_DETECTIONS,
    }
    assert run.yolo_python is not None
    command = [run.yolo_python, str(HERE / "peer_yolo.py"), json.dumps(settings)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run_program(command, environment)
    facts = json.loads((folder / "facts.json").read_text())
    return {**facts, "epochs": facts["images_seen"] / len(splits["train"])}


def write_yolo_set(splits: Mapping[str, "DetectionDataset"], folder: Path) -> dict[str, dict[str, str]]:
    """Write images, pixel for pixel as the other sides see them, and boxes in YOLO's layout.

    Returns:
        Split -> image id -> path of the image.
    """
    from dataclasses import replace

    from ssd_lightning.data.writers import write_yolo
    from ssd_lightning.data.writing import write_as_png

    written = {}
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was ended
    folder.mkdir(parents=True)
    for stage, dataset in splits.items():
        images = folder / "images" / stage
        images.mkdir(parents=True)
        written[stage] = [
            replace(record, image_path=images / f"{number:06d}.png")
            for number, record in enumerate(dataset.annotations)
        ]
        for source, target in zip(dataset.annotations, written[stage], strict=True):
            write_as_png(source.image_path, target.image_path, source.size_px)
    write_yolo(folder, written, splits["train"].class_names)
    return {
        stage: {record.image_id: str(record.image_path) for record in records} for stage, records in written.items()
    }


PRETRAINED_RATES = (0.0005, 0.001, 0.002)
SIDES = {
    "ours": Side(train_ours),
    "torchvision": Side(
        partial(train_torchvision, "ssdlite320_mobilenet_v2"), learning_rates=PRETRAINED_RATES, needs=("weights",)
    ),
    "torchvision_scratch_ssd300": Side(
        # Without batch norm, so that AdamW wants less.
        partial(train_torchvision, "ssd300_vgg16"),
        learning_rates=(0.0001, 0.0002, 0.0005),
    ),
    "torchvision_scratch_ssdlite": Side(
        partial(train_torchvision, "ssdlite320_mobilenet_v3_large"), learning_rates=PRETRAINED_RATES
    ),
    "yolo11n": Side(train_yolo, needs=("yolo_python",)),
}

if __name__ == "__main__":
    main()
