"""Ends a job when its sweep has ended."""

import os
import signal
import threading
import time

PARENT = "SSD_LIGHTNING_SWEEP_PROCESS"
"""Environment variable with the process id of the sweep."""


def is_job() -> bool:
    """Whether this process is a job of a sweep."""
    return PARENT in os.environ


def end_with_sweep() -> None:
    """In a job, watch the sweep's process and send SIGTERM to this process once it is gone."""
    parent = os.environ.get(PARENT)
    if parent is None or os.environ.get("LOCAL_RANK", "0") != "0":  # other ranks end with rank 0
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="end-with-sweep").start()
