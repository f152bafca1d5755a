"""What ends a rank whose launcher or fellow has died, besides torchrun, srun and Lightning's launcher."""

import ctypes
import os
import signal
import sys
from datetime import timedelta

from pytorch_lightning.strategies import DDPStrategy

COLLECTIVE_TIMEOUT = timedelta(minutes=10)
"""Longest time that a rank waits for the others. Rank 0 may draw and save for minutes meanwhile."""
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_launcher() -> None:
    """End this rank when its launcher is gone: torchrun, or rank 0 with Lightning's launcher. Only on Linux.

    A process started by the user has no `LOCAL_RANK` and is not bound to its shell.
    """
    if "LOCAL_RANK" in os.environ:
        end_with_parent()


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent is gone. Only on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def with_timeout(strategy: str, *, ranks: int) -> str | DDPStrategy:
    """Give DDP a time-out for its collectives. Other strategies, and a single rank, stay as they are."""
    return DDPStrategy(timeout=COLLECTIVE_TIMEOUT) if ranks > 1 and strategy in ("auto", "ddp") else strategy
