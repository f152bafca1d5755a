"""The files below a folder, and how they begin."""

import codecs
import mmap
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from ssd_lightning.data.formats.files import encoding_of

DEEPEST = 5
"""Levels of folders that are searched."""
NUM_SAMPLES = 20
"""Files of a folder that are opened; the others of the same suffix are taken for the same."""


@dataclass(frozen=True)
class Files:
    """The files below a root, as paths relative to it, those nearest to it first."""

    root: Path
    paths: Sequence[str]
    is_cut: bool = False
    """Whether there are deeper folders, which were not searched."""

    def of(self, *suffixes: str) -> list[str]:
        """List the files of some suffixes."""
        return [path for path in self.paths if path.lower().endswith(suffixes)]

    def of_kind(self, suffix: str, describe: Callable[[Path], str | None]) -> dict[str, list[str]]:
        """Sort the files of a suffix by kind. Of many files in a folder only some are opened."""
        found: dict[str, list[str]] = defaultdict(list)
        for _, paths in groupby(self.of(suffix), key=folder_of):
            last, num_known = None, 0
            for path in paths:
                kind = describe(self.root / path) if num_known < NUM_SAMPLES else last
                if kind is not None:
                    last, num_known = kind, num_known + 1
                    found[kind].append(path)
        return found


def folder_of(path: str) -> str:
    """Return the folder of a file; empty for the root."""
    return path.rpartition("/")[0]


def survey(root: Path) -> Files:
    """List the files below a root that are not hidden."""
    paths: list[str] = []
    is_cut = False
    for folder, names, has_deeper in walk(root):
        inner = folder.relative_to(root).as_posix()
        prefix = "" if inner == "." else f"{inner}/"
        is_cut = is_cut or has_deeper
        paths += [prefix + name for name in names if not name.startswith(".") and os.path.isfile(folder / name)]
    return Files(root, sorted(paths, key=lambda path: (path.count("/"), folder_of(path), path)), is_cut)


def walk(root: Path) -> Iterator[tuple[Path, list[str], bool]]:
    """Yield each folder below a root that is not hidden, the names in it, and whether it has folders too deep."""
    for folder, folders, names in os.walk(root, followlinks=True):
        visible = sorted(name for name in folders if not name.startswith((".", "__")) and not _is_loop(folder, name))
        is_deepest = len(Path(folder).relative_to(root).parts) >= DEEPEST
        folders[:] = [] if is_deepest else visible
        yield Path(folder), names, is_deepest and bool(visible)


def _is_loop(folder: str, name: str) -> bool:
    path = os.path.join(folder, name)
    return os.path.islink(path) and Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(path))


def start_of(content: bytes | mmap.mmap) -> bytes:
    """Return the beginning of a file, without a byte order mark and blanks."""
    return content[:4096].removeprefix(codecs.BOM_UTF8).lstrip()


def content_of(path: Path) -> bytes | mmap.mmap:
    """Return what a file has as UTF-8, mapped into memory; nothing if it cannot be read."""
    try:
        with path.open("rb") as stream:
            if encoding_of(stream.read(2)) == "utf-16":
                return path.read_bytes().decode("utf-16").encode()
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # ValueError: the file is empty
        return b""
