"""The splits of a data set: their properties and issues."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from ssd_lightning.analysis import health
from ssd_lightning.analysis.issues import Issue, Severity
from ssd_lightning.analysis.objects import boxes_in_input, object_namer, split_summary
from ssd_lightning.data.annotation_checks import RANGE_TOLERANCE_PX, Problem
from ssd_lightning.data.annotations import AnnotationTable, ImageAnnotation
from ssd_lightning.data.choosing import OnError
from ssd_lightning.data.dataset import DetectionDataset, image_problem
from ssd_lightning.data.images import read_image
from ssd_lightning.data.resize import ResizeMode, Stretch
from ssd_lightning.errors import DataError

log = logging.getLogger(__name__)


class ImageFacts(NamedTuple):
    """Properties of a decoded image."""

    path: Path
    digest: str | None
    """Digest of size and RGB pixels, without metadata; None if the image cannot be decoded."""
    size_px: tuple[int, int] | None
    """(height, width), upright if it matches the annotation in neither orientation; None if it cannot be decoded."""
    problem: Problem | None
    """The image cannot be decoded, or differs from the annotated size."""


@dataclass
class DatasetCheck:
    """Results so far."""

    on_error: OnError
    """What the run does with problems."""
    resize: ResizeMode = field(default_factory=Stretch)
    """How images are resized to the network's input."""
    datasets: dict[str, DetectionDataset] = field(default_factory=dict)
    facts: dict[Path, ImageFacts] = field(default_factory=dict)
    issues: list[Issue] = field(default_factory=list)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 1..C; empty if the training split cannot be opened."""
        return self.datasets["train"].class_names if "train" in self.datasets else ()


def draw_sample(
    records: Mapping[str, Sequence[ImageAnnotation]], count: int | None, seed: int
) -> dict[str, list[ImageAnnotation]]:
    """Draw at most `count` records of all splits, in their order; None keeps all."""
    places = [(split, index) for split, of_split in records.items() for index in range(len(of_split))]
    if count is not None and count < len(places):
        chosen = np.random.default_rng(seed).choice(len(places), size=count, replace=False)
        places = [places[index] for index in sorted(chosen.tolist())]
    return {name: [of_split[index] for split, index in places if split == name] for name, of_split in records.items()}


def inspect_images(records: Sequence[ImageAnnotation]) -> dict[Path, ImageFacts]:
    """Decode every image once, also a file in several splits, in threads: the decoders release the interpreter lock."""
    first = {record.image_path: record for record in reversed(records)}
    log.info("decoding %d images", len(first))
    console = Console()
    with ThreadPoolExecutor() as pool:
        found = track(
            pool.map(look_at, reversed(first.values())),
            "decoding",
            len(first),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        return {facts.path: facts for facts in found}


def look_at(record: ImageAnnotation) -> ImageFacts:
    """Decode an image."""
    path, problem = record.image_path, None
    try:
        pixels = read_image(path, record.size_px)
    except DataError as error:
        problem = image_problem(record, error)
        try:  # an image of another size can still be a duplicate
            pixels = read_image(path)
        except DataError:
            return ImageFacts(path, None, None, problem)
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return ImageFacts(path, digest.hexdigest(), pixels.shape[:2], problem)


def measured_by_image(record: ImageAnnotation, facts: ImageFacts | None) -> ImageAnnotation:
    """Set the size of a record to that of its image, if it is known.

    Boxes that reach beyond it are skipped; up to a pixel, they are clipped.
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


def decode_images(check: DatasetCheck, count: int | None, seed: int) -> None:
    """Decode `count` images of all splits together, or all; find damaged and duplicate images.

    If an image differs from its annotated size, its boxes are checked against the image from then on.
    """
    records = {split: dataset.annotations for split, dataset in check.datasets.items()}
    sample = draw_sample(records, count, seed)
    check.facts = inspect_images([record for of_split in sample.values() for record in of_split])
    digests: dict[str, dict[str, str]] = {}
    for split, of_split in sample.items():
        facts = [check.facts[record.image_path] for record in of_split]
        digests[split] = {str(fact.path): fact.digest for fact in facts if fact.digest is not None}
    check.issues += health.duplicate_issues(digests)
    if any(facts.problem is not None and facts.size_px is not None for facts in check.facts.values()):
        for dataset in check.datasets.values():
            measured = [measured_by_image(record, check.facts.get(record.image_path)) for record in dataset.annotations]
            dataset.annotations = AnnotationTable.of(measured)


def judge_split(
    check: DatasetCheck, split: str, *, image_size: tuple[int, int] | None, tiny_px: float
) -> dict[str, Any]:
    """Find the issues of a split, and summarise it.

    Sizes in the network's input of (height, width) are not checked if `image_size` is None.
    """
    dataset = check.datasets[split]
    objects = dataset.annotations.objects()
    severity: Severity = "error" if check.on_error == "raise" else "warning"
    facts = (check.facts.get(Path(path)) for path in dataset.annotations.image_paths)
    unread = [known.problem for known in facts if known is not None and known.problem is not None]
    unsound = dataset.dropped
    left_out = len(unsound) + len({*unread} - {*unsound})
    summary = split_summary(objects, dataset.class_names, images=len(dataset), left_out=left_out)
    counts = [of_class["objects"] for of_class in summary["classes"].values()]
    found = health.reader_issues(split, [*unsound, *unread], severity=severity)
    found += health.class_number_issues(split, unsound, counts, dataset.class_names)
    found += health.amount_issues(
        split,
        images=len(dataset) - len(unread),
        objects=len(objects.labels),
        left_out=left_out,
        is_trained_on=split == "train",
        skipped=dataset.skipped,
    )
    if split == "val":
        found += health.unscored_issues(images=summary["images"], objects=int((~objects.difficult).sum()))
    if split == "train" and len(objects.labels):
        found += health.few_objects_issues(summary["classes"])
        found += health.similar_class_issues(counts, dataset.class_names)
    if image_size is not None:
        boxes = boxes_in_input(dataset, check.resize, image_size)
        found += health.tiny_issues(split, boxes, object_namer(dataset), image_size=image_size, tiny_px=tiny_px)
    check.issues += found
    return summary
