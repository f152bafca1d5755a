"""Start-up time of commands, compared with the import of torch and Lightning."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
from results import Comparison

from ssd_lightning.timing import time_pairs

REPOSITORY = Path(__file__).resolve().parents[1]
TRAIN = ("-m", "ssd_lightning.train")
ONE_STEP = (
    "data=toy", "data.num_train=4", "data.num_val=1", "data.num_test=1", "data.side_px=96", "data.batch_size=4",
    "data.num_workers=0", "backbone=tiny", "image_size=[64,64]", "trainer.max_steps=1", "trainer.limit_val_batches=0",
    "trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "trainer.enable_checkpointing=false",
    "trainer.log_every_n_steps=1", "hydra.run.dir=run",
)  # fmt: skip
"""One step on four images of 96 x 96, without validation and checkpoints."""


def compare_start(*, folder: Path, pairs: int = 5, warmup: int = 1) -> list[Comparison]:
    """Compare `train --help` and a whole run of one step with the import of torch and Lightning.

    Each is a process of its own, timed from its start to its end.

    Args:
        folder: folder of the run.
        pairs: number of timings of each side.
        warmup: runs of each side before the timings.
    """
    works = {"train --help": (*TRAIN, "--help"), "a run of one step, from start to end": (*TRAIN, *ONE_STEP)}
    peer = ("-c", "import torch, pytorch_lightning")
    comparisons = []
    for setting, arguments in works.items():
        sides = partial(run, folder, *arguments), partial(run, folder, *peer)
        ours_s, theirs_s = time_pairs(*sides, pairs=pairs, device=torch.device("cpu"), warmup=warmup)
        comparisons.append(Comparison("start", setting, f"python -c '{peer[1]}'", ours_s, theirs_s))
    return comparisons


def run(folder: Path, *arguments: str) -> None:
    """Run Python with these arguments in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, check=True)  # noqa: S603
