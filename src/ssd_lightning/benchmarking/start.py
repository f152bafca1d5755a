"""Start-up time of commands, compared with the import of torch and Lightning."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from ssd_lightning.data.toy import write_toy_dataset
from ssd_lightning.timing import Comparison, seconds_of

PEER = "python -c 'import torch, pytorch_lightning'"

FIRST_STEP = (
    "data=toy", "data.num_train=4", "data.num_val=1", "data.num_test=1", "data.side_px=96", "data.batch_size=4",
    "data.num_workers=0", "backbone=tiny", "image_size=[64,64]", "trainer.max_steps=1", "trainer.limit_val_batches=0",
    "trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "trainer.enable_checkpointing=false",
    "trainer.log_every_n_steps=1", "hydra.run.dir=run",
)  # fmt: skip
"""One step on four images of 96 x 96, without validation and checkpoints."""


def compare_start(*, pairs: int, folder: Path) -> list[Comparison]:
    """Compare `train --help` and a run of one step with the import of torch and Lightning, each in its own process.

    A run is timed as a whole, from start to end of its process. This includes start-up, reading four small images,
    the first step and the shutdown, so the time to the first step is less.

    Args:
        pairs: number of timings of each side.
        folder: folder for the toy images.
    """
    write_toy_dataset(folder / "datasets" / "toy", num_train=4, num_val=1, num_test=1, image_size_px=(96, 96))
    train = ("-m", "ssd_lightning.train")
    works = {
        "help": _process(folder, *train, "--help"),
        "run": _process(folder, *train, *FIRST_STEP),
        "peer": _process(folder, "-c", "import torch, pytorch_lightning"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():  # warm up the file cache for all that follow
        work()
    for pair in range(pairs):
        names = list(works)
        for name in names[pair % 3 :] + names[: pair % 3]:
            seconds[name].append(seconds_of(works[name], torch.device("cpu")))
    ours = {
        "train --help": ("help", 0.25, ""),
        "start of a run to its first step": (
            "run",
            1.5,
            "the whole run of one step on four images, its end included",
        ),
    }
    return [
        Comparison(
            part="start",
            setting=setting,
            peer=PEER,
            ours=tuple(seconds[name]),
            theirs=tuple(seconds["peer"]),
            bar=bar,
            at_most=True,
            note=note,
        )
        for setting, (name, bar, note) in ours.items()
    ]


def _process(folder: Path, *arguments: str) -> Callable[[], object]:
    def work() -> None:
        subprocess.run(  # noqa: S603
            [sys.executable, *arguments], cwd=folder, env=dict(os.environ), capture_output=True, text=True, check=True
        )

    return work
