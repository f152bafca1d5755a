"""The splits of a data set: their properties and issues."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from ssd_lightning.analysis import health
from ssd_lightning.analysis.issues import Issue, Severity
from ssd_lightning.analysis.objects import Objects, split_summary
from ssd_lightning.data.annotation_checks import Problem
from ssd_lightning.data.annotations import AnnotationTable
from ssd_lightning.data.choosing import OnError
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.inspection import ImageFacts, draw_sample, inspect_images, measured_by_image
from ssd_lightning.data.resize import WHOLE, ResizeMode, Stretch
from ssd_lightning.types import Placement

log = logging.getLogger(__name__)


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

    @property
    def training_objects(self) -> int:
        """Number of usable training objects."""
        return int(self.datasets["train"].annotations.counts.sum())

    def problems(self, split: str) -> list[Problem]:
        """List the problems of decoded images of a split that are not usable."""
        facts = (self.facts.get(Path(path)) for path in self.datasets[split].annotations.image_paths)
        return [known.problem for known in facts if known is not None and known.problem is not None]


def decode_images(check: DatasetCheck, count: int | None, seed: int) -> None:
    """Decode `count` images of all splits together, or all; find damaged and duplicate images.

    If an image differs from its annotated size, its boxes are checked against the image from then on.
    """
    records = {split: dataset.annotations for split, dataset in check.datasets.items()}
    sample = draw_sample(records, count, seed)
    chosen = [record for of_split in sample.values() for record in of_split]
    total = len({record.image_path for record in chosen})
    log.info("decoding %d images", total)
    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("decoding", total=total)
        check.facts = inspect_images(chosen, advance=lambda: progress.advance(task))
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
    objects = objects_of(dataset.annotations)
    severity: Severity = "error" if check.on_error == "raise" else "warning"
    unsound, unread = dataset.dropped, check.problems(split)
    left_out = len(unsound) + len({*unread} - {*unsound})
    summary = split_summary(objects, dataset.class_names, images=len(dataset), left_out=left_out)
    counts = [of_class["objects"] for of_class in summary["classes"].values()]
    found = health.reader_issues(split, unsound, severity=severity)
    found += health.reader_issues(split, unread, severity=severity)
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
        found += health.unscored_issues(split, images=summary["images"], objects=int((~objects.difficult).sum()))
    if split == "train" and len(objects.labels):
        found += health.few_objects_issues(split, summary["classes"])
        found += health.similar_class_issues(split, counts, dataset.class_names)
    if image_size is not None:
        paths = list(dataset.annotations.image_paths)
        in_input = objects_of(dataset.annotations, partial(check.resize.placement, image_size=image_size))
        found += health.tiny_issues(split, in_input, paths, dataset.class_names, image_size=image_size, tiny_px=tiny_px)
    check.issues += found
    return summary


def objects_of(
    annotations: AnnotationTable, placement: Callable[[tuple[int, int]], Placement] = lambda size_px: WHOLE
) -> Objects:
    """Normalise the boxes of all objects.

    Args:
        annotations: annotations of the images.
        placement: maps an image's (height, width) to its part of the network's input, to which boxes are then
            normalised; by default they are normalised to the image.
    """
    objects = annotations.objects()
    sizes_px, of_image = np.unique(annotations.sizes_px, axis=0, return_inverse=True)
    places = np.array([placement((height, width)) for height, width in sizes_px.tolist()]).reshape(-1, 2)
    sides_px = np.tile(annotations.sizes_px[:, ::-1].astype(np.float64), 2)[objects.image]
    return Objects(
        image=objects.image,
        boxes_xyxy=objects.boxes_xyxy_px / sides_px * np.tile(places[of_image.reshape(-1)], 2)[objects.image],
        labels=objects.labels,
        difficult=objects.difficult,
    )
