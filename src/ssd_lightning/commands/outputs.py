"""Create the folders of outputs before the work, and name the setting in what the system says of them."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssd_lightning.errors import ConfigurationError


def make_folder_of(setting: str, path: Path, *, is_file: bool = True) -> None:
    """Create the folder of a file that a setting names, or the folder that it names.

    Raises `ConfigurationError` if it cannot be made or written, or if the file would replace a folder.
    """
    folder = path.parent if is_file else path
    with writing_to(setting, path):
        folder.mkdir(parents=True, exist_ok=True)
        if is_file and path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


@contextmanager
def writing_to(setting: str, path: Path | str) -> Iterator[None]:
    """Turn what the system says while a setting's path is written into a `ConfigurationError` that names both."""
    try:
        yield
    except OSError as error:
        where = "" if error.filename is None else f": '{os.fsdecode(error.filename)}'"
        raise ConfigurationError(f"{setting}={path}: {error.strerror or error}{where}") from error
