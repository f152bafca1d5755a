"""Uses of private attributes of Lightning, tried with the installed version.

The others: `GrowingCSVLogger` in test_resumption.py, `set_average` in test_averaging.py, W&B in test_loggers.py.
"""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.demos.boring_classes import BoringModel

from ssd_lightning.training import _compat


class Watch(pl.Callback):
    """Asks after every batch, and lets Lightning broadcast as if there were several ranks."""

    def __init__(self) -> None:
        self.answers: list[tuple[bool, bool]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _compat.stop_broadcasting_sigterm(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *arguments: object) -> None:
        self.answers.append((_compat.accumulates(trainer), _compat.is_followed(trainer)))


def fit(folder: Path, *callbacks: pl.Callback, progress: bool = False) -> pl.Trainer:
    trainer = pl.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=1,
        enable_model_summary=False, enable_progress_bar=progress, limit_train_batches=5, limit_val_batches=1,
        accumulate_grad_batches=2, val_check_interval=3, callbacks=list(callbacks),
    )  # fmt: skip
    trainer.fit(BoringModel())
    return trainer


def test_accumulation_and_what_follows_a_batch_are_known(tmp_path: Path) -> None:
    watch = Watch()
    fit(tmp_path, watch)
    accumulates, followed = zip(*watch.answers, strict=True)
    assert accumulates == (True, False, True, False, False)
    assert followed == (False, False, True, False, True)


def test_lightning_does_not_broadcast_signals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broadcasts: list[int] = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "broadcast", lambda tensor, src: broadcasts.append(src))
    monkeypatch.setattr(pl.Trainer, "world_size", 2)
    loop = pl.Trainer(logger=False, accelerator="cpu").fit_loop.epoch_loop
    loop._broadcast_sigterm_tensor()
    assert broadcasts == [0]
    _compat.stop_broadcasting_sigterm(loop.trainer)
    loop._broadcast_sigterm_tensor()
    assert broadcasts == [0]


def test_the_progress_bar_asks_for_its_text(tmp_path: Path) -> None:
    class Described(_compat.DescribedProgressBar):
        texts: list[str] = []  # noqa: RUF012

        def describe_epoch(self, epoch: int) -> str:
            self.texts.append(super().describe_epoch(epoch))
            return self.texts[-1]

    fit(tmp_path, Described(), progress=True)
    assert any("0" in text for text in Described.texts)
