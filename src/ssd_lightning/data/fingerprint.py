"""Fingerprints of a split in a few numbers and hashes, to detect changes without a copy of the data."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ssd_lightning.data.annotations import AnnotationTable
from ssd_lightning.data.special_files import file_size

WHAT_DIFFERS = {
    "images": "the number of images",
    "objects": "the number of objects",
    "classes": "the class names",
    "names": "the names of the images or their order",
    "boxes": "boxes, labels, difficult flags or sizes of images",
    "bytes": "the size of the image files together",
    "files": "the sizes of single image files",
    "contents": "the contents of the image files",
}
"""Entries of a fingerprint, from coarse to fine."""


def table_fingerprint(annotations: AnnotationTable, class_names: Sequence[str]) -> dict[str, Any]:
    """Describe the annotations of a split, without a look at its image files; see `fingerprint`."""
    objects = annotations.objects()
    arrays = (
        annotations.sizes_px.astype("<i4"),
        objects.image.astype("<i8"),
        objects.boxes_xyxy_px.astype("<f4"),
        objects.labels.astype("<i8"),
        objects.difficult.astype("?"),
    )
    return {
        "images": len(annotations),
        "objects": len(objects.labels),
        "classes": _hash(name.encode(errors="surrogateescape") for name in class_names),
        "names": _hash(name.encode(errors="surrogateescape") for name in annotations.image_ids),
        "boxes": _hash(array.tobytes() for array in arrays),
    }


def fingerprint(annotations: AnnotationTable, class_names: Sequence[str], *, contents: bool = False) -> dict[str, Any]:
    """Describe a split in plain values: numbers and hashes of 16 hexadecimal digits, see `WHAT_DIFFERS`.

    The order of the images matters, since samplers draw by index. By default only file sizes are checked, which takes
    microseconds per image; a missing file has -1. Changed bytes in a file of the same size show only with `contents`,
    for which every image file is read.
    """
    paths = [Path(path) for path in annotations.image_paths]
    with ThreadPoolExecutor() as pool:  # mostly waits for the disk
        sizes = list(pool.map(file_size, paths))
        checksums = list(pool.map(checksum, paths)) if contents else None
    found = {
        **table_fingerprint(annotations, class_names),
        "bytes": sum(size for size in sizes if size > 0),
        "files": _hash(str(size).encode() for size in sizes),
    }
    return found if checksums is None else {**found, "contents": _hash(text.encode() for text in checksums)}


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe the differences of two fingerprints. Entries that one of them lacks are not compared."""
    return [
        f"{text} ({earlier[key]}, now {now[key]})" if isinstance(now[key], int) else text
        for key, text in WHAT_DIFFERS.items()
        if key in earlier and key in now and earlier[key] != now[key]
    ]


def checksum(path: str | Path) -> str:
    """Hash the contents of a file; '' if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError:
        return ""


def _hash(parts: Iterable[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))  # so that ("ab", "c") is not ("a", "bc")
        digest.update(part)
    return digest.hexdigest()
