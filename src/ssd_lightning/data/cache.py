"""A cache of decoded images in one block of memory or one file, shared by all processes."""

import hashlib
import logging
import mmap
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ssd_lightning.checks import require_choice
from ssd_lightning.data.free_memory import free_memory
from ssd_lightning.errors import ConfigurationError, DataError

log = logging.getLogger(__name__)

CacheKind = Literal["none", "ram", "disk"]
USABLE_SHARE = 0.8
"""Fraction of the free space that may be used; training and other processes need the rest."""
STAMP_BYTES = 16
"""A stamp is two int64: modification time of the image file in ns, and its size in bytes."""
LAYOUT = "stamps, pixels"
"""Part of a cache file's name: another layout uses another file."""


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


class ImageCache:
    """The images of one data set. Each has a slot, whose stamp identifies the version of the file it was read from.

    Filling a slot clears the stamp, writes the pixels, then the stamp. So a process that dies in between leaves an
    empty slot, and a changed image is read again. Any number of processes may fill the same slots, since they write
    the same data.

    In memory, the slots are shared with processes forked from the one that created the cache, such as DataLoader
    workers on Linux. Other processes read all files themselves. On disk, processes and later runs share the file by
    its name. The file must be on a local disk: a network disk may show writes of another machine in another order.
    Delete the file after a power cut, which may save a stamp but lose its pixels.

    Args:
        paths: files of the images.
        sizes_px: (height, width) of each image as read.
        file: the cache file; None keeps the cache in memory.
    """

    def __init__(self, *, paths: Sequence[Path], sizes_px: Sequence[tuple[int, int]], file: Path | None) -> None:
        self._paths = list(paths)
        self._sizes_px = list(sizes_px)
        self._file = file
        self._open()

    def _open(self) -> None:
        self._is_full = False
        self._offsets = _offsets(self._sizes_px)
        self._storage: SharedBytes | None = SharedBytes(num_bytes=int(self._offsets[-1]), file=self._file)
        self._stamps = self._storage.values[: self._offsets[0]].view(np.int64).reshape(-1, 2)

    def get(self, index: int, read: Callable[[], np.ndarray]) -> np.ndarray:
        """Return an image, from its slot if the slot is up to date.

        Args:
            index: index of the image.
            read: reads the original, uint8 `[H, W, 3]`. Its exceptions are passed on, and nothing is stored.

        Returns:
            The pixels; a copy if they come from a slot.
        """
        if self._storage is None:
            return read()
        try:
            status = os.stat(self._paths[index])
        except OSError:
            return read()  # raises the right error
        stamp = np.array([status.st_mtime_ns, status.st_size], dtype=np.int64)
        if np.array_equal(self._stamps[index], stamp):
            start, end = self._offsets[index : index + 2]
            kept = self._storage.values[start:end].reshape(*self._sizes_px[index], 3).copy()
            if np.array_equal(self._stamps[index], stamp):  # otherwise another process was filling the slot
                return kept
        pixels = read()
        if pixels.shape[:2] == self._sizes_px[index] and not self._is_full:
            try:
                if self._stamps[index].any():
                    self._storage.write(index * STAMP_BYTES, np.zeros_like(stamp))
                self._storage.write(int(self._offsets[index]), pixels)
                self._storage.write(index * STAMP_BYTES, stamp)
            except OSError as error:
                log.warning("%s: no more images are kept: %s", self._file, error.strerror or error)
                self._is_full = True
        return pixels

    @property
    def empty_bytes(self) -> int:
        """Bytes that the empty slots will need."""
        if self._storage is None:
            return 0
        return int(np.diff(self._offsets)[~self._stamps.any(axis=1)].sum())

    def __getstate__(self) -> dict[str, Any]:
        return {"_paths": self._paths, "_sizes_px": self._sizes_px, "_file": self._file}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._file is None:
            log.warning("data.cache=ram is shared with forked processes only; this one reads the files")
            self._storage = None
        else:
            self._open()


class ImageCaches:
    """Opens a cache for every data set of a run, if it fits.

    Args:
        kind: `none`, `ram` or `disk`.
        folder: local folder for cache files; may be None if none are written.

    Raises:
        ConfigurationError: `kind` is unknown, or the folder is missing.
    """

    def __init__(self, *, kind: CacheKind, folder: str | Path | None) -> None:
        require_choice("data.cache", kind, get_args(CacheKind))
        if not isinstance(folder, str | Path) and (kind == "disk" or folder is not None):
            raise ConfigurationError(f"data.cache_folder is {folder!r}; data.cache=disk needs the path of a folder")
        self.kind = kind
        self.folder = Path(folder or ".").expanduser()
        self._opened: list[tuple[ImageCache, int]] = []

    def open(
        self, paths: Sequence[Path], sizes_px: Sequence[tuple[int, int]], *, processes: int = 1
    ) -> ImageCache | None:
        """Open the cache of a data set; None if caching is off, or if it does not fit, with a warning.

        Args:
            paths: files of the images.
            sizes_px: (height, width) of each image as read.
            processes: number of processes on this machine (its ranks): each uses its own memory, all share one file.

        Raises:
            DataError: the folder or the file cannot be written.
        """
        try:
            return self._open(paths, sizes_px, processes)
        except OSError as error:
            reason = f"data.cache={self.kind} cannot be created: {error.strerror or error}"
            if self.kind == "disk":
                reason = f"{self.folder}: {reason}; data.cache_folder= names another folder"
            raise DataError(reason) from error

    def _open(self, paths: Sequence[Path], sizes_px: Sequence[tuple[int, int]], processes: int) -> ImageCache | None:
        if self.kind == "none" or not paths:
            return None
        file, needed = None, int(_offsets(sizes_px)[-1])
        if self.kind == "ram":
            needed, free, where = needed * processes, free_memory(), "memory"
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self.folder / f"{_digest(paths, sizes_px)}.pixels"
            needed -= min(needed, file.stat().st_blocks * 512) if file.exists() else 0
            free, where = shutil.disk_usage(self.folder).free, str(self.folder)
        # The space that earlier caches have filled is no longer free; the space they have not filled is reserved.
        promised = sum(cache.empty_bytes * copies for cache, copies in self._opened)
        usable = max(0, int(free * USABLE_SHARE) - promised)
        if needed > usable:
            log.warning(
                "data.cache=%s: %d decoded images need %s%s, and %s of %s may be used; every epoch decodes them again",
                self.kind,
                len(paths),
                _as_text(needed),
                f" in {processes} processes" if self.kind == "ram" and processes > 1 else "",
                _as_text(usable),
                where,
            )
            return None
        cache = ImageCache(paths=paths, sizes_px=sizes_px, file=file)
        self._opened.append((cache, processes if self.kind == "ram" else 1))
        return cache


def _offsets(sizes_px: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the start of each image's pixels, after all stamps, and the end of the last: int64 `[N + 1]`."""
    sizes = [height * width * 3 for height, width in sizes_px]
    return len(sizes) * STAMP_BYTES + np.cumsum([0, *sizes], dtype=np.int64)


def _digest(paths: Sequence[Path], sizes_px: Sequence[tuple[int, int]]) -> str:
    lines = [f"{os.path.abspath(path)} {height} {width}" for path, (height, width) in zip(paths, sizes_px, strict=True)]
    return hashlib.sha256("\n".join([LAYOUT, *lines]).encode(errors="surrogateescape")).hexdigest()[:16]


def _as_text(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"
