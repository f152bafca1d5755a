"""Find validation and test images that are training images too."""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.fingerprint import checksum
from ssd_lightning.data.special_files import file_size
from ssd_lightning.data.split_names import SPLIT_TITLES
from ssd_lightning.errors import listed, one_line

log = logging.getLogger(__name__)

MOST_FILES = 50_000
"""Of larger sets, files are not compared: asking for their sizes alone takes a second for each 100,000."""
MOST_READ = 2000
"""Groups of files of one size, or of one size and end, that are read."""
END_BYTES = 4096


def warn_of_training_images(dataset: DetectionDataset, split: str, training: DetectionDataset) -> None:
    """Warn if a split has training images: its scores say little about new images."""
    known = dict.fromkeys(training.annotations.image_paths)
    paths = list(dataset.annotations.image_paths)
    shared = [path for path in paths if path in known]
    copies = copies_across({"train": known, split: [path for path in paths if path not in known]})
    originals = {digest: path for path, digest in copies["train"].items()}
    found = [*shared, *(f"{path}, a copy of {originals[digest]}" for path, digest in copies[split].items())]
    if found:
        log.warning(
            "%d of %d %s images are training images too, so scores on them say little about new images:\n  %s",
            *(len(found), len(dataset), SPLIT_TITLES[split], listed(map(one_line, found), separator="\n  ")),
        )


def copies_across(splits: Mapping[str, Iterable[str]]) -> dict[str, dict[str, str]]:
    """Find files of the same bytes in several splits: split -> path -> digest of the bytes.

    Only files of the same size are read: first their ends, and where these are the same, all of them.
    """
    left: dict[str, dict[str, Any]] = {split: dict.fromkeys(paths) for split, paths in splits.items()}
    num_files = sum(map(len, left.values()))
    if num_files > MOST_FILES:
        log.debug("%d files are too many to look for copies", num_files)
        return {split: {} for split in splits}
    with ThreadPoolExecutor() as pool:  # mostly waits for the disk
        for describe in (lambda path: max(0, file_size(path)), _end, checksum):
            for files in left.values():
                files.update(zip(files, pool.map(describe, files), strict=True))
            left = _in_several(left)
    return left


def _in_several(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Keep the files whose key files of another split have too."""
    with_key = defaultdict(set)
    for split, files in splits.items():
        for key in files.values():
            with_key[key].add(split)
    several = sorted(key for key, those in with_key.items() if len(those) > 1 and key)
    if len(several) > MOST_READ:
        log.debug("of %d sizes that files of several splits have, %d are compared", len(several), MOST_READ)
    kept = set(several[:MOST_READ])
    return {split: {path: key for path, key in files.items() if key in kept} for split, files in splits.items()}


def _end(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - END_BYTES))
            return b"%d " % size + file.read()
    except OSError:
        return b""
