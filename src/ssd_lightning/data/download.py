"""Download data sets: Pascal VOC, and the bananas of d2l.ai ("Dive into Deep Learning", section 14.6)."""

import csv
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ssd_lightning.checks import require_bool
from ssd_lightning.data.archive import Archive, install
from ssd_lightning.errors import DataError


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
    """Check that the files of all archives are in `root`, and download them if requested.

    An archive in `root` is used without network access.

    Args:
        root: folder of the data; created if missing.
        archives: names in `ARCHIVES`.
        download: download missing files; otherwise they are an error.
        timeout_s: timeout of a server, in seconds.

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
