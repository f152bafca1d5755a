"""Ends a rank when its launcher or another rank has died, beside torchrun, srun and Lightning's launcher."""

import os
from datetime import timedelta

from pytorch_lightning.strategies import DDPStrategy

from ssd_lightning.processes import end_with_parent

COLLECTIVE_TIMEOUT = timedelta(minutes=10)
"""Longest time that a rank waits for the others. Rank 0 may draw and save for minutes meanwhile."""


def end_with_launcher() -> None:
    """End this rank when its launcher is gone: torchrun, or rank 0 with Lightning's launcher. Only on Linux.

    A process started by the user has no `LOCAL_RANK` and is not bound to its shell.
    """
    if "LOCAL_RANK" in os.environ:
        end_with_parent()


def with_timeout(strategy: str, *, ranks: int) -> str | DDPStrategy:
    """Give DDP a time-out for its collectives. Other strategies, and a single rank, stay as they are."""
    return DDPStrategy(timeout=COLLECTIVE_TIMEOUT) if ranks > 1 and strategy in ("auto", "ddp") else strategy
