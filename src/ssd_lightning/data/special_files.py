"""Detect special files: reading a pipe blocks forever, and a device may have no end."""

import os
import stat
from pathlib import Path

from ssd_lightning.errors import DataError

SPECIAL_FILE = "this is a pipe, a socket or a device, not a file"


def is_file(path: str | Path) -> bool:
    """Tell whether a path is a regular file; also works if `Path.is_file` raises, as for names that are too long."""
    return os.path.isfile(path)


def refuse_special_file(path: Path) -> None:
    """Reject a pipe, socket or device. A missing file or a folder is left to its reader.

    Raises:
        DataError: it is a special file.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DataError(f"{path}: {SPECIAL_FILE}")
