"""Data sets opened to be looked at: faults are collected, where a run would stop or leave out and go on."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssd_lightning.data.dataset import DetectionDataset, Record
from ssd_lightning.data.images import read_image
from ssd_lightning.errors import ConfigurationError, DataError


def open_leniently(make: Callable[..., DetectionDataset], **arguments: Any) -> DetectionDataset:
    """Open a split with all faults of its annotation in `dropped`. No picture is decoded, and it may be empty.

    Args:
        make: a data set's class, or a `partial` of it.
        arguments: of the split.

    Raises:
        ConfigurationError: `make` is no class of data sets.
        DataError: the list of pictures, or what all of them share, cannot be read.
    """
    made, settings = (make.func, make.keywords) if isinstance(make, partial) else (make, {})
    if not (isinstance(made, type) and issubclass(made, DetectionDataset)):
        raise ConfigurationError(f"data.module.dataset is {made!r}; it must be a class of DetectionDataset")
    with _quiet():
        return _lenient(made)(**{**settings, **arguments, "on_error": "skip"})


def _lenient(dataset: type[DetectionDataset]) -> type[DetectionDataset]:
    class Lenient(dataset):  # type: ignore[misc, valid-type]
        def __init__(self, **arguments: Any) -> None:
            try:
                super().__init__(**arguments)
            except DataError:
                if not hasattr(self, "records"):
                    raise
                # All has been read and nothing of it is left, which is for the caller to judge.

        def _drop_unreadable(self) -> None:
            """Leave the pictures to `inspect_pictures`, which reports every one of them."""

    return Lenient


@contextmanager
def _quiet() -> Iterator[None]:
    # What is left out is in the report; a data set also warns of it.
    log = logging.getLogger(DetectionDataset.__module__)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


class PictureFacts(NamedTuple):
    """What is known of a picture once it has been decoded."""

    path: Path
    digest: str | None
    """Of its size and RGB pixels, whatever the file's metadata; None if it cannot be decoded."""
    problem: str | None
    """A sentence that names the file, if it cannot be decoded or has another size than its annotation says."""


def inspect_pictures(
    records: Sequence[Record], *, advance: Callable[[], object] = lambda: None
) -> dict[Path, PictureFacts]:
    """Decode every picture once, in threads: the decoders leave the interpreter to the others.

    Args:
        records: of all splits; a file that several of them name is decoded for the first.
        advance: called after each picture.
    """
    first = {record.image_path: record for record in reversed(records)}

    def look(record: Record) -> PictureFacts:
        facts = _look_at(record)
        advance()
        return facts

    with ThreadPoolExecutor() as pool:
        return {facts.path: facts for facts in pool.map(look, reversed(first.values()))}


def _look_at(record: Record) -> PictureFacts:
    try:
        return PictureFacts(record.image_path, _digest(read_image(record.image_path, record.size_px)), None)
    except DataError as error:
        problem = str(error)
    try:  # a picture of another size can still be the double of another one
        return PictureFacts(record.image_path, _digest(read_image(record.image_path)), problem)
    except DataError:
        return PictureFacts(record.image_path, None, problem)


def _digest(pixels: np.ndarray) -> str:
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def draw_sample(records: Mapping[str, Sequence[Record]], count: int | None, seed: int) -> dict[str, list[Record]]:
    """Draw at most `count` records of all splits together, in their order; None takes all."""
    flat = [(split, record) for split, of_split in records.items() for record in of_split]
    chosen = np.arange(len(flat))
    if count is not None and count < len(flat):
        chosen = np.sort(np.random.default_rng(seed).choice(len(flat), size=count, replace=False))
    sample: dict[str, list[Record]] = {split: [] for split in records}
    for index in chosen:
        split, record = flat[index]
        sample[split].append(record)
    return sample


def count_edges(make: Callable[..., DetectionDataset], **arguments: Any) -> tuple[int, int]:
    """Count the left and upper edges that VOC files have at pixel 0 and at pixel 1.

    Args:
        make: of a data set with the setting `xml_offset`.
        arguments: of the split.
    """
    as_written = open_leniently(make, **{**arguments, "xml_offset": 0})
    starts = np.concatenate([np.empty(0), *(record.boxes_xyxy_px[:, :2].ravel() for record in as_written.records)])
    return int((starts == 0).sum()), int((starts == 1).sum())
