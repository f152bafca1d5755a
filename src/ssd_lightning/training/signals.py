"""Signals that end a run: they are noted, agreed on by all ranks, and obeyed at the end of a step."""

import atexit
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from torch import distributed as dist

log = logging.getLogger(__name__)

WATCHED = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)
)  # Windows has no SIGUSR1
SECONDS_OF_GRACE = 30
"""How long a data worker outlives a signal that is sent to all processes of a run."""


class Stopped(SystemExit):
    """A signal has ended the run after a checkpoint; the exit code is 128 and its number, as shells have it."""


class Signals:
    """What has been asked of this process by signals, and what all ranks make of it.

    The handler only takes a note: a checkpoint made inside it would lie in the middle of a step, and on other ranks
    of another step.
    """

    def __init__(self) -> None:
        self.received = 0
        self._former: dict[int, Any] = {}
        self._group: Any = None
        self._question: tuple[torch.Tensor, Any] | None = None
        self._launcher: Any = None
        self._is_child = False

    def watch(self, trainer: pl.Trainer) -> None:
        """Take over the signals from Lightning, whose own way out of a run saves nothing and exits with 0."""
        self.received = 0
        atexit.register(end_data_workers)
        environment = getattr(trainer.strategy, "cluster_environment", None)
        starts_ranks = environment is not None and not environment.creates_processes_externally
        self._launcher = trainer.strategy.launcher if starts_ranks else None
        self._is_child = starts_ranks and trainer.local_rank > 0
        if trainer.world_size > 1:
            # Of the processor, so that no answer has to come from the device.
            self._group = dist.new_group(backend="gloo")
            # Lightning asks the same of the device at every batch, and waits.
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in WATCHED}

    def end_at_once(self) -> None:
        """Take over the signals in the test; Lightning would go on to its end."""
        self._former = end_at_signals("in the test, after the training; resume=auto repeats the test")

    def release(self) -> None:
        """Give the signals back."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == self.received and not self._is_child and number != signal.SIGUSR1:
            log.warning("%s again: stopped at once; the last checkpoint stays", signal.Signals(number).name)
            raise Stopped(128 + number)
        self.received = max(self.received, number, key=_weight)
        if self._launcher is not None and not self._is_child and hasattr(self._launcher, "kill"):
            self._launcher.kill(number)

    def ask(self, due: bool) -> None:
        """Ask all ranks, without waiting, what they have received and whether a checkpoint is due.

        Every rank has to ask at the same points of the run.
        """
        mine = torch.tensor([_weight(self.received), int(due)])
        work = None if self._group is None else dist.all_reduce(mine, dist.ReduceOp.MAX, self._group, async_op=True)
        self._question = (mine, work)

    def answer(self) -> tuple[int, bool]:
        """Give the weightiest signal that any rank had received, 0 for none, and whether a checkpoint is due."""
        assert self._question is not None
        values, work = self._question
        self._question = None
        if work is not None:
            work.wait()
        weight, due = (int(value) for value in values)
        return {_weight(number): number for number in (0, *WATCHED)}[weight], bool(due)

    def agree(self) -> int:
        """Ask and wait for the answer."""
        self.ask(due=False)
        return self.answer()[0]

    def all_say(self, what: bool) -> bool:
        """Ask all ranks, and wait for the answer, whether something holds for every one of them."""
        votes = torch.tensor(int(what))
        if self._group is not None:
            dist.all_reduce(votes, dist.ReduceOp.MIN, self._group)
        return bool(votes)

    def exit_code(self, number: int) -> int:
        """Give the code this process ends with; a rank that the run itself has started leaves it to its starter.

        Lightning kills all ranks within seconds of one of them ending with another code than 0.
        """
        return 0 if self._is_child else 128 + number


def end_data_workers() -> None:
    """End the data workers before Python asks them to by SIGTERM and waits, for they outlive that."""
    for child in multiprocessing.active_children():
        if child.daemon and child.pid and hasattr(signal, "SIGUSR2"):
            os.kill(child.pid, signal.SIGUSR2)


def end_at_signals(when: str) -> dict[int, Any]:
    """Let SIGTERM and SIGINT end the process, as long as there is nothing to save.

    Lightning takes SIGINT for the end of the program, with code 1 and no message, and passes over SIGTERM.

    Args:
        when: this is, for the log.

    Returns:
        The handlers until now.
    """

    def end(number: int, frame: FrameType | None) -> None:
        log.warning("stopped by %s %s", signal.Signals(number).name, when)
        raise Stopped(128 + number)

    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}


def _weight(number: int) -> int:
    """Order the signals: the end of the run counts more than a checkpoint, Ctrl-C more than SIGTERM."""
    order = (0, getattr(signal, "SIGUSR1", -1), signal.SIGTERM, signal.SIGINT)
    return order.index(number)


def is_on_slurm() -> bool:
    """Say whether SLURM has started this process, and could start it again."""
    return "SLURM_JOB_ID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def requeue() -> bool:
    """Ask SLURM to put this job into its queue again; False if it would not, which is logged."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}" if array else os.environ["SLURM_JOB_ID"]
    program = shutil.which("scontrol")
    if program is None:
        log.error("SLURM job %s cannot be put into the queue again: there is no scontrol here", job)
        return False
    done = subprocess.run([program, "requeue", job], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    if done.returncode:
        log.error("scontrol requeue %s: %s", job, done.stderr.strip())
        return False
    log.warning("SLURM job %s is in the queue again and will go on from its checkpoint", job)
    return True


def outlive_signals(worker: int = 0) -> None:
    """Let a data worker go on reading when a signal is sent to the whole run, until the run has made its checkpoint.

    A terminal sends Ctrl-C, and SLURM its signals, to every process. A worker that ends at once leaves the run in the
    middle of a step.

    Args:
        worker: its number, as the DataLoader gives it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "SIGUSR2"):  # from `end_data_workers`; any other end would be an error to the DataLoader
        signal.signal(signal.SIGUSR2, lambda number, frame: os._exit(0))
    # The default action of the alarm is to end the process.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.setitimer(signal.ITIMER_REAL, SECONDS_OF_GRACE))
