"""A cache of decoded images in one block of memory or one file, shared by all processes."""

import hashlib
import logging
import math
import mmap
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ssd_lightning.checks import require_choice
from ssd_lightning.errors import ConfigurationError, DataError

log = logging.getLogger(__name__)

CacheKind = Literal["none", "ram", "disk"]
USABLE_SHARE = 0.8
"""Fraction of the free space that may be used; training and other processes need the rest."""
STAMP_BYTES = 16
"""A stamp is two int64: modification time of the image file in ns, and its size in bytes."""
LAYOUT = "stamps, pixels"
"""Part of a cache file's name: another layout uses another file."""
VERSION_2 = ("memory.max", "memory.current", "memory.stat")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
"""Files of a control group: limit, usage, and statistics."""


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
        file: the cache file; None keeps the cache in anonymous memory, which is visible only to processes forked from
            this one, and does not use /dev/shm.

    Raises:
        OSError: the file or the memory is not available.
    """

    _descriptor = -1
    _is_shared = True

    def __init__(self, *, paths: Sequence[Path], sizes_px: Sequence[tuple[int, int]], file: Path | None) -> None:
        self._paths = list(paths)
        self._sizes_px = list(sizes_px)
        self._file = file
        self._open()

    def _open(self) -> None:
        self._is_full = False
        self._offsets = _offsets(self._sizes_px)
        num_bytes = int(self._offsets[-1])
        if self._file is None:
            memory = mmap.mmap(-1, num_bytes)
        else:
            self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o644)
            os.ftruncate(self._descriptor, num_bytes)  # sparse: uses disk space only when filled
            memory = mmap.mmap(self._descriptor, num_bytes, access=mmap.ACCESS_READ)
        self._values: np.ndarray = np.frombuffer(memory, np.uint8)
        self._stamps = self._values[: self._offsets[0]].view(np.int64).reshape(-1, 2)

    def _write(self, offset: int, values: np.ndarray) -> None:
        """Write an array's bytes. Raises `OSError` if the disk is full."""
        rest = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        if self._file is None:
            self._values[offset : offset + len(rest)] = rest
            return
        # A system call can fail cleanly; a store into mapped memory kills the process when the disk is full.
        while len(rest):
            written = os.pwrite(self._descriptor, rest.data, offset)
            offset, rest = offset + written, rest[written:]

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def get(self, index: int, read: Callable[[], np.ndarray]) -> np.ndarray:
        """Return an image, uint8 `[H, W, 3]`: a copy of its slot if that is up to date, else what `read` returns.

        Exceptions of `read` are passed on, and nothing is stored.
        """
        if not self._is_shared:
            return read()
        try:
            status = os.stat(self._paths[index])
        except OSError:
            return read()  # raises the right error
        stamp = np.array([status.st_mtime_ns, status.st_size], dtype=np.int64)
        if np.array_equal(self._stamps[index], stamp):
            start, end = self._offsets[index : index + 2]
            kept = self._values[start:end].reshape(*self._sizes_px[index], 3).copy()
            if np.array_equal(self._stamps[index], stamp):  # otherwise another process was filling the slot
                return kept
        pixels = read()
        if pixels.shape[:2] == self._sizes_px[index] and not self._is_full:
            try:
                if self._stamps[index].any():
                    self._write(index * STAMP_BYTES, np.zeros_like(stamp))
                self._write(int(self._offsets[index]), pixels)
                self._write(index * STAMP_BYTES, stamp)
            except OSError as error:
                log.warning("%s: no more images are kept: %s", self._file, error.strerror or error)
                self._is_full = True
        return pixels

    @property
    def empty_bytes(self) -> int:
        """Bytes that the empty slots will need."""
        if not self._is_shared:
            return 0
        return int(np.diff(self._offsets)[~self._stamps.any(axis=1)].sum())

    def __getstate__(self) -> dict[str, Any]:
        return {"_paths": self._paths, "_sizes_px": self._sizes_px, "_file": self._file}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._file is None:
            log.warning("data.cache=ram is shared with forked processes only; this one reads the files")
            self._is_shared = False
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

        Of `processes` on this machine (its ranks), each uses its own memory, while all share one file.

        Raises:
            DataError: the folder or the file cannot be written.
        """
        if self.kind == "none" or not paths:
            return None
        copies = processes if self.kind == "ram" else 1
        try:
            file, needed = None, int(_offsets(sizes_px)[-1]) * copies
            if self.kind == "ram":
                free, where = free_memory(), "memory"
            else:
                self.folder.mkdir(parents=True, exist_ok=True)
                file = self.folder / f"{_digest(paths, sizes_px)}.pixels"
                needed -= min(needed, file.stat().st_blocks * 512) if file.exists() else 0
                free, where = shutil.disk_usage(self.folder).free, str(self.folder)
            # The space that earlier caches have filled is no longer free; the space they have not filled is reserved.
            promised = sum(cache.empty_bytes * of_cache for cache, of_cache in self._opened)
            usable = max(0, int(free * USABLE_SHARE) - promised)
            if needed > usable:
                need = f"{needed / 2**30:.2f} GiB" + (f" in {copies} processes" if copies > 1 else "")
                log.warning(
                    f"data.cache={self.kind}: {len(paths)} decoded images need {need}, and {usable / 2**30:.2f} GiB of "
                    f"{where} may be used; every epoch decodes them again"
                )
                return None
            cache = ImageCache(paths=paths, sizes_px=sizes_px, file=file)
        except OSError as error:
            reason = f"data.cache={self.kind} cannot be created: {error.strerror or error}"
            if self.kind == "disk":
                reason = f"{self.folder}: {reason}; data.cache_folder= names another folder"
            raise DataError(reason) from error
        self._opened.append((cache, copies))
        return cache


def _offsets(sizes_px: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the start of each image's pixels, after all stamps, and the end of the last: int64 `[N + 1]`."""
    sizes = [height * width * 3 for height, width in sizes_px]
    return len(sizes) * STAMP_BYTES + np.cumsum([0, *sizes], dtype=np.int64)


def _digest(paths: Sequence[Path], sizes_px: Sequence[tuple[int, int]]) -> str:
    lines = [f"{os.path.abspath(path)} {height} {width}" for path, (height, width) in zip(paths, sizes_px, strict=True)]
    return hashlib.sha256("\n".join([LAYOUT, *lines]).encode(errors="surrogateescape")).hexdigest()[:16]


def free_memory(
    *,
    machine: Path = Path("/proc/meminfo"),
    membership: Path = Path("/proc/self/cgroup"),
    groups: Path = Path("/sys/fs/cgroup"),
) -> int:
    """Return the bytes that can be filled without swapping, on the machine or in a container or job with less memory.

    `membership` lists this process's control groups, which are mounted in `groups`. Each up to the root may have a
    limit.
    """
    try:
        fields = dict(line.split(":") for line in machine.read_text().splitlines())
        free: list[float] = [int(fields["MemAvailable"].split()[0]) * 1024]
    except (OSError, KeyError, ValueError):  # not Linux: assume half of the installed memory
        free = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2]
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
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
        free += [_free_of_group(folder, names) for folder in (own, *own.parents) if folder.is_relative_to(root)]
    return int(min(free))


def _free_of_group(folder: Path, names: tuple[str, str, str]) -> float:
    limit, usage, parts = (folder / name for name in names)
    try:
        most, used = int(limit.read_text()), int(usage.read_text())
    except (OSError, ValueError):  # no such file, or the limit is "max"
        return math.inf
    counts = dict(line.split() for line in parts.read_text().splitlines()) if parts.exists() else {}
    # Cached file pages are dropped when memory is needed. Version 1 counts those of child groups separately.
    return max(0, most - used + int(counts.get("total_inactive_file", counts.get("inactive_file", 0))))
