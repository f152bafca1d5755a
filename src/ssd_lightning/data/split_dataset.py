"""Build a data set from the images of named splits: the code that the readers of all formats share."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from ssd_lightning.data.dataset import DetectionDataset, ImageAnnotation, OnError, Subset, Transform, in_subset
from ssd_lightning.data.splits import is_within
from ssd_lightning.errors import DataError

log = logging.getLogger(__name__)

READ_AT_ONCE = 1024
"""Images submitted to the threads together: enough to keep them busy, few enough to stop early at an error."""

ReadImage = Callable[[], tuple[ImageAnnotation, list[str]]]
"""Returns the record of all valid objects and a sentence for each invalid one; raises `DataError` if none is valid."""


class SplitDataset(DetectionDataset):
    """Common base of the readers of all annotation formats, once the images of the splits are known.

    Args:
        roots: roots of the splits; images outside of them are logged.
        images: (image id, reader of its annotation), in the order of the records.
        class_names: names of the classes 1..C.
        transform: transform of each sample; None returns the image unchanged.
        seed: root of all samples' seeds.
        on_error: `raise` stops at the first bad object or image; `skip` drops and lists them.
        part: `train` and `val` are complementary parts of the data, `all` is the whole set.
        val_fraction: share of the images that `val` holds.
        max_images: use only the first images of the part, up to this number.
        problems: sentences about problems found before the images were read.

    Raises:
        DataError: an image or annotation is missing or unusable; no image is left.
    """

    def __init__(
        self,
        *,
        roots: Sequence[Path],
        images: Iterable[tuple[str, ReadImage]],
        class_names: Sequence[str],
        transform: Transform | None,
        seed: int,
        on_error: OnError,
        part: Subset,
        val_fraction: float,
        max_images: int | None,
        problems: Sequence[str] = (),
    ) -> None:
        records, dropped = collect_records(
            images,
            on_error=on_error,
            part=part,
            val_fraction=val_fraction,
            max_images=max_images,
            problems=problems,
        )
        super().__init__(
            records=records,
            class_names=class_names,
            transform=transform,
            seed=seed,
            on_error=on_error,
            part=part,
            val_fraction=val_fraction,
            dropped=dropped,
        )
        self._log_images_outside(roots)

    def _log_images_outside(self, roots: Sequence[Path]) -> None:
        folders = {record.image_path.parent for record in self.records}
        far = {folder for folder in folders if not any(is_within(root, folder) for root in roots)}
        outside = [record.image_path for record in self.records if record.image_path.parent in far]
        if outside:
            log.warning(
                "%d of the %d images lie outside of %s; the first: %s",
                len(outside),
                len(self.records),
                " and ".join(dict.fromkeys(map(str, roots))),
                os.path.abspath(outside[0]),
            )


def collect_records(
    images: Iterable[tuple[str, ReadImage]],
    *,
    on_error: OnError,
    part: Subset,
    val_fraction: float,
    max_images: int | None,
    problems: Sequence[str] = (),
) -> tuple[list[ImageAnnotation], list[str]]:
    """Read the images of one part of a data set, in threads, since this mostly waits for the disk.

    Args:
        images: (image id, reader), in the order of the records.
        on_error: `raise` stops at the first problem; `skip` drops the object or image.
        part: the part to read.
        val_fraction: share of the images that `val` holds.
        max_images: use only the first images, up to this number.
        problems: sentences about problems found before the images were read.

    Returns:
        The records, and a sentence for everything that was skipped.

    Raises:
        DataError: the first problem, if `on_error` is `raise`.
    """
    records: list[ImageAnnotation] = []
    dropped = list(problems)
    if on_error == "raise":
        _raise_first(dropped)
    wanted = (read for image_id, read in images if in_subset(image_id, part, val_fraction))
    with ThreadPoolExecutor() as pool:
        while True:
            chunk_size = READ_AT_ONCE if max_images is None else min(READ_AT_ONCE, max_images - len(records))
            chunk = list(islice(wanted, chunk_size))
            if not chunk:
                return records, dropped
            for outcome in pool.map(_attempt, chunk):
                if isinstance(outcome, DataError):
                    if on_error == "raise":
                        raise outcome
                    dropped.append(str(outcome))
                    continue
                record, faults = outcome
                if on_error == "raise":
                    _raise_first(faults)
                records.append(record)
                dropped.extend(faults)


def _attempt(read: ReadImage) -> tuple[ImageAnnotation, list[str]] | DataError:
    try:
        return read()
    except DataError as error:
        return error


def _raise_first(problems: Sequence[str]) -> None:
    if problems:
        raise DataError(f"{problems[0]} (on_error=skip drops such objects)")
