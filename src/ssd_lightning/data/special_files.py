"""Detect special files: pipes, whose reading blocks forever, devices, which may have no end, and Git LFS pointers.

Readers ask `os.path.isfile`, since `Path.is_file` raises for names that are too long.
"""

import os
import stat
from pathlib import Path

from ssd_lightning.errors import DataError

SPECIAL_FILE = "this is a pipe, a socket or a device, not a file"

GIT_LFS_POINTER = "this is a Git LFS pointer, not the file itself; get the files with `git lfs pull`"


def is_git_lfs_pointer(start: bytes) -> bool:
    """Tell by its first bytes whether a file is what a checkout without Git LFS has in place of a large file."""
    return start.startswith(b"version https://git-lfs.github.com/spec/")


def file_size(path: str | Path) -> int:
    """Return the size in bytes; -1 if there is no such file."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def is_special(path: str | Path) -> bool:
    """Tell whether a path is a pipe, socket or device. A missing file or a folder is left to its reader."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def refuse_special_file(path: Path) -> None:
    """Raise `DataError` if a path `is_special`."""
    if is_special(path):
        raise DataError(f"{path}: {SPECIAL_FILE}")
