"""A small run that can be cut off anywhere and gone on with."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from helpers.datasets import FunctionOpener, annotation
from helpers.small_network import small_net
from ssd_lightning.data.annotations import ImageAnnotation
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.losses import MultiBoxLoss
from ssd_lightning.training import DetectionDataModule, SSDModule
from ssd_lightning.training.callbacks.averaging import MovingAverage
from ssd_lightning.training.callbacks.checkpointing import BestCheckpoint, LastCheckpoint
from ssd_lightning.training.fault_tolerance.checkpoint_io import AtomicCheckpointIO
from ssd_lightning.training.fault_tolerance.non_finite import FiniteSteps
from ssd_lightning.training.fault_tolerance.rng_state import RNGState
from ssd_lightning.training.schedules import cosine

CLASSES = ("cat", "dog")
NUM_IMAGES, BATCH_SIZE, EPOCHS = 11, 2, 3  # five batches an epoch, and an image left over; three of a validation


def also(*values: Any) -> Any:
    """A case that goes the way of another, with other settings."""
    return pytest.param(*values, marks=pytest.mark.slow)


class PowerCut(Exception):
    """The run ends here."""


def cut_power() -> None:
    raise PowerCut


class At(pl.Callback):
    """Does something in the named hook, at its nth call."""

    def __init__(self, hook: str, call: int, action: Callable[[], object] = cut_power) -> None:
        self.calls = 0

        def act(*arguments: Any) -> None:
            self.calls += 1
            if self.calls == call:
                action()

        setattr(self, hook, act)


class NoisyModule(SSDModule):
    """Draws from the global streams at every step, as dropout does."""

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        images, targets = batch
        noise = torch.rand(images.shape) * np.random.rand() + random.gauss(0, 1)  # noqa: NPY002
        return super().training_step((images + noise, targets), batch_index)


SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9)


def module(**settings: Any) -> NoisyModule:
    torch.manual_seed(0)
    given = {"optimizer": SGD, "scheduler": partial(cosine, warmup_steps=2), "class_names": CLASSES, **settings}
    return NoisyModule(net=small_net(), loss=MultiBoxLoss(), **given)


def images(folder: Path, count: int) -> list[ImageAnnotation]:
    records = []
    for index in range(count):
        path = folder / f"{index}.png"
        if not path.exists():
            Image.fromarray(np.random.default_rng(index).integers(0, 255, (32, 40, 3), np.uint8)).save(path)
        boxes = [[2, 2, 10 + index, 16], [8, 8, 30, 30]]
        records.append(annotation(path, size_px=(32, 40), boxes=boxes, labels=[1, 2]))
    return records


def data(
    folder: Path, *, num_images: int = NUM_IMAGES, repeat_rare: bool = False, **settings: Any
) -> DetectionDataModule:
    records = images(folder, num_images)
    for record in records[1:] if repeat_rare else ():
        record.labels[:] = 1  # the other class is in one image alone
    return DetectionDataModule(
        dataset=FunctionOpener(make=partial(DetectionDataset, annotations=records)),
        train={},
        val={},
        test={},
        image_size=32,
        class_names=CLASSES,
        repeat_rare=repeat_rare,
        repeat_threshold=0.9,
        seed=3,
        **{"batch_size": BATCH_SIZE, "eval_batch_size": 4, "num_workers": 0, **settings},
    )


def fit(
    run: Path,
    *,
    cut: tuple[str, int] | None = None,
    resume: Path | None = None,
    every_n_steps: int | None = None,
    callbacks: tuple[pl.Callback, ...] = (),
    plugins: tuple[Any, ...] = (),
    model: SSDModule | None = None,
    max_bad_batches: int = 10,
    averages: bool = True,
    **settings: Any,
) -> pl.Trainer:
    """Train in `run`, the images beside it, until the end or the cut."""
    names = ("num_workers", "batch_size", "num_images", "multiscale", "repeat_rare")
    of_data = {name: settings.pop(name) for name in names if name in settings}
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    kept = run / "checkpoints"
    watchers = [
        FiniteSteps(max_bad_batches=max_bad_batches),
        RNGState(),
        *([MovingAverage(decay=0.7)] if averages else []),
        *callbacks,
        *([At(*cut)] if cut else []),
        BestCheckpoint(dirpath=str(kept)),
        LastCheckpoint(dirpath=str(kept), every_n_steps=every_n_steps, every_n_minutes=None),
    ]
    trainer = pl.Trainer(
        accelerator="cpu",
        callbacks=watchers,
        plugins=[AtomicCheckpointIO(), *plugins],
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"logger": False, "check_val_every_n_epoch": 1, "max_epochs": EPOCHS, **settings},
    )
    run.mkdir(parents=True, exist_ok=True)
    trainer.fit(model or module(), datamodule=data(run.parent, **of_data), ckpt_path=resume, weights_only=True)
    return trainer


def everything(run: Path, name: str = "last") -> dict[str, Any]:
    """Give all that has to be the same in two runs' checkpoints."""
    checkpoint = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    keys = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "global_step")
    kept = {key: checkpoint[key] for key in keys}
    kept["random"] = checkpoint["callbacks"]["RNGState"]
    best = next(state for key, state in checkpoint["callbacks"].items() if key.startswith("BestCheckpoint"))
    return kept | {"best": best["best_model_score"]}


def assert_same(one: Any, two: Any) -> None:
    """Compare tensors and numbers in nested containers bit for bit."""
    torch.testing.assert_close(one, two, rtol=0, atol=0)


def assert_same_end(run: Path, other: Path) -> None:
    """Compare the last and the best checkpoints of two runs bit for bit."""
    for name in ("last", "best"):
        assert_same(everything(run, name), everything(other, name))
