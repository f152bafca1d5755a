"""Handling of signals: they are recorded, agreed on by all ranks, and acted on at the end of a step."""

import atexit
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from torch import distributed as dist

from ssd_lightning.training._compat import stop_broadcasting_sigterm
from ssd_lightning.training.fault_tolerance.ranks import COLLECTIVE_TIMEOUT

log = logging.getLogger(__name__)

BY_WEIGHT = (0, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
"""No signal, and those that are handled: ending the run comes before a checkpoint, Ctrl-C before SIGTERM."""
SECONDS_OF_GRACE = 30
"""How long a data worker keeps running after a signal that is sent to all processes of a run."""


class Stopped(SystemExit):
    """A signal has ended the run after a checkpoint. The exit code is 128 + its number, as in shells."""


class Signals:
    """Records the signals of this process and agrees on them with all ranks.

    The handler only records the signal. A checkpoint made inside it would be in the middle of a step, and the other
    ranks would be at a different step.
    """

    def __init__(self) -> None:
        self.received = 0
        self._former: dict[int, Any] = {}
        self._group: Any = None
        self._question: tuple[torch.Tensor, Any] | None = None
        self._launcher: Any = None
        self.is_child = False
        """Whether Lightning's launcher has started this rank."""

    def watch(self, trainer: pl.Trainer) -> None:
        """Replace Lightning's signal handlers, which end a run without saving and with exit code 0."""
        self.received = 0
        atexit.register(end_data_workers)
        environment = getattr(trainer.strategy, "cluster_environment", None)
        starts_ranks = environment is not None and not environment.creates_processes_externally
        self.is_child = starts_ranks and trainer.local_rank > 0
        self._launcher = trainer.strategy.launcher if starts_ranks and not self.is_child else None
        if trainer.world_size > 1:
            # A group on the CPU does not wait for the device.
            self._group = dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)
            stop_broadcasting_sigterm(trainer)
        self._former = set_handlers(self._note, *BY_WEIGHT[1:])

    def end_at_once(self) -> None:
        """Make signals end the test at once. Lightning would continue to its end."""
        self._former = end_at_signals("in the test, after the training; resume=auto repeats the test")

    def release(self) -> None:
        """Restore the former signal handlers."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == self.received and not self.is_child and number != signal.SIGUSR1:
            log.warning("%s again: stopped at once; the last checkpoint is kept", signal.Signals(number).name)
            raise Stopped(128 + number)
        self.received = max(self.received, number, key=BY_WEIGHT.index)
        if hasattr(self._launcher, "kill"):
            self._launcher.kill(number)

    def ask(self, due: bool) -> None:
        """Start exchanging received signals and due checkpoints with all ranks, without waiting.

        Every rank has to call this at the same points of the run.
        """
        mine = torch.tensor([BY_WEIGHT.index(self.received), int(due)])
        work = None if self._group is None else dist.all_reduce(mine, dist.ReduceOp.MAX, self._group, async_op=True)
        self._question = (mine, work)

    def answer(self) -> tuple[int, bool]:
        """Return the most important signal that any rank has received (0: none), and whether a checkpoint is due."""
        assert self._question is not None
        values, work = self._question
        self._question = None
        if work is not None:
            work.wait()
        weight, due = values.tolist()
        return BY_WEIGHT[weight], bool(due)

    def all_say(self, what: bool) -> bool:
        """Whether something is true on all ranks. Waits for their answers."""
        votes = torch.tensor(int(what))
        if self._group is not None:
            dist.all_reduce(votes, dist.ReduceOp.MIN, self._group)
        return bool(votes)


def end_data_workers() -> None:
    """End the data workers before Python exits. Python would send SIGTERM, which they outlive, and wait for them."""
    for child in multiprocessing.active_children():
        if child.daemon and child.pid:
            os.kill(child.pid, signal.SIGUSR2)


def end_at_signals(when: str) -> dict[int, Any]:
    """Make SIGTERM and SIGINT end the process, while there is nothing to save.

    Lightning ends the program at SIGINT with code 1 and without a message, and ignores SIGTERM.

    Args:
        when: phase of the run, for the log message.

    Returns:
        The former handlers.
    """

    def end(number: int, frame: FrameType | None) -> None:
        log.warning("stopped by %s %s", signal.Signals(number).name, when)
        raise Stopped(128 + number)

    return set_handlers(end, signal.SIGTERM, signal.SIGINT)


def set_handlers(handler: Callable[[int, FrameType | None], None], *numbers: int) -> dict[int, Any]:
    """Handle signals, and return the former handlers: none outside of the main thread, which alone may set them."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in numbers}


def is_on_slurm() -> bool:
    """Whether this process is a SLURM job that can be requeued."""
    return "SLURM_JOB_ID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def requeue() -> bool:
    """Requeue this SLURM job. Returns False and logs an error if that fails."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ["SLURM_JOB_ID"]
    program = shutil.which("scontrol")
    if program is None:
        log.error("SLURM job %s cannot be requeued: scontrol is not installed here", job)
        return False
    done = subprocess.run([program, "requeue", job], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    if done.returncode:
        log.error("scontrol requeue %s: %s", job, done.stderr.strip())
        return False
    log.warning("SLURM job %s is requeued and will resume from its checkpoint", job)
    return True


def outlive_signals() -> None:
    """Keep a data worker reading after a signal to the whole run, until the run has saved its checkpoint.

    A terminal sends Ctrl-C to every process, and SLURM does the same with its signals. If a worker ended at once, the
    run would stop in the middle of a step.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    # From `end_data_workers`; the DataLoader reports any other exit as an error.
    signal.signal(signal.SIGUSR2, lambda number, frame: os._exit(0))
    # The default action of the alarm is to end the process.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.setitimer(signal.ITIMER_REAL, SECONDS_OF_GRACE))
