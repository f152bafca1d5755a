"""Data sets opened to be looked at: faults are collected, where a run would stop or skip and go on."""

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssd_lightning.data.annotation import RANGE_TOLERANCE_PX
from ssd_lightning.data.dataset import DetectionDataset, ImageAnnotation
from ssd_lightning.data.images import read_image
from ssd_lightning.data.split_dataset import ReadImage, SplitDataset
from ssd_lightning.errors import ConfigurationError, DataError


def open_leniently(make: Callable[..., DetectionDataset], **arguments: Any) -> DetectionDataset:
    """Open a split with all faults of its annotation in `dropped`; it may be empty.

    No image is decoded, except where boxes reach out of the size that its annotation states: if the image has
    another size, boxes inside it are not in `dropped`, and the size is.

    Args:
        make: a data set's class, or a `partial` of it.
        arguments: of the split.

    Raises:
        ConfigurationError: `make` is no class of data sets.
        DataError: the list of images, or what all of them share, cannot be read.
    """
    made, settings = (make.func, make.keywords) if isinstance(make, partial) else (make, {})
    if not (isinstance(made, type) and issubclass(made, DetectionDataset)):
        raise ConfigurationError(f"data.module.dataset is {made!r}; it must be a class of DetectionDataset")
    with _quiet():
        return _lenient(made)(**{**settings, **arguments, "on_error": "skip"})


def _lenient(dataset: type[DetectionDataset]) -> type[DetectionDataset]:
    # The reader calls SplitDataset by `super()`, so that what stands between them sees the images.
    bases = (dataset, _MeasuredDataset) if issubclass(dataset, SplitDataset) else (dataset,)

    class Lenient(*bases):  # type: ignore[misc]
        def __init__(self, **arguments: Any) -> None:
            try:
                super().__init__(**arguments)
            except DataError:
                if not hasattr(self, "records"):
                    raise
                # All has been read and nothing of it is left, which is for the caller to judge.

        def _drop_unreadable(self) -> None:
            """Leave the images to `inspect_images`, which reports every one of them."""

    return Lenient


class _MeasuredDataset(SplitDataset):
    """Measures boxes that reach out of the size that is stated by the image itself."""

    def __init__(self, *, images: Iterable[tuple[str, ReadImage]], **settings: Any) -> None:
        super().__init__(images=((name, partial(_read_measured, read)) for name, read in images), **settings)


_BEYOND = re.compile(r"reaches out of the image: ([xy])max is (\S+) of \d+ px")


def _read_measured(read: ReadImage) -> tuple[ImageAnnotation, list[str]]:
    record, sentences = read()
    if not any(_BEYOND.search(sentence) for sentence in sentences):
        return record, sentences
    facts = _look_at(record)
    if facts.size_px is None or facts.problem is None:
        return record, sentences
    return record, [facts.problem, *(sentence for sentence in sentences if not _is_within(sentence, facts.size_px))]


def _is_within(sentence: str, size_px: tuple[int, int]) -> bool:
    found = _BEYOND.search(sentence)
    side_px = size_px["yx".index(found[1])] if found else 0
    return found is not None and float(found[2]) <= side_px + RANGE_TOLERANCE_PX


@contextmanager
def _quiet() -> Iterator[None]:
    # What is skipped is in the report; a data set also warns of it.
    log = logging.getLogger(DetectionDataset.__module__)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


class ImageFacts(NamedTuple):
    """What is known of an image once it has been decoded."""

    path: Path
    digest: str | None
    """Of its size and RGB pixels, whatever the file's metadata; None if it cannot be decoded."""
    size_px: tuple[int, int] | None
    """(height, width), upright where its annotation says neither; None if it cannot be decoded."""
    problem: str | None
    """A sentence that names the file, if it cannot be decoded or has another size than its annotation says."""


def inspect_images(
    records: Sequence[ImageAnnotation], *, advance: Callable[[], object] = lambda: None
) -> dict[Path, ImageFacts]:
    """Decode every image once, in threads: the decoders leave the interpreter to the others.

    Args:
        records: of all splits; a file that several of them name is decoded for the first.
        advance: called after each image.
    """
    first = {record.image_path: record for record in reversed(records)}

    def look(record: ImageAnnotation) -> ImageFacts:
        facts = _look_at(record)
        advance()
        return facts

    with ThreadPoolExecutor() as pool:
        return {facts.path: facts for facts in pool.map(look, reversed(first.values()))}


def _look_at(record: ImageAnnotation) -> ImageFacts:
    path = record.image_path
    try:
        return ImageFacts(path, _digest(read_image(path, record.size_px)), record.size_px, None)
    except DataError as error:
        problem = str(error)
    try:  # an image of another size can still be the double of another one
        pixels = read_image(path)
    except DataError:
        return ImageFacts(path, None, None, problem)
    return ImageFacts(path, _digest(pixels), pixels.shape[:2], problem)


def measured_by_image(record: ImageAnnotation, facts: ImageFacts | None) -> ImageAnnotation:
    """Give a record the size of its image; boxes that reach out of it are skipped, a pixel more is clipped.

    Args:
        record: with the size that its annotation states.
        facts: of its image, None if they are not known.
    """
    if facts is None or facts.size_px in (None, record.size_px):
        return record
    height, width = facts.size_px
    sides = np.array([width, height, width, height], dtype=np.float32)
    boxes = np.minimum(record.boxes_xyxy_px, sides)
    kept = (record.boxes_xyxy_px <= sides + RANGE_TOLERANCE_PX).all(axis=1) & (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    return replace(
        record,
        size_px=(height, width),
        boxes_xyxy_px=boxes[kept],
        labels=record.labels[kept],
        difficult=record.difficult[kept],
    )


def _digest(pixels: np.ndarray) -> str:
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def draw_sample(
    records: Mapping[str, Sequence[ImageAnnotation]], count: int | None, seed: int
) -> dict[str, list[ImageAnnotation]]:
    """Draw at most `count` records of all splits together, in their order; None takes all."""
    flat = [(split, record) for split, of_split in records.items() for record in of_split]
    chosen = np.arange(len(flat))
    if count is not None and count < len(flat):
        chosen = np.sort(np.random.default_rng(seed).choice(len(flat), size=count, replace=False))
    sample: dict[str, list[ImageAnnotation]] = {split: [] for split in records}
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
