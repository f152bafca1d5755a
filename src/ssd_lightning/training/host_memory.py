"""Settings of the host's memory allocator, for training on the CPU."""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`."""


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for the next step instead of returning it to the system.

    A training step on the CPU allocates the same large blocks every time. The system clears new memory page by page at
    the first access, which takes a good part of the step. In return, the process never shrinks, and some memory is
    lost to fragmentation.

    Returns:
        Whether the setting was applied. It is not with other C libraries, or if the user has set `MALLOC_...`
        variables.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))  # -1: never
