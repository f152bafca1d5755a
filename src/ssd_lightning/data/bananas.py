"""The banana detection set of d2l.ai ("Dive into Deep Learning", section 14.6), with optional download."""

import csv
from functools import partial
from pathlib import Path

from ssd_lightning.data.archive import Archive, install
from ssd_lightning.errors import DataError

BANANAS = Archive(
    filename="banana-detection.zip",
    checksum="sha1:5de26c8fce5ccdea9f91267273464dc968d20d72",
    urls=(
        "https://d2l-data.s3-accelerate.amazonaws.com/banana-detection.zip",
        "http://d2l-data.s3-accelerate.amazonaws.com/banana-detection.zip",
    ),
    top_folder="banana-detection",
)
SPLITS = ("bananas_train", "bananas_val")


def prepare_bananas(root: str | Path, *, download: bool, archive: Archive = BANANAS, timeout_s: float = 30.0) -> None:
    """Check or create the data set in `root/bananas_train` and `root/bananas_val`.

    An archive in `root` is used without network access.

    Args:
        root: folder of the data; created if missing.
        download: download missing files; otherwise they are an error.
        archive: archive of the data set.
        timeout_s: timeout of a server, in seconds.

    Raises:
        DataError: files are missing and `download` is off, or the download fails.
    """
    root = Path(root).expanduser().absolute()
    if _is_in_place(root):
        return
    if not download:
        raise DataError(
            f"the bananas are not in {root}: data.download=true fetches them, or data.root= names the folder that "
            f"holds {' and '.join(SPLITS)}"
        )
    install(archive, root, partial(_is_in_place, root), timeout_s=timeout_s)


def _is_in_place(root: Path) -> bool:
    return all(_all_images_exist(root / split) for split in SPLITS)


def _all_images_exist(folder: Path) -> bool:
    try:
        with (folder / "label.csv").open(newline="") as stream:
            names = {row["img_name"] for row in csv.DictReader(stream)}
    except (OSError, KeyError):
        return False
    return bool(names) and all((folder / "images" / name).is_file() for name in names)
