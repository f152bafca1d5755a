"""Data sets that are downloaded: Pascal VOC, and the bananas of d2l.ai ("Dive into Deep Learning", section 14.6).

Archives come from mirrors, are checked, and are unpacked safely.
"""

import csv
import logging
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import pooch
from filelock import FileLock

from ssd_lightning.checks import require_bool
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


def _voc_is_in_place(root: Path, split: str) -> bool:
    """Tell whether all images of a split have both files. `split` is an image list, relative to the root."""
    path = root / split
    if not path.is_file():
        return False
    names, year = set(path.read_text(encoding="utf-8-sig").split()), root / Path(split).parts[0]
    return bool(names) and all(
        names <= {file.stem for file in (year / folder).glob(f"*{suffix}")}  # faster than a question for each file
        for folder, suffix in (("JPEGImages", ".jpg"), ("Annotations", ".xml"))
    )


def _bananas_are_in_place(root: Path, splits: Sequence[str]) -> bool:
    for folder in (root / split for split in splits):
        try:
            with (folder / "label.csv").open(newline="") as stream:
                names = {row["img_name"] for row in csv.DictReader(stream)}
        except (OSError, KeyError):
            return False
        if not names or not all((folder / "images" / name).is_file() for name in names):
            return False
    return True


def _voc(year: int, filename: str, size_bytes: int, md5: str, split: str) -> Archive:
    return Archive(
        filename=filename,
        size_bytes=size_bytes,
        checksum=f"md5:{md5}",
        urls=(
            f"https://thor.robots.ox.ac.uk/pascal/VOC/voc{year}/{filename}",
            f"http://host.robots.ox.ac.uk/pascal/VOC/voc{year}/{filename}",
            f"https://pjreddie.com/media/files/{filename}",
        ),
        top_folder="VOCdevkit",
        folders="VOC2007 and VOC2012",
        is_in_place=partial(_voc_is_in_place, split=f"VOC{year}/ImageSets/Main/{split}.txt"),
    )


ARCHIVES: Mapping[str, Archive] = {
    "2007_trainval": _voc(
        2007, "VOCtrainval_06-Nov-2007.tar", 460_032_000, "c52e279531787c972589f7e41ab4ae64", "trainval"
    ),
    "2007_test": _voc(2007, "VOCtest_06-Nov-2007.tar", 451_020_800, "b6e924de25625d8de591ea690078ad9f", "test"),
    "2012_trainval": _voc(
        2012, "VOCtrainval_11-May-2012.tar", 1_999_639_040, "6cd6e144f989b92b3379bac3b3de84fd", "trainval"
    ),
    "bananas": Archive(
        filename="banana-detection.zip",
        checksum="sha1:5de26c8fce5ccdea9f91267273464dc968d20d72",
        urls=(
            "https://d2l-data.s3-accelerate.amazonaws.com/banana-detection.zip",
            "http://d2l-data.s3-accelerate.amazonaws.com/banana-detection.zip",
        ),
        top_folder="banana-detection",
        folders="bananas_train and bananas_val",
        is_in_place=partial(_bananas_are_in_place, splits=("bananas_train", "bananas_val")),
    ),
}


def prepare(root: str | Path, *, archives: Sequence[str], download: bool, timeout_s: float = 30.0) -> None:
    """Check that the files of all archives, names in `ARCHIVES`, are in `root`; with `download`, fetch missing ones.

    The root is created if it is missing. An archive in it is used without network access. A server has `timeout_s` to
    answer.

    Raises:
        ConfigurationError: `download` is neither true nor false.
        DataError: an archive is unknown, files are missing and `download` is off, or the download fails.
    """
    require_bool("data.download", download)
    root = Path(root).expanduser().absolute()
    unknown = [name for name in archives if name not in ARCHIVES]
    if unknown:
        raise DataError(f"there is no archive '{unknown[0]}'; there is {', '.join(ARCHIVES)}")
    missing = [name for name in archives if not ARCHIVES[name].is_in_place(root)]
    if missing and not download:
        size_bytes = sum(ARCHIVES[name].size_bytes for name in missing)
        size = f" ({size_bytes / 1e9:.1f} GB)" if size_bytes else ""
        raise DataError(
            f"the data {', '.join(missing)} are not in {root}: data.download=true fetches them{size}, or data.root= "
            f"names the folder that holds {ARCHIVES[missing[0]].folders}"
        )
    for name in missing:
        install(ARCHIVES[name], root, timeout_s=timeout_s)


def install(archive: Archive, root: Path, *, timeout_s: float) -> None:
    """Download and unpack an archive into `root` unless its files are there. See `prepare`.

    Raises:
        DataError: no mirror has the archive, it is not usable, or it does not fit on the disk.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        # If two runs start together, one waits for the other.
        with FileLock(root / ".download.lock"):
            if archive.is_in_place(root):
                return
            path = _obtain(archive, root, timeout_s=timeout_s)
            unpack(path, root, top_folder=archive.top_folder)
            if not archive.is_in_place(root):
                raise DataError(f"{path}: the archive lacks files of the data set")
            log.info("%s is unpacked in %s; the archive itself is no longer needed", archive.filename, root)
    except OSError as error:
        raise DataError(f"{root}: cannot write {archive.filename} or its contents there: {error}") from error


def _obtain(archive: Archive, folder: Path, *, timeout_s: float) -> Path:
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
