"""How much memory and disk this process may still fill."""

import os
import shutil
from pathlib import Path

CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)
"""Limit, usage and its parts of a container's memory: control groups of version 2 and 1."""


def free_memory() -> int:
    """Give the bytes that can be filled without swapping: of the machine, or of the container if it has fewer."""
    limits = [_free_of_container(*(Path(name) for name in names)) for names in CGROUP_FILES]
    return min([_free_of_machine(), *(limit for limit in limits if limit is not None)])


def free_disk(folder: Path) -> int:
    """Give the free bytes of the file system that holds an existing folder."""
    return shutil.disk_usage(folder).free


def _free_of_machine() -> int:
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # no Linux: count on half of what is built in
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _free_of_container(limit: Path, usage: Path, parts: Path) -> int | None:
    try:
        most, used = int(limit.read_text()), int(usage.read_text())
        counts = dict(line.split() for line in parts.read_text().splitlines())
    except (OSError, ValueError):  # there is none, or its limit is the word "max"
        return None
    # Pages of files that were read are dropped when memory is needed.
    return max(0, most - used + int(counts.get("inactive_file", 0)))
