"""Keep the annotations of a split in files that processes map into memory, so that each reads them once.

The cache of a split is a folder. Its name is a hash of format, root and split; it is used while no source has changed.
"""

import gc
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from ssd_lightning.data.annotation_checks import Problem
from ssd_lightning.data.annotations import Columns
from ssd_lightning.data.split_annotations import AnnotationFormat, Annotations
from ssd_lightning.errors import one_line

log = logging.getLogger(__name__)

LAYOUT = 6
"""Part of a cache's name: increase it when the readers or the columns change."""
SLOWEST_UNCACHED_S = 1.0
"""Annotations that are read faster are not kept: small sets would only leave files."""
SAFE_AGE_S = 2.0
"""A source that changed this shortly before it was read may change again within one tick of its clock."""


def read_cached(
    annotation_format: AnnotationFormat, root: Path, split: str, *, folder: str | Path | None
) -> Annotations:
    """Read a split, or map what an earlier process has read. Raises `DataError` if it cannot be read.

    One process reads; others that want the same split at that time wait for it. `folder` is the local folder of the
    caches; None reads always.
    """
    if folder is None:
        return _read(annotation_format, root, split)
    key = hashlib.sha256(f"{LAYOUT} {annotation_format!r} {root} {split}".encode(errors="surrogateescape"))
    place = Path(os.path.abspath(Path(folder).expanduser())) / "annotations" / key.hexdigest()[:16]
    with _lock(place.name):
        if place.exists() and (kept := _load(place)):
            return kept
        start = time.time()
        found = _read(annotation_format, root, split)
        stamps = _stamps(found.sources)
        may_be_written = (stamps[:, 0] > (start - SAFE_AGE_S) * 1e9).any()
        if time.time() - start < SLOWEST_UNCACHED_S or may_be_written:
            return found
        try:
            _save(found, place, stamps)
        except OSError as error:
            log.warning("%s: the annotations are not kept: %s", place, error.strerror or error)
            return found
        return _load(place) or found


def _read(annotation_format: AnnotationFormat, root: Path, split: str) -> Annotations:
    """Read without the search for cycles, which takes a quarter of the time where a file has a million objects."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return annotation_format.read(root, split)
    finally:
        if was_enabled:
            gc.enable()


def _lock(name: str) -> AbstractContextManager[Any]:
    """Lock a cache for this user's processes on this machine. Its file is not beside the cache, which may be empty."""
    try:
        folder = Path(tempfile.gettempdir()) / f"ssd_lightning_{getattr(os, 'getuid', int)()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / f"{name}.lock").touch()
    except OSError:
        return nullcontext()  # each process reads
    return FileLock(folder / f"{name}.lock")


def _save(found: Annotations, place: Path, stamps: np.ndarray) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{place.name}.", dir=place.parent))
    try:
        found.columns.save(unfinished)
        np.save(unfinished / "stamps.npy", stamps)
        rest = {field.name: getattr(found, field.name) for field in fields(found) if field.name != "columns"}
        rest["problems"] = [asdict(problem) for problem in found.problems]
        (unfinished / "rest.json").write_text(json.dumps(rest))
        (unfinished / "checksums.json").write_text(json.dumps(_checksums(unfinished)))
        shutil.rmtree(place, ignore_errors=True)
        unfinished.rename(place)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _load(place: Path) -> Annotations | None:
    """Map a cache; None, with a line in the log, if it is damaged or out of date."""
    try:
        if json.loads((place / "checksums.json").read_text()) != _checksums(place):
            raise ValueError("a file has changed")
        rest: dict[str, Any] = json.loads((place / "rest.json").read_text())
        problems = [Problem(**problem) for problem in rest.pop("problems")]
        found = Annotations(columns=Columns.load(place), problems=problems, **rest)
        before = np.load(place / "stamps.npy")
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("%s: the kept annotations are damaged (%s); they are read again", place, error)
        return None
    now = _stamps(found.sources)
    changed = np.flatnonzero((before != now).any(1))
    if len(changed):
        log.info("%s has changed; the annotations are read again", one_line(found.sources[int(changed[0])]))
        return None
    return found


def _stamps(paths: Sequence[str]) -> np.ndarray:
    """Return modification time in ns and size of files and folders: int64 `[N, 2]`; zeros for a missing one."""

    def stamp(path: str) -> tuple[int, int]:
        try:
            status = os.stat(path)
        except OSError:
            return 0, 0
        return status.st_mtime_ns, status.st_size

    return np.fromiter(map(stamp, paths), np.dtype((np.int64, 2)), len(paths))


def _checksums(folder: Path) -> dict[str, int]:
    paths = (path for path in sorted(folder.iterdir()) if path.name != "checksums.json")
    return {path.name: zlib.crc32(np.memmap(path, np.uint8, "r").data) for path in paths}
