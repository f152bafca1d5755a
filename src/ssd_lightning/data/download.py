"""Download Pascal VOC in the layout that `formats.VOC` reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ssd_lightning.data.archive import Archive, install
from ssd_lightning.errors import DataError


@dataclass(frozen=True, kw_only=True)
class VOCArchive(Archive):
    """An archive of VOC."""

    split: str
    """Image list, relative to the root, that is used to check completeness."""


def _voc_archive(year: int, filename: str, size_bytes: int, md5: str, split: str) -> VOCArchive:
    return VOCArchive(
        filename=filename,
        size_bytes=size_bytes,
        checksum=f"md5:{md5}",
        urls=(
            f"https://thor.robots.ox.ac.uk/pascal/VOC/voc{year}/{filename}",
            f"http://host.robots.ox.ac.uk/pascal/VOC/voc{year}/{filename}",
            f"https://pjreddie.com/media/files/{filename}",
        ),
        top_folder="VOCdevkit",
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


def prepare_voc(
    root: str | Path,
    *,
    archives: Sequence[str],
    download: bool,
    catalogue: Mapping[str, VOCArchive] = VOC_ARCHIVES,
    timeout_s: float = 30.0,
) -> None:
    """Check that `root/VOC2007` and `root/VOC2012` are complete, and download them if requested.

    Args:
        root: folder of the data.
        archives: names in the catalogue.
        catalogue: archives by name.
        timeout_s: timeout of a server, in seconds.
        download: download missing files; otherwise they are an error.

    Raises:
        DataError: an archive is unknown, files are missing and `download` is off, or the download fails.
    """
    root = Path(root).expanduser().absolute()
    unknown = [name for name in archives if name not in catalogue]
    if unknown:
        raise DataError(f"there is no archive '{unknown[0]}'; there is {', '.join(catalogue)}")
    missing = [name for name in archives if not _is_in_place(root, catalogue[name])]
    if download:
        for archive in (catalogue[name] for name in missing):
            install(archive, root, partial(_is_in_place, root, archive), timeout_s=timeout_s)
            _marker(root, archive).touch()
    elif missing:
        size = sum(catalogue[name].size_bytes for name in missing) / 1e9
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
