"""Free memory for this process."""

import os
from collections.abc import Iterator
from pathlib import Path

VERSION_2 = ("memory.max", "memory.current", "memory.stat")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
"""Files of a control group: limit, usage, and statistics."""


def free_memory(
    *,
    machine: Path = Path("/proc/meminfo"),
    membership: Path = Path("/proc/self/cgroup"),
    groups: Path = Path("/sys/fs/cgroup"),
) -> int:
    """Return the bytes that can be filled without swapping, on the machine or in a container or job with less memory.

    Args:
        machine: memory information of Linux.
        membership: list of this process's control groups.
        groups: where control groups are mounted; every group up to the root may have a limit.
    """
    limits = [_free_of_group(folder, names) for folder, names in _groups(membership, groups)]
    return min([_free_of_machine(machine), *(limit for limit in limits if limit is not None)])


def _free_of_machine(machine: Path) -> int:
    try:
        fields = dict(line.split(":") for line in machine.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux: assume half of the installed memory
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _groups(membership: Path, groups: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = groups, VERSION_2
        elif "memory" in controllers.split(","):
            root, names = groups / "memory", VERSION_1
        else:
            continue
        # A container may see its own group as the root, although its path is given relative to the machine.
        own = root / path.lstrip("/")
        yield from ((folder, names) for folder in (own, *own.parents) if folder.is_relative_to(root))


def _free_of_group(folder: Path, names: tuple[str, str, str]) -> int | None:
    limit, usage, parts = (folder / name for name in names)
    try:
        most, used = int(limit.read_text()), int(usage.read_text())
    except (OSError, ValueError):  # no such file, or the limit is "max"
        return None
    counts = dict(line.split() for line in parts.read_text().splitlines()) if parts.exists() else {}
    # Cached file pages are dropped when memory is needed. Version 1 counts those of child groups separately.
    return max(0, most - used + int(counts.get("total_inactive_file", counts.get("inactive_file", 0))))
