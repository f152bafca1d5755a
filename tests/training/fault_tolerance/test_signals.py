import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from helpers.interrupted import At, assert_same_end, fit
from ssd_lightning.training.fault_tolerance.resumption import find_resumable
from ssd_lightning.training.fault_tolerance.signals import Stopped, outlive_signals


def send(number: int, hook: str, call: int, *, times: int = 1) -> At:
    """Send this process a signal in the named hook, at its nth call."""
    return At(hook, call, lambda: [os.kill(os.getpid(), number) for _ in range(times)])


@pytest.mark.parametrize(
    ("number", "hook", "call"),
    [(signal.SIGINT, "on_validation_start", 1), (signal.SIGTERM, "on_validation_batch_end", 5)],
)
def test_a_signal_saves_at_once_and_nothing_is_lost(
    tmp_path: Path, whole: Path, number: int, hook: str, call: int, caplog: pytest.LogCaptureFixture
) -> None:
    before, sender = signal.getsignal(number), send(number, hook, call)
    with pytest.raises(Stopped) as stopped:
        fit(tmp_path / "run", callbacks=(sender,))
    assert stopped.value.code == 128 + number
    assert signal.getsignal(number) == before
    assert f"stopped by {signal.Signals(number).name} at step" in caplog.text
    assert sender.calls == call  # at the end of the validation's batch
    fit(tmp_path / "run", resume=find_resumable(tmp_path / "run"))
    assert_same_end(tmp_path / "run", whole)


@pytest.mark.parametrize(
    ("hook", "call", "accumulate", "steps"),
    [
        ("on_train_batch_start", 2, 1, 2),
        ("on_train_batch_start", 1, 2, 1),  # half of a step would be lost
        ("on_train_epoch_end", 2, 1, 11),  # the epoch was saved before it
    ],
)
def test_a_signal_saves_at_the_end_of_the_step(
    tmp_path: Path, hook: str, call: int, accumulate: int, steps: int
) -> None:
    with pytest.raises(Stopped):
        fit(tmp_path / "run", callbacks=(send(signal.SIGTERM, hook, call),), accumulate_grad_batches=accumulate)
    place = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert place["global_step"] == steps
    assert place["DetectionDataModule"]["samples_seen"] == 2 * steps % 10  # an image at a time if they are gathered


def test_a_signal_ends_a_test_at_once(tmp_path: Path) -> None:
    sender, before = send(signal.SIGINT, "on_test_batch_start", 2), signal.getsignal(signal.SIGINT)
    trainer = fit(tmp_path / "run", callbacks=(sender,), max_epochs=1)
    with pytest.raises(Stopped) as stopped:
        trainer.test(datamodule=trainer.datamodule, verbose=False)  # type: ignore[attr-defined]
    assert (stopped.value.code, sender.calls) == (130, 2)
    assert signal.getsignal(signal.SIGINT) == before


def test_a_second_signal_does_not_wait_for_a_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Stopped) as stopped:
        fit(tmp_path / "run", callbacks=(send(signal.SIGTERM, "on_before_optimizer_step", 2, times=2),))
    assert stopped.value.code == 143
    assert "SIGTERM again: stopped at once" in caplog.text
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_usr1_saves_and_the_run_goes_on(tmp_path: Path, whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    hooks = {"on_train_batch_start": 2, "on_validation_batch_end": 5}
    fit(tmp_path / "run", callbacks=tuple(send(signal.SIGUSR1, hook, call) for hook, call in hooks.items()))
    assert [message for message in caplog.messages if "SIGUSR1" in message] == [
        f"SIGUSR1: saved at step {step}" for step in (2, 10)
    ]
    assert_same_end(tmp_path / "run", whole)


@pytest.mark.parametrize(
    ("of_scontrol", "code", "told"), [(0, 0, "4711 is requeued"), (1, 128 + signal.SIGUSR1, "scontrol requeue 4711")]
)
def test_usr1_of_slurm_saves_and_queues_the_job_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    of_scontrol: int,
    code: int,
    told: str,
) -> None:
    program = tmp_path / "scontrol"  # notes what it is asked
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nexit {of_scontrol}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    with pytest.raises(Stopped) as stopped:
        fit(tmp_path / "run", callbacks=(send(signal.SIGUSR1, "on_train_batch_start", 2),))
    assert stopped.value.code == code
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    assert told in caplog.text
    assert find_resumable(tmp_path / "run") is not None


def test_data_workers_outlive_what_is_sent_to_all() -> None:
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()

    def work() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # pytest's own
        outlive_signals()
        ready.set()
        time.sleep(60)

    worker = fork.Process(target=work, daemon=True)
    worker.start()
    try:
        assert ready.wait(20)
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
            os.kill(worker.pid, number)  # type: ignore[arg-type]
        worker.join(0.5)
        assert worker.is_alive()
        os.kill(worker.pid, signal.SIGALRM)  # type: ignore[arg-type]  # what ends it when the time of grace is over
        worker.join(20)
        assert worker.exitcode == -signal.SIGALRM
    finally:
        worker.kill()


def test_a_whole_run_with_workers_survives_a_signal_to_all_of_them(tmp_path: Path, whole: Path) -> None:
    class SendAll(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
            if trainer.global_step == 6:
                workers = [child.pid for child in multiprocessing.active_children()]
                assert len(workers) >= 2
                for process in (*filter(None, workers), os.getpid()):
                    os.kill(process, signal.SIGINT)

    with pytest.raises(Stopped):
        fit(tmp_path / "run", callbacks=(SendAll(),), num_workers=2)
    fit(tmp_path / "run", resume=find_resumable(tmp_path / "run"), num_workers=2)
    assert_same_end(tmp_path / "run", whole)
