"""Download Pascal VOC in the layout that `VOCDataset` reads."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from ssd_lightning.data.archive import Archive, obtain, unpack
from ssd_lightning.errors import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class VOCArchive(Archive):
    """An archive of VOC."""

    split: str
    """Image list, relative to the root, that is used to check completeness."""


def _voc_archive(year: int, filename: str, size_bytes: int, md5: str, split: str) -> VOCArchive:
    return VOCArchive(
        filename=filename,
        size_bytes=size_bytes,
        md5=md5,
        urls=(
            f"https://thor.robots.ox.ac.uk/pascal/VOC/voc{year}/{filename}",
            f"http://host.robots.ox.ac.uk/pascal/VOC/voc{year}/{filename}",
            f"https://pjreddie.com/media/files/{filename}",
        ),
        split=f"VOC{year}/ImageSets/Main/{split}.txt",
    )


VOC_ARCHIVES: Mapping[str, VOCArchive] = {
    "2007_trainval": _voc_archive(
        2007, "VOCtrainval_06-Nov-2007.tar", 460_032_000, "c52e279531787c972589f7e41ab4ae64", "trainval"
    ),
    "2007_test": _voc_archive(2007, "VOCtest_06-Nov-2007.tar", 451_020_800, "b6e924de25625d8de591ea690078ad9f", "test"),
    "2012_trainval": _voc_archive(
        2012, "VOCtrainval_11-May-2012.tar", 1_999_639_040, "6cd6e144f989b92b3379bac3b3de84fd", "trainval"
    ),
}


def download_voc(
    root: str | Path,
    *,
    archives: Sequence[str] = ("2007_trainval", "2007_test", "2012_trainval"),
    catalogue: Mapping[str, VOCArchive] = VOC_ARCHIVES,
    timeout_s: float = 30.0,
) -> None:
    """Download VOC to `root/VOC2007` and `root/VOC2012`. Existing files are kept.

    An archive in `root` is used without network access. An interrupted download continues where it ended. Archives
    are unpacked only if size and checksum are right.

    Args:
        root: folder of the data; created if missing.
        archives: names in the catalogue.
        catalogue: archives by name.
        timeout_s: timeout of a server, in seconds.

    Raises:
        DataError: an archive is unknown, no mirror has it, or it does not fit on the disk.
    """
    root = Path(root).expanduser().absolute()
    for name in archives:
        if name not in catalogue:
            raise DataError(f"there is no archive '{name}'; there is {', '.join(catalogue)}")
        archive = catalogue[name]
        if _is_in_place(root, archive):
            continue
        try:
            root.mkdir(parents=True, exist_ok=True)
            # If two runs start together, one waits for the other.
            with FileLock(root / ".download.lock"):
                if not _is_in_place(root, archive):
                    unpack(obtain(archive, root, timeout_s=timeout_s), root, top_folder="VOCdevkit")
                    _finish(root, archive)
        except OSError as error:
            raise DataError(f"{root}: cannot write {archive.filename} or its contents there: {error}") from error


def prepare_voc(
    root: str | Path,
    *,
    archives: Sequence[str],
    download: bool,
    catalogue: Mapping[str, VOCArchive] = VOC_ARCHIVES,
    timeout_s: float = 30.0,
) -> None:
    """Check that VOC is complete, and download it if requested.

    Args:
        root: folder of the data.
        archives: names in the catalogue.
        catalogue: archives by name.
        timeout_s: timeout of a server, in seconds.
        download: download missing files; otherwise they are an error.

    Raises:
        DataError: files are missing and `download` is off, or the download fails.
    """
    if download:
        download_voc(root, archives=archives, catalogue=catalogue, timeout_s=timeout_s)
        return
    root = Path(root).expanduser().absolute()
    missing = [name for name in archives if not _is_in_place(root, catalogue[name])]
    if missing:
        size = sum(catalogue[name].size_bytes or 0 for name in missing) / 1e9
        raise DataError(
            f"VOC {', '.join(missing)} is not in {root}: data.download=true fetches it ({size:.1f} GB), or data.root= "
            "names the folder that holds VOC2007 and VOC2012"
        )


def _marker(root: Path, archive: VOCArchive) -> Path:
    return root / f".{archive.filename}.unpacked"


def _is_in_place(root: Path, archive: VOCArchive) -> bool:
    # The marker avoids checking thousands of files. It is meaningless once its folder has been removed.
    marked = _marker(root, archive).is_file() and (root / archive.split).is_file()
    return marked or _all_files_exist(root, archive)


def _all_files_exist(root: Path, archive: VOCArchive) -> bool:
    """Tell whether all images of the split exist, so that the user's own copy needs no archive."""
    split = root / archive.split
    if not split.is_file():
        return False
    folder = root / Path(archive.split).parts[0]
    names = split.read_text(encoding="utf-8-sig").split()
    return bool(names) and all(
        (folder / "JPEGImages" / f"{name}.jpg").is_file() and (folder / "Annotations" / f"{name}.xml").is_file()
        for name in names
    )


def _finish(root: Path, archive: VOCArchive) -> None:
    if not _all_files_exist(root, archive):
        raise DataError(f"{root / archive.filename}: the archive lacks images of {archive.split}")
    _marker(root, archive).touch()
    log.info("%s is unpacked in %s; the archive itself is no longer needed", archive.filename, root)
