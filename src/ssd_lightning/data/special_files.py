"""Files that are none: reading a pipe waits for ever, and a device may have no end."""

import os
import stat
from pathlib import Path

from ssd_lightning.errors import DataError


def is_file(path: Path) -> bool:
    """Say whether a regular file can be reached; also where `Path.is_file` raises, as for names that are too long."""
    return os.path.isfile(path)


def refuse_special_file(path: Path) -> None:
    """Refuse a pipe, socket or device; a missing file or a folder is left to what reads it.

    Raises:
        DataError: it is one of these.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DataError(f"{path}: this is a pipe, a socket or a device, not a file")
