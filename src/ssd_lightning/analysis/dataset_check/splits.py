"""The splits of a data set: their properties and issues."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from ssd_lightning.analysis import health
from ssd_lightning.analysis.issues import Issue, Severity
from ssd_lightning.analysis.objects import boxes_in_input, object_namer, split_summary
from ssd_lightning.data.annotations import AnnotationTable
from ssd_lightning.data.choosing import OnError
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.inspection import ImageFacts, draw_sample, inspect_images, measured_by_image
from ssd_lightning.data.resize import ResizeMode, Stretch

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
