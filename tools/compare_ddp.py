"""Train the same batches in one process and in two, and say how far the weights end apart.

    python tools/compare_ddp.py
    python tools/compare_ddp.py --steps 100 --accelerator gpu     # two GPUs: NCCL

Prints three tables in Markdown: the weights, whether the images of every step are the same, and how many of the
augmentation's draws are distinct. Ends with code 1 if a network without batch norm ends farther apart than `--most`.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate  # noqa: TID251
from torch.utils.data import DataLoader

from ssd_lightning.config import compose_config
from ssd_lightning.data.dataset import DetectionDataset, Transform, collate
from ssd_lightning.data.sampler import EpochSampler
from ssd_lightning.data.toy import write_toy_dataset

BATCH = 8
WITHOUT_BATCH_NORM = ("model=qfgaohao_squeezenet_lite", "backbone.weights=null", "image_size=[160,160]")
WITH_BATCH_NORM = ("model=tiny_ssd", "image_size=[64,64]")
COMMON = (
    "data=toy", "data.num_val=4", "data.num_test=2", "data.side_px=96", "data.num_workers=0", "optimizer.lr=0.01",
    "trainer.check_val_every_n_epoch=1000", "trainer.max_epochs=1", "trainer.enable_progress_bar=false",
)  # fmt: skip


def train(root: Path, name: str, ranks: int, overrides: list[str]) -> dict[str, torch.Tensor]:
    """Train with `BATCH` images a step on so many ranks, and give the weights."""
    run = root / name
    command = [sys.executable, "-m", "ssd_lightning.train", *COMMON, *overrides, f"hydra.run.dir={run}"]
    command += [f"trainer.devices={ranks}", f"data.batch_size={BATCH}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"{name} failed with code {done.returncode}:\n{done.stdout}{done.stderr}")
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return {key: value.double() for key, value in state.items() if value.is_floating_point()}


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> tuple[float, float]:
    """Give the largest difference of a weight, and the norm of all differences over that of all weights."""
    largest = max(float((one[name] - other[name]).abs().max()) for name in one)
    apart = sum(float((one[name] - other[name]).square().sum()) for name in one) ** 0.5
    return largest, apart / sum(float(value.square().sum()) for value in one.values()) ** 0.5


def steps_with_the_same_images(size: int, epochs: int, ranks: int) -> tuple[int, int]:
    """Count the steps whose set of images is that of one process, and all steps."""
    same = steps = 0
    for epoch in range(epochs):
        orders = []
        for world_size in (1, ranks):
            samplers = [
                EpochSampler(size=size, pad=True, batch_size=BATCH, rank=r, world_size=world_size)
                for r in range(world_size)
            ]
            for sampler in samplers:
                sampler.set_epoch(epoch)
            # In step s every rank has its s-th batch.
            columns = zip(*(list(sampler) for sampler in samplers), strict=True)
            orders.append([sample for column in columns for sample in column])
        for start in range(0, size - BATCH + 1, BATCH):
            steps += 1
            same += set(orders[0][start : start + BATCH]) == set(orders[1][start : start + BATCH])
    return same, steps


class Draws:
    """Augments, and paints the seed it was given and a digest of the result over the image."""

    def __init__(self, augmentation: Transform) -> None:
        self.augmentation = augmentation

    def __call__(
        self, image: np.ndarray, boxes_xyxy: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Transform one sample."""
        image, boxes, kept = self.augmentation(image, boxes_xyxy, seed)
        digest = hashlib.blake2b(image.tobytes() + boxes.tobytes(), digest_size=16).digest()
        image.reshape(-1)[:24] = list(seed.to_bytes(8, "little") + digest)
        return image, boxes, kept


def distinct_draws(root: Path, *, images: int, epochs: int, ranks: int, workers: int) -> tuple[int, int, int]:
    """Draw the same image again and again; give distinct seeds, distinct results, and all draws."""
    overrides = [*COMMON, *WITHOUT_BATCH_NORM, f"data.root={root / 'toy'}", f"data.num_train={4 * BATCH}"]
    module = instantiate(compose_config("train", overrides).data.module, _convert_="all")
    source = module.dataset("train")
    dataset = DetectionDataset(
        records=source.records[:1] * images, class_names=source.class_names, transform=Draws(source.transform), seed=0
    )
    seeds: Counter = Counter()
    results: Counter = Counter()
    for rank in range(ranks):
        sampler = EpochSampler(size=images, pad=True, rank=rank, world_size=ranks)
        loader = DataLoader(
            dataset, BATCH, sampler=sampler, collate_fn=collate, num_workers=workers, persistent_workers=workers > 0
        )
        for epoch in range(epochs):
            sampler.set_epoch(epoch)
            for batch, _ in loader:
                for image in batch:
                    marks = bytes(image.permute(1, 2, 0).reshape(-1)[:24].tolist())
                    seeds[marks[:8]] += 1
                    results[marks[8:]] += 1
    return len(seeds), len(results), seeds.total()


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="optimiser steps of every run")
    parser.add_argument("--accelerator", default="cpu", choices=("cpu", "gpu"), help="gpu needs two of them")
    parser.add_argument("--most", type=float, default=1e-3, help="relative difference that is still arithmetic")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        size = arguments.steps * BATCH
        write_toy_dataset(root / "toy", num_train=size, num_val=4, num_test=2, image_size_px=(96, 96))
        data = [f"data.root={root / 'toy'}", f"data.num_train={size}", f"trainer.accelerator={arguments.accelerator}"]
        data += ["matmul_precision=highest", f"trainer.limit_train_batches={arguments.steps}"]
        plain, normed = [*data, *WITHOUT_BATCH_NORM], [*data, *WITH_BATCH_NORM]
        if arguments.accelerator == "gpu":
            normed.append("trainer.sync_batchnorm=true")
        single, double = train(root, "one", 1, plain), train(root, "two", 2, plain)
        rows = [
            ("one process, twice", distance(single, train(root, "one_again", 1, plain))),
            ("two processes, twice", distance(double, train(root, "two_again", 2, plain))),
            ("one and two", distance(single, double)),
            ("one and two, batch norm", distance(train(root, "n1", 1, normed), train(root, "n2", 2, normed))),
        ]
        print(f"| after {arguments.steps} steps of {BATCH} images | largest difference | relative |\n|---|---|---|")
        for name, (largest, relative) in rows:
            print(f"| {name} | {largest:.1e} | {relative:.1e} |")
        print("\n| ranks | steps with the images of one process |\n|---|---|")
        for ranks in (2, 4):
            same, steps = steps_with_the_same_images(size, epochs=3, ranks=ranks)
            print(f"| {ranks} | {same} of {steps} |")
        print("\n| ranks x workers | draws | distinct seeds | distinct samples |\n|---|---|---|---|")
        for ranks, workers in ((1, 0), (1, 2), (2, 2)):
            seeds, results, draws = distinct_draws(root, images=32, epochs=4, ranks=ranks, workers=workers)
            print(f"| {ranks} x {workers} | {draws} | {seeds} | {results} |")
    sys.exit(1 if rows[2][1][1] > arguments.most else 0)


if __name__ == "__main__":
    main()
