"""What `Speed` reports, against a clock that only the parts of a run move on."""

from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.profilers import PassThroughProfiler, SimpleProfiler
from torch.utils.data import DataLoader, Dataset

from helpers.clock import Clock
from helpers.small_training import quiet_trainer
from ssd_lightning.training.callbacks import speed
from ssd_lightning.training.callbacks.progress_bar import ProgressBar
from ssd_lightning.training.callbacks.speed import Speed, StepWatch, part_of, peak_memory_mib

BATCH = 4
DATA, TRANSFER, FORWARD, BACKWARD, OPTIMIZER, BETWEEN = 2.0, 0.5, 3.0, 4.0, 1.0, 0.25
IN_PARTS = DATA + TRANSFER + FORWARD + BACKWARD + OPTIMIZER
FIRST, VALIDATION, SAVING = 1e3, 1e4, 1e5


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(100.0)
    monkeypatch.setattr(speed, "time", clock)
    return clock


class SlowBatches(Dataset):
    def __init__(self, clock: Clock, count: int) -> None:
        self.clock, self.count = clock, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, list[None]]:
        self.clock.now += DATA
        return torch.ones(BATCH, 2), [None] * BATCH


class SlowModule(pl.LightningModule):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.layer, self.is_first = clock, torch.nn.Linear(2, 1), True

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        self.clock.now += TRANSFER
        return batch

    def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
        self.clock.now += FORWARD + (FIRST if self.is_first else 0)
        self.is_first = False
        return self.layer(batch[0]).mean()

    def backward(self, loss: torch.Tensor) -> None:  # type: ignore[override]
        self.clock.now += BACKWARD
        loss.backward()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.clock.now += OPTIMIZER

    def on_train_batch_end(self, *args: object) -> None:
        self.clock.now += BETWEEN

    def validation_step(self, batch: Any, batch_index: int) -> None:
        self.clock.now += VALIDATION

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.clock.now += SAVING

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Rows(Logger):
    """Keeps what it is given."""

    name, version = "rows", 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def log_hyperparams(self, *args: object, **kwargs: object) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "speed/images_per_s" in metrics:
            self.rows.append({name: float(value) for name, value in metrics.items()} | {"step": step})


def fit(clock: Clock, folder: Path, batches: int = 10, **settings: Any) -> list[dict[str, float]]:
    logger = Rows()
    callbacks = [Speed(), *settings.pop("callbacks", [])]
    train, val = (DataLoader(SlowBatches(clock, count), batch_size=None) for count in (batches, 2))
    usual = {"max_epochs": 1, "log_every_n_steps": 3, "num_sanity_val_steps": 0, "default_root_dir": folder}
    trainer = quiet_trainer(**{**usual, "logger": logger, "callbacks": callbacks, **settings})
    trainer.fit(SlowModule(clock), train, val)
    return logger.rows


def test_every_part_is_reported_and_the_first_batch_is_left_out(clock: Clock, tmp_path: Path) -> None:
    rows = fit(clock, tmp_path)
    assert [row["step"] for row in rows] == [2, 5, 8, 9]  # the last is the end of the epoch
    for row in rows:
        assert row["speed/images_per_s"] == pytest.approx(BATCH / (IN_PARTS + BETWEEN))
        assert row["speed/data_wait"] == pytest.approx(DATA / (IN_PARTS + BETWEEN))
        parts = {"data": DATA, "transfer": TRANSFER, "forward": FORWARD, "backward": BACKWARD, "optimizer": OPTIMIZER}
        assert {name: row[f"speed/{name}_ms"] for name in parts} == pytest.approx(
            {name: 1000 * seconds for name, seconds in parts.items()}
        )
        assert row["speed/peak_memory_mib"] > 50  # an interpreter with torch


def test_validation_checkpoints_and_the_change_of_epochs_do_not_count(clock: Clock, tmp_path: Path) -> None:
    saver = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=2)
    rows = fit(
        clock, tmp_path, batches=7, max_epochs=3, val_check_interval=3, callbacks=[saver], enable_checkpointing=True
    )
    assert clock.now > 5 * (VALIDATION + SAVING)
    assert [row["step"] for row in rows] == [2, 5, 6, 8, 11, 13, 14, 17, 20]
    for row in rows:  # where the clock stood still, what comes between two batches is not counted either
        assert BATCH / (IN_PARTS + BETWEEN) - 1e-6 <= row["speed/images_per_s"] <= BATCH / IN_PARTS + 1e-6
        assert DATA / (IN_PARTS + BETWEEN) - 1e-6 <= row["speed/data_wait"] <= DATA / IN_PARTS + 1e-6
        assert row["speed/transfer_ms"] == pytest.approx(1000 * TRANSFER)  # none of validation's


def test_accumulated_batches_are_batches(clock: Clock, tmp_path: Path) -> None:
    rows = fit(clock, tmp_path, batches=12, accumulate_grad_batches=2, log_every_n_steps=2)
    assert [row["step"] for row in rows] == [1, 3, 5]
    for row in rows[1:]:
        assert row["speed/optimizer_ms"] == pytest.approx(1000 * OPTIMIZER / 2)
        assert row["speed/images_per_s"] == pytest.approx(BATCH / (IN_PARTS - OPTIMIZER / 2 + BETWEEN))


def test_a_run_shorter_than_what_is_logged_says_how_fast_it_was(clock: Clock, tmp_path: Path) -> None:
    rows = fit(clock, tmp_path, batches=4, log_every_n_steps=50, max_epochs=2)
    assert [row["step"] for row in rows] == [3, 7]
    assert fit(clock, tmp_path, batches=1) == []  # the first batch does not count


def test_images_are_those_of_all_ranks(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = fit(clock, tmp_path)[-1]["speed/images_per_s"]
    monkeypatch.setattr(pl.Trainer, "world_size", 3)
    assert fit(clock, tmp_path)[-1]["speed/images_per_s"] == pytest.approx(3 * one)


def test_the_users_profiler_hears_everything_and_is_given_back(clock: Clock, tmp_path: Path) -> None:
    profiler = SimpleProfiler(dirpath=tmp_path, filename="profile")
    fit(clock, tmp_path, profiler=profiler)
    assert len(profiler.recorded_durations["run_training_batch"]) == 10
    assert "run_training_batch" in (tmp_path / "fit-profile.txt").read_text()


@pytest.mark.parametrize(
    ("action", "part"),
    [
        ("[_EvaluationLoop].val_next", None), ("[Strategy]DDPStrategy.batch_to_device", "transfer"),
        ("[LightningModule]SSDModule.backward", None),
    ],
)  # fmt: skip
def test_parts_are_known_by_their_names(action: str, part: str | None) -> None:
    assert part_of(action) == part


def test_a_gpu_is_waited_for_where_the_numbers_are_read(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device works 10 s behind the host: events happen on its clock, and are known after the wait."""
    waits = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: object) -> None:
            self.at = clock.now + 10

        def elapsed_time(self, end: "Event") -> float:
            assert waits
            return 1000 * (end.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    watch = StepWatch(PassThroughProfiler(), torch.device("cuda"))
    watch.is_training = True
    for name, seconds in {"[_TrainingEpochLoop].train_dataloader_next": 2, "run_training_batch": 5}.items():
        watch.start(name)
        clock.now += seconds
        watch.stop(name)
    assert not waits
    assert watch.take_seconds() == {"data": 2, "batch": 5}
    assert watch.take_seconds() == {}


def test_peak_memory_is_in_mib(monkeypatch: pytest.MonkeyPatch) -> None:
    for platform, unit in (("linux", 2**10), ("darwin", 1)):
        monkeypatch.setattr(speed.sys, "platform", platform)
        usage = SimpleNamespace(ru_maxrss=3 * 2**20 // unit)
        monkeypatch.setattr(speed.resource, "getrusage", lambda who, usage=usage: usage)
        assert peak_memory_mib(torch.device("cpu")) == 3
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5 * 2**20)
    assert peak_memory_mib(torch.device("cuda")) == 5


def test_the_progress_bar_reads_metrics_where_they_are_logged(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_at: deque[int] = deque()
    plain = RichProgressBar.get_metrics

    def counted(self: RichProgressBar, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict:
        read_at.append(trainer.global_step)
        return plain(self, trainer, pl_module)

    monkeypatch.setattr(RichProgressBar, "get_metrics", counted)
    bar = ProgressBar()
    shown = {"callbacks": [bar], "enable_progress_bar": True, "limit_val_batches": 0}
    fit(clock, tmp_path, batches=20, log_every_n_steps=10, **shown)
    assert set(read_at) == {1, 10, 20}
    assert bar._shown is not None
    assert {"images/s", "data_wait"} <= bar._shown.keys()
