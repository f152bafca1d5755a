"""Open data sets for inspection: collect all problems, where a run would stop or skip them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssd_lightning.data.annotation_checks import RANGE_TOLERANCE_PX, Problem
from ssd_lightning.data.annotations import AnnotationTable, ImageAnnotation
from ssd_lightning.data.dataset import DetectionDataset, image_problem
from ssd_lightning.data.formats import VOC
from ssd_lightning.data.images import read_image
from ssd_lightning.data.reading import DatasetOpener
from ssd_lightning.errors import DataError


def open_leniently(
    opener: DatasetOpener, *, splits: Sequence[Mapping[str, Any]], decode: bool = True, **choice: Any
) -> DetectionDataset:
    """Open a split with all problems of its annotations in `dropped`; it may be empty.

    Images are decoded only if boxes extend beyond the annotated size. If the image has another size and contains the
    boxes, `dropped` lists the size instead of the boxes.

    Args:
        opener: opens the splits.
        splits: see `DatasetOpener`.
        decode: False decodes no image at all.
        choice: other arguments of the split.

    Raises:
        DataError: the list of images, or another file that all images share, cannot be read.
    """
    found = opener.read(splits)
    opener.log_notes(found)
    dataset = opener.choose(found, **choice)
    if decode:
        dataset.dropped = _measured(dataset.dropped, dataset.annotations)
    return dataset


def _measured(problems: Sequence[Problem], table: AnnotationTable) -> list[Problem]:
    """Replace boxes beyond the annotated size by the size, where the image has another that contains them."""
    outside = {problem.image_id for problem in problems if problem.kind == "outside"}
    rows = {image_id: row for row, image_id in enumerate(table.image_ids) if image_id in outside} if outside else {}
    facts = {image_id: _look_at(table[row]) for image_id, row in rows.items()}
    measured: dict[Problem, None] = {}
    for problem in problems:
        known = facts.get(problem.image_id or "") if problem.kind == "outside" else None
        if known and known.problem and known.size_px and problem.reach_px:
            measured[known.problem] = None
            sides = zip(problem.reach_px, known.size_px[::-1], strict=True)
            if all(reach <= side + RANGE_TOLERANCE_PX for reach, side in sides):
                continue
        measured[problem] = None
    return list(measured)


class ImageFacts(NamedTuple):
    """Properties of a decoded image."""

    path: Path
    digest: str | None
    """Digest of size and RGB pixels, without metadata; None if the image cannot be decoded."""
    size_px: tuple[int, int] | None
    """(height, width), upright if it matches the annotation in neither orientation; None if it cannot be decoded."""
    problem: Problem | None
    """The image cannot be decoded, or differs from the annotated size."""


def inspect_images(
    records: Sequence[ImageAnnotation], *, advance: Callable[[], object] = lambda: None
) -> dict[Path, ImageFacts]:
    """Decode every image once, in threads, since the decoders release the interpreter lock.

    Args:
        records: annotations of all splits; a file in several splits is decoded once.
        advance: called after each image.
    """
    first = {record.image_path: record for record in reversed(records)}
    facts = {}
    with ThreadPoolExecutor() as pool:
        for of_image in pool.map(_look_at, reversed(first.values())):
            facts[of_image.path] = of_image
            advance()
    return facts


def _look_at(record: ImageAnnotation) -> ImageFacts:
    path = record.image_path
    try:
        return ImageFacts(path, _digest(read_image(path, record.size_px)), record.size_px, None)
    except DataError as error:
        problem = image_problem(record, error)
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
    places = [(split, index) for split, of_split in records.items() for index in range(len(of_split))]
    if count is not None and count < len(places):
        chosen = np.random.default_rng(seed).choice(len(places), size=count, replace=False)
        places = [places[index] for index in sorted(chosen.tolist())]
    return {name: [of_split[index] for split, index in places if split == name] for name, of_split in records.items()}


def count_edges(opener: DatasetOpener, splits: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Count the left and upper edges at pixel 0 and at pixel 1 in VOC files."""
    assert isinstance(opener.format, VOC)
    found = replace(opener, format=replace(opener.format, xml_offset=0)).read(splits)
    starts = found.columns.boxes_xyxy_px[~found.columns.overhangs, :2]
    return int((starts == 0).sum()), int((starts == 1).sum())
