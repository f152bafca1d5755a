"""A block of bytes that processes share, in memory or in a file."""

import mmap
import os
from pathlib import Path

import numpy as np


class SharedBytes:
    """Bytes, initially zero, that are read as an array and written piece by piece.

    Args:
        num_bytes: number of bytes.
        file: backing file, created if missing; None uses anonymous memory, visible only to processes forked from this
            one. It does not use /dev/shm.

    Attributes:
        values: uint8 `[num_bytes]`, read-only view that shows writes of any process.

    Raises:
        OSError: the file or the memory is not available.
    """

    def __init__(self, *, num_bytes: int, file: Path | None) -> None:
        self._descriptor = -1
        if file is None:
            self._memory = mmap.mmap(-1, num_bytes)
        else:
            self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
            os.ftruncate(self._descriptor, num_bytes)  # sparse: uses disk space only when filled
            self._memory = mmap.mmap(self._descriptor, num_bytes, access=mmap.ACCESS_READ)
        self.values = np.frombuffer(self._memory, np.uint8)
        self.values.flags.writeable = False

    def write(self, offset: int, values: np.ndarray) -> None:
        """Write an array's bytes.

        Raises:
            OSError: the disk is full.
        """
        rest = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        if self._descriptor < 0:
            np.frombuffer(self._memory, np.uint8)[offset : offset + len(rest)] = rest
            return
        # A system call can fail cleanly; a store into mapped memory kills the process when the disk is full.
        while len(rest):
            written = os.pwrite(self._descriptor, rest.data, offset)
            offset, rest = offset + written, rest[written:]

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
