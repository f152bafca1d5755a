"""Memory of the host: a network that is trained on a processor asks for the same large blocks at every step."""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`."""


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed for the next step, where it would hand it back to the system and ask again.

    The system clears memory page by page as it is touched, which is a good part of a training step on a
    processor. The price is a process that stays as large as it once was, and some memory lost between blocks.

    Returns:
        Whether it was done: other C libraries have no such switch, and `MALLOC_...` variables of the user stand.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))  # -1: never
