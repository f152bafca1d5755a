"""Download archives from mirrors, check size and checksum, and unpack them safely."""

import hashlib
import logging
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.request import Request, urlopen

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from ssd_lightning.data.free_space import free_disk
from ssd_lightning.errors import DataError

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
ATTEMPTS_PER_MIRROR = 5
"""VOC's server often drops the connection; each attempt continues where the last one ended."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One tar or zip file with its expected size and checksums."""

    filename: str
    size_bytes: int | None = None
    """None if unknown; an interrupted download then starts from scratch."""
    md5: str | None = None
    sha1: str | None = None
    urls: tuple[str, ...]
    """Mirrors, in order of preference."""


def obtain(archive: Archive, folder: Path, *, timeout_s: float) -> Path:
    """Return the path of the archive in `folder`; download it if it is missing or damaged.

    An interrupted download continues where it ended, even from another mirror.

    Args:
        archive: the archive.
        folder: existing folder for the file.
        timeout_s: timeout of a server, in seconds.

    Raises:
        DataError: no mirror has the archive, or there is not enough space for it and its contents.
    """
    path = folder / archive.filename
    if path.is_file():
        fault = _fault_of(path, archive)
        if fault is None:
            return path
        log.warning("%s: %s; it is downloaded again", path, fault)
    part = path.with_name(f"{path.name}.part")
    have_bytes = part.stat().st_size if part.is_file() else 0
    need_bytes = 2 * (archive.size_bytes or 0) - have_bytes  # the archive and its contents
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < need_bytes:
        raise DataError(f"{folder}: {archive.filename} needs {need_bytes:,} bytes of disk, {free_bytes:,} are free")
    faults = []
    for url in archive.urls:
        fault = _fetch_from(url, part, archive, timeout_s)
        if fault is None:
            os.replace(part, path)
            return path
        log.warning("%s: %s", url, fault)
        faults.append(f"{url}: {fault}")
    raise DataError(
        f"{archive.filename} could not be downloaded; put this file into {folder}, or point data.root= at a "
        f"folder that has the data ({'; '.join(faults)})"
    )


def _fault_of(path: Path, archive: Archive) -> str | None:
    size_bytes = path.stat().st_size
    if archive.size_bytes is not None and size_bytes != archive.size_bytes:
        return f"it has {size_bytes:,} bytes, not {archive.size_bytes:,}"
    for name, expected in (("md5", archive.md5), ("sha1", archive.sha1)):
        if expected is not None:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, partial(hashlib.new, name, usedforsecurity=False)).hexdigest()
            if found != expected:
                return f"its {name.upper()} checksum is {found}, not {expected}"
    return None


def _fetch_from(url: str, part: Path, archive: Archive, timeout_s: float) -> str | None:
    """Download the archive from one mirror into `part`; return the error, or None."""
    fault = None
    for _ in range(ATTEMPTS_PER_MIRROR):
        if archive.size_bytes is None:
            part.unlink(missing_ok=True)  # a complete file would look like a partial one
        start = part.stat().st_size if part.is_file() else 0
        if archive.size_bytes is None or start < archive.size_bytes:
            try:
                _stream(url, part, start, archive, timeout_s)
            except (OSError, HTTPException) as error:
                fault = str(error) or type(error).__name__
        got = part.stat().st_size if part.is_file() else 0
        if got >= (archive.size_bytes or 1):
            fault = _fault_of(part, archive)
            if fault is None:
                return None
            part.unlink()
            if start == 0:
                return fault  # it is all from this mirror, so a retry would not help
        elif got <= start:
            return fault or "the connection was closed"
    return fault or f"the connection was closed {ATTEMPTS_PER_MIRROR} times"


def _stream(url: str, part: Path, start: int, archive: Archive, timeout_s: float) -> None:
    headers = {"User-Agent": "ssd_lightning"} | ({"Range": f"bytes={start}-"} if start else {})
    with urlopen(Request(url, headers=headers), timeout=timeout_s) as response:  # noqa: S310 - urls from the catalogue
        if response.status != 206:
            start = 0  # the server cannot resume and sends the whole file
        length = response.headers["Content-Length"]
        total = archive.size_bytes or (start + int(length) if length is not None else None)
        if length is not None and start + int(length) != total:
            raise OSError(f"the mirror has {start + int(length):,} bytes, not {total:,}")
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with (
            part.open("ab" if start else "wb") as file,
            Progress(*columns, console=Console(stderr=True)) as progress,
        ):
            task = progress.add_task(archive.filename, total=total, completed=start)
            # One extra byte is enough to detect another file.
            while (total is None or start <= total) and (chunk := response.read(CHUNK_BYTES)):
                file.write(chunk)
                start += len(chunk)
                progress.update(task, completed=start)


def unpack(path: Path, folder: Path, *, top_folder: str) -> None:
    """Unpack the contents of `top_folder` in a tar or .zip file into `folder`, without the name of the top folder.

    Archives with anything but regular files below the top folder, or too large for the disk, are rejected before a
    file is written. `tarfile`'s own data filter is not used, since it is missing before Python 3.11.4.

    Raises:
        DataError: the file is not such an archive, or it is rejected.
    """
    log.info("unpacking %s", path)
    kind = "zip" if path.suffix == ".zip" else "tar"
    try:
        with (_zip_members if kind == "zip" else _tar_members)(path) as members:
            targets = [_target(member, path, top_folder) for member in members]
            need_bytes, free_bytes = sum(member.size_bytes for member in members), free_disk(folder)
            if need_bytes > free_bytes:
                raise DataError(f"{path}: its files have {need_bytes:,} bytes, and {free_bytes:,} are free in {folder}")
            for member, target in zip(members, targets, strict=True):
                place = folder / target
                place.parent.mkdir(parents=True, exist_ok=True)
                unfinished = place.with_name(f".{place.name}.part")
                with member.open() as source, unfinished.open("wb") as file:
                    shutil.copyfileobj(source, file)
                os.replace(unfinished, place)  # a killed run leaves no partial file
    except DataError:
        raise
    # The readers raise nearly any type for damage, passwords and unknown methods.
    except (tarfile.TarError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, LookupError, zlib.error) as error:
        raise DataError(f"{path}: this is not a readable {kind} archive: {error}") from error


@dataclass(frozen=True)
class _Member:
    name: str
    is_file: bool
    size_bytes: int
    open: Callable[[], IO[bytes]]


@contextmanager
def _tar_members(path: Path) -> Iterator[list[_Member]]:
    with tarfile.open(path, "r:") as tar:

        def reader(member: tarfile.TarInfo) -> IO[bytes]:
            source = tar.extractfile(member)
            assert source is not None
            return source

        try:
            members = [_Member(m.name, m.isfile(), m.size, partial(reader, m)) for m in tar if not m.isdir()]
        except OSError as error:  # an impossible file size
            raise tarfile.ReadError(str(error)) from error
        yield members


@contextmanager
def _zip_members(path: Path) -> Iterator[list[_Member]]:
    with zipfile.ZipFile(path) as archive:

        def reader(info: zipfile.ZipInfo) -> IO[bytes]:
            try:
                return archive.open(info)
            except OSError as error:  # an offset before the start of the file
                raise zipfile.BadZipFile(str(error)) from error

        yield [
            _Member(
                info.filename,
                not stat.S_ISLNK(info.external_attr >> 16),
                info.file_size,
                partial(reader, info),
            )
            for info in archive.infolist()
            if not info.is_dir() and not info.filename.startswith("__MACOSX/")  # metadata of macOS
        ]


def _target(member: _Member, path: Path, top_folder: str) -> PurePosixPath:
    parts = PurePosixPath(member.name).parts
    if not member.is_file:
        raise DataError(f"{path}: refused, since '{member.name}' in it is a link or a device, not a file")
    if len(parts) < 2 or parts[0] != top_folder or ".." in parts or set("\\:") & set(member.name):
        raise DataError(f"{path}: refused, since '{member.name}' in it does not lie below {top_folder}/")
    return PurePosixPath(*parts[1:])
