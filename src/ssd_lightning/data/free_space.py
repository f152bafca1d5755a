"""How much memory and disk this process may still fill."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

VERSION_2 = ("memory.max", "memory.current", "memory.stat")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
"""Files of a control group: its limit, its usage, and the parts of that."""


def free_memory(
    *,
    machine: Path = Path("/proc/meminfo"),
    membership: Path = Path("/proc/self/cgroup"),
    groups: Path = Path("/sys/fs/cgroup"),
) -> int:
    """Give the bytes that can be filled without swapping: of the machine, or of a container or job if it has fewer.

    Args:
        machine: the memory of the machine, as Linux states it.
        membership: the control groups of this process.
        groups: where control groups are mounted; every one from the process's own up to the root may have a limit.
    """
    limits = [_free_of_group(folder, names) for folder, names in _groups(membership, groups)]
    return min([_free_of_machine(machine), *(limit for limit in limits if limit is not None)])


def free_disk(folder: Path) -> int:
    """Give the free bytes of the file system that holds an existing folder."""
    return shutil.disk_usage(folder).free


def _free_of_machine(machine: Path) -> int:
    try:
        fields = dict(line.split(":") for line in machine.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # no Linux: count on half of what is built in
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
        # A container may see its own group as the root, and yet be told its path on the machine.
        own = root / path.lstrip("/")
        yield from ((folder, names) for folder in (own, *own.parents) if folder.is_relative_to(root))


def _free_of_group(folder: Path, names: tuple[str, str, str]) -> int | None:
    limit, usage, parts = (folder / name for name in names)
    try:
        most, used = int(limit.read_text()), int(usage.read_text())
    except (OSError, ValueError):  # there is none, or its limit is the word "max"
        return None
    counts = dict(line.split() for line in parts.read_text().splitlines()) if parts.exists() else {}
    # Pages of files that were read are dropped when memory is needed. Version 1 counts those of the groups below apart.
    return max(0, most - used + int(counts.get("total_inactive_file", counts.get("inactive_file", 0))))
