"""Memory of the process: the peak of its tensors, and what its allocator keeps."""

import ctypes
import os
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

MIB = 1 << 20
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`."""


def peak_memory_mib(work: Callable[[], object], device: torch.device) -> float | None:
    """Run a function and return the peak memory of its tensors above the initial one, in MiB.

    On CUDA this is the count of the allocator. On a CPU every allocation and release of a tensor is recorded, without
    internal buffers of libraries. None on other devices, which do not report a peak.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / MIB
    if device.type != "cpu":
        return None
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    assert recorded.profiler is not None
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / MIB


def keep_freed_memory(device: torch.device) -> bool:
    """If the device is the CPU, make glibc keep freed memory for the next batch instead of returning it to the system.

    Every batch on the CPU allocates the same large blocks. The system clears new memory page by page at
    the first access, which takes a good part of the step. In return, the process never shrinks, and some memory is
    lost to fragmentation.

    Returns:
        Whether the setting was applied. It is not for other devices, with other C libraries, or if the user has set
        `MALLOC_...` variables.
    """
    if device.type != "cpu" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))  # -1: never
