"""Download archives from mirrors, check them, and unpack them safely."""

import logging
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import pooch
from filelock import FileLock

from ssd_lightning.data.special_files import file_size
from ssd_lightning.errors import DataError

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One tar or zip file."""

    filename: str
    checksum: str
    """As pooch has it: `md5:...`, `sha1:...`."""
    urls: tuple[str, ...]
    """Mirrors, in order of preference."""
    top_folder: str
    """Folder in the archive that holds all files; its own name is dropped."""
    size_bytes: int = 0
    """0 if unknown."""
    folders: str
    """Folders of the data set in the root, for messages."""
    is_in_place: Callable[[Path], bool]
    """Tells whether a root has all files, so that the user's own copy needs no archive."""


def install(archive: Archive, root: Path, *, timeout_s: float) -> None:
    """Download and unpack an archive unless its files are in place. An archive in `root` needs no network.

    Args:
        archive: the archive.
        root: folder for the archive and its files; created if missing.
        timeout_s: timeout of a server, in seconds.

    Raises:
        DataError: no mirror has the archive, it is not usable, or it does not fit on the disk.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        # If two runs start together, one waits for the other.
        with FileLock(root / ".download.lock"):
            if archive.is_in_place(root):
                return
            path = obtain(archive, root, timeout_s=timeout_s)
            unpack(path, root, top_folder=archive.top_folder)
            if not archive.is_in_place(root):
                raise DataError(f"{path}: the archive lacks files of the data set")
            log.info("%s is unpacked in %s; the archive itself is no longer needed", archive.filename, root)
    except OSError as error:
        raise DataError(f"{root}: cannot write {archive.filename} or its contents there: {error}") from error


def obtain(archive: Archive, folder: Path, *, timeout_s: float) -> Path:
    """Return the path of the archive in `folder`; download it if it is missing or damaged.

    VOC's server often drops the connection: what arrived is kept in `*.part`, and the next attempt, of any mirror,
    continues there. The mirrors are asked in turns until a whole round brings nothing new.
    """
    part = folder / f"{archive.filename}.part"
    if not (folder / archive.filename).is_file():
        need_bytes = 2 * archive.size_bytes - max(0, file_size(part))  # the archive and its contents
        if need_bytes > (free_bytes := shutil.disk_usage(folder).free):
            raise DataError(f"{folder}: {archive.filename} needs {need_bytes:,} bytes of disk, {free_bytes:,} are free")

    def download(url: str, output_file: str, _: Any) -> None:
        with part.open("ab") as file:

            def restart_if_whole(response: Any, **settings: Any) -> None:
                if response.status_code in (200, 416):  # the server ignores the range, or has no such range
                    file.truncate(0)

            headers = {"User-Agent": "ssd_lightning", "Accept-Encoding": "identity"}
            fetch = pooch.HTTPDownloader(
                progressbar=True,
                chunk_size=CHUNK_BYTES,
                timeout=timeout_s,
                headers=headers | ({"Range": f"bytes={file.tell()}-"} if file.tell() else {}),
                hooks={"response": restart_if_whole},
            )
            fetch(url, file, None)
        part.replace(output_file)

    while True:
        size_bytes, faults = file_size(part), []
        for url in archive.urls:
            try:
                pooch.retrieve(url, archive.checksum, fname=archive.filename, path=folder, downloader=download)
                return folder / archive.filename
            except (OSError, ValueError) as error:  # of the network, and of the checksum
                faults.append(f"{url}: {error}")
                log.warning("%s", faults[-1])
        if file_size(part) == size_bytes:
            raise DataError(
                f"{archive.filename} could not be downloaded; put this file into {folder}, or point data.root= at a "
                f"folder that has the data ({'; '.join(faults)})"
            )


def unpack(path: Path, folder: Path, *, top_folder: str) -> None:
    """Unpack the contents of `top_folder` in a tar or .zip file into `folder`, without the name of the top folder.

    All files are unpacked aside first: an archive with links, devices or paths that lead outside changes nothing.

    Raises:
        DataError: the file is not such an archive, or it is refused, or too large for the disk.
    """
    log.info("unpacking %s", path)
    with TemporaryDirectory(dir=folder, prefix=".unpacking_") as aside:
        try:
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as zipped:
                    members = zipped.infolist()
                    _check_members(folder, {member.filename: member.file_size for member in members})
                    zipped.extractall(aside)  # noqa: S202 - links become plain files
            else:
                with tarfile.open(path, "r:") as tar:
                    _check_members(folder, {member.name: member.size for member in tar})
                    tar.extractall(aside, filter=_plain_files)  # noqa: S202
        except Exception as error:  # the readers raise nearly any type for damage, passwords and unknown methods
            raise DataError(f"{path}: cannot be unpacked: {error}") from error
        top = Path(aside, top_folder)
        for source in [file for file in top.rglob("*") if file.is_file()]:
            target = folder / source.relative_to(top)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, target)  # a killed run leaves no partial file


def _check_members(folder: Path, size_of: Mapping[str, int]) -> None:
    for name in size_of:
        if ".." in PurePosixPath(name).parts or set("\\:") & set(name) or name.startswith("/"):
            raise ValueError(f"'{name}' in it leads outside")
    need_bytes, free_bytes = sum(size_of.values()), shutil.disk_usage(folder).free
    if need_bytes > free_bytes:
        raise ValueError(f"its files have {need_bytes:,} bytes, and {free_bytes:,} are free in {folder}")


def _plain_files(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    if not (member.isfile() or member.isdir()):
        raise ValueError(f"'{member.name}' in it is a link or a device")
    return tarfile.data_filter(member, folder)
