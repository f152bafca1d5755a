"""A job does not outlive its sweep."""

import os
import signal
import threading
import time

PARENT = "SSD_LIGHTNING_SWEEP_PROCESS"
"""Environment variable: the process whose end is also the job's."""


def is_job() -> bool:
    """Say whether this process is a job of a sweep."""
    return PARENT in os.environ


def end_with_parent() -> None:
    """In a job: watch the sweep's process, and stop as at SIGTERM once it is gone, however it went."""
    parent = os.environ.get(PARENT)
    if parent is None or os.environ.get("LOCAL_RANK", "0") != "0":  # further ranks end with the first
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()
