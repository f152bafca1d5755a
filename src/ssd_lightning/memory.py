"""Measure the peak memory of tensors."""

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

MIB = 1 << 20


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
