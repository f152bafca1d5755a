"""Open data sets for inspection: collect all problems, where a run would stop or skip them."""

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
    """Open a split with all problems of its annotations in `dropped`; it may be empty.

    Images are decoded only if boxes extend beyond the annotated size. If the image has another size and contains the
    boxes, `dropped` lists the size instead of the boxes.

    Args:
        make: class of a data set, or a `partial` of it.
        arguments: arguments of the split.

    Raises:
        ConfigurationError: `make` is not a class of data sets.
        DataError: the list of images, or another file that all images share, cannot be read.
    """
    made, settings = (make.func, make.keywords) if isinstance(make, partial) else (make, {})
    if not (isinstance(made, type) and issubclass(made, DetectionDataset)):
        raise ConfigurationError(f"data.module.dataset is {made!r}; it must be a class of DetectionDataset")
    with _quiet():
        return _lenient(made)(**{**settings, **arguments, "on_error": "skip"})


def _lenient(dataset: type[DetectionDataset]) -> type[DetectionDataset]:
    # The reader calls SplitDataset by `super()`, so a class in between sees the images.
    bases = (dataset, _MeasuredDataset) if issubclass(dataset, SplitDataset) else (dataset,)

    class Lenient(*bases):  # type: ignore[misc]
        def __init__(self, **arguments: Any) -> None:
            try:
                super().__init__(**arguments)
            except DataError:
                if not hasattr(self, "records"):
                    raise
                # Everything was read and nothing is usable; the caller decides about this.

        def _drop_unreadable(self) -> None:
            """Do nothing: `inspect_images` reports unreadable images."""

    return Lenient


class _MeasuredDataset(SplitDataset):
    """Checks boxes beyond the annotated size against the size of the image itself."""

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
    # The report lists everything that is skipped; a data set would also warn about it.
    log = logging.getLogger(DetectionDataset.__module__)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


class ImageFacts(NamedTuple):
    """Properties of a decoded image."""

    path: Path
    digest: str | None
    """Digest of size and RGB pixels, without metadata; None if the image cannot be decoded."""
    size_px: tuple[int, int] | None
    """(height, width), upright if it matches the annotation in neither orientation; None if it cannot be decoded."""
    problem: str | None
    """A sentence with the file name, if the image cannot be decoded or differs from the annotated size."""


def inspect_images(
    records: Sequence[ImageAnnotation], *, advance: Callable[[], object] = lambda: None
) -> dict[Path, ImageFacts]:
    """Decode every image once, in threads, since the decoders release the interpreter lock.

    Args:
        records: annotations of all splits; a file in several splits is decoded once.
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
    try:  # an image of another size can still be a duplicate
        pixels = read_image(path)
    except DataError:
        return ImageFacts(path, None, None, problem)
    return ImageFacts(path, _digest(pixels), pixels.shape[:2], problem)


def measured_by_image(record: ImageAnnotation, facts: ImageFacts | None) -> ImageAnnotation:
    """Set the size of a record to that of its image. Boxes beyond it are skipped; up to a pixel is clipped.

    Args:
        record: annotation with its own size.
        facts: properties of the image; None if unknown.
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
    """Draw at most `count` records of all splits, in their order; None keeps all."""
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
    """Count the left and upper edges at pixel 0 and at pixel 1 in VOC files.

    Args:
        make: data set with the setting `xml_offset`.
        arguments: arguments of the split.
    """
    as_written = open_leniently(make, **{**arguments, "xml_offset": 0})
    starts = np.concatenate([np.empty(0), *(record.boxes_xyxy_px[:, :2].ravel() for record in as_written.records)])
    return int((starts == 0).sum()), int((starts == 1).sum())
