"""Evaluation records: one with errors of each type planted in known numbers, and random ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torchvision.ops import box_iou

from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.metrics.average_precision import DetectionTable, ObjectTable

Box = tuple[float, float, float, float]

HEIGHT, WIDTH = 240, 320


@dataclass
class ImageSpec:
    """What is in an image and what was found: rows of (box, label, difficult) and (box, score, label)."""

    objects: list[tuple[Box, int, bool]] = field(default_factory=list)
    found: list[tuple[Box, float, int]] = field(default_factory=list)


def make_record(images: Sequence[ImageSpec], *, num_classes: int = 3, **changed: Any) -> EvaluationRecord:
    """Join images to a record; `changed` replaces its fields."""
    objects = [(index, *row) for index, image in enumerate(images) for row in image.objects]
    found = [(index, *row) for index, image in enumerate(images) for row in image.found]
    ids = tuple(f"{index:06d}" for index in range(len(images)))

    def column(rows: Sequence[tuple], place: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.tensor([row[place] for row in rows], dtype=dtype)

    fields: dict[str, Any] = {
        "split": "val",
        "class_names": tuple(f"class {label}" for label in range(1, num_classes + 1)),
        "image_ids": ids,
        "image_paths": tuple(f"images/{name}.jpg" for name in ids),
        "sizes_px": torch.tensor([[HEIGHT, WIDTH]] * len(ids), dtype=torch.int64).reshape(-1, 2),
        "detections": DetectionTable(
            column(found, 0),
            column(found, 1, torch.float32).reshape(-1, 4),
            column(found, 2, torch.float32),
            column(found, 3),
        ),
        "objects": ObjectTable(
            column(objects, 0),
            column(objects, 1, torch.float32).reshape(-1, 4),
            column(objects, 2),
            column(objects, 3, torch.bool),
        ),
    }
    return EvaluationRecord(**fields | changed)


LEFT, RIGHT, BELOW = (0.1, 0.1, 0.4, 0.4), (0.6, 0.1, 0.9, 0.4), (0.1, 0.6, 0.4, 0.9)
NEAR_LEFT = (0.15, 0.1, 0.45, 0.4)  # IoU with LEFT: 5 / 7
OFF_LEFT = (0.25, 0.1, 0.55, 0.4)  # 3 / 9
CORNER = (0.95, 0.95, 1.0, 1.0)

PLANTED: dict[str, ImageSpec] = {
    "nothing": ImageSpec(),
    "right": ImageSpec([(LEFT, 1, False), (RIGHT, 2, False), (BELOW, 3, False)],
                     [(LEFT, 0.9, 1), (RIGHT, 0.85, 2), (BELOW, 0.8, 3)]),
    "class": ImageSpec([(LEFT, 1, False)], [(LEFT, 0.78, 2)]),
    "localisation": ImageSpec([(LEFT, 1, False)], [(OFF_LEFT, 0.76, 1)]),
    "both": ImageSpec([(LEFT, 1, False)], [(OFF_LEFT, 0.74, 2)]),
    "duplicate": ImageSpec([(LEFT, 2, False)], [(LEFT, 0.72, 2), (NEAR_LEFT, 0.7, 2)]),
    "background": ImageSpec([(LEFT, 3, False)], [(LEFT, 0.68, 3), (CORNER, 0.66, 3)]),
    "background alone": ImageSpec([], [(CORNER, 0.64, 1)]),
    "missed": ImageSpec([(LEFT, 1, False), (RIGHT, 3, False)], [(RIGHT, 0.62, 3)]),
    "missed alone": ImageSpec([(BELOW, 2, False)], []),
    "difficult": ImageSpec([(LEFT, 1, True), (RIGHT, 2, True)], [(LEFT, 0.6, 1)]),
}  # fmt: skip
"""One error of the type in each image's name, and what it brings along: an object of a wrong class in a wrong place
(`both`) is missed too."""


def planted_record() -> EvaluationRecord:
    """Give a record with one image for each error; see `PLANTED`."""
    return make_record(list(PLANTED.values()))


def random_record(
    seed: int,
    *,
    num_images: int = 30,
    num_classes: int = 4,
    detections_an_image: int = 12,
    objects_an_image: int = 4,
    difficult: float = 0.0,
) -> EvaluationRecord:
    """Draw objects, and detections of which most lie near one of them, many with its class.

    Every fifth image has no objects, every seventh no detections. Scores are all different. The numbers of an image are
    means, `difficult` is a share of the objects.
    """
    draw = np.random.default_rng(seed)
    index = np.arange(num_images)
    counts = np.where(index % 5 == 4, 0, draw.integers(1, 2 * objects_an_image, num_images))
    of_image = index.repeat(counts)
    boxes = _boxes(draw, len(of_image))
    labels = draw.integers(1, num_classes + 1, len(of_image))

    found_counts = np.where(index % 7 == 6, 0, draw.integers(1, 2 * detections_an_image, num_images))
    found_in = index.repeat(found_counts)
    found_boxes = _boxes(draw, len(found_in))
    found_labels = draw.integers(1, num_classes + 1, len(found_in))
    first = counts.cumsum() - counts
    aimed = (draw.random(len(found_in)) < 0.8) & (counts[found_in] > 0)
    target = first[found_in[aimed]] + (draw.random(int(aimed.sum())) * counts[found_in[aimed]]).astype(int)
    sides = boxes[target, 2:] - boxes[target, :2]
    moved = draw.normal(0, 0.2, (len(target), 4)) * np.tile(sides, 2) * draw.random((len(target), 1))
    found_boxes[aimed] = _ordered(boxes[target] + moved)
    right = draw.random(len(target)) < 0.7
    found_labels[aimed] = np.where(right, labels[target], found_labels[aimed])
    scores = (draw.permutation(len(found_in)) + 1) / (len(found_in) + 1)
    sizes = np.where(index[:, None] % 2, [[HEIGHT, WIDTH]], [[375, 500]])
    found = (found_in, found_boxes.astype(np.float32), scores.astype(np.float32), found_labels)
    objects = (of_image, boxes.astype(np.float32), labels, draw.random(len(of_image)) < difficult)
    return make_record(
        [ImageSpec()] * num_images,
        num_classes=num_classes,
        sizes_px=torch.from_numpy(sizes),
        detections=DetectionTable(*map(torch.from_numpy, found)),
        objects=ObjectTable(*map(torch.from_numpy, objects)),
    )


def slow_matches(
    record: EvaluationRecord, *, score_threshold: float, same_class: bool
) -> tuple[dict[int, tuple[int, float]], list[int], list[int]]:
    """Match one detection after the other, the surest first.

    Returns:
        Detection -> the object that it takes, and their IoU; the detections that overlap nothing; the missed objects.
    """
    found, objects = record.detections, record.objects
    taken: dict[int, tuple[int, float]] = {}
    strays, free = [], set((~objects.difficult).nonzero()[:, 0].tolist())
    ious = box_iou(found.boxes.double(), objects.boxes.double())
    may_match = found.image_index[:, None] == objects.image_index
    if same_class:
        may_match &= found.labels[:, None] == objects.labels
    for row in found.scores.argsort(descending=True).tolist():
        if found.scores[row] < score_threshold:
            continue
        near = (may_match[row] & (ious[row] >= 0.5)).nonzero()[:, 0].tolist()
        if takeable := [other for other in near if other in free]:
            best = max(takeable, key=lambda other: ious[row, other])
            taken[row] = best, float(ious[row, best])
            free.remove(best)
        elif not objects.difficult[near].any():
            strays.append(row)
    return taken, strays, sorted(free)


def _boxes(draw: np.random.Generator, count: int) -> np.ndarray:
    sides = np.exp(draw.uniform(np.log(0.04), np.log(0.7), (count, 2)))
    corner = draw.random((count, 2)) * (1 - sides)
    return np.concatenate([corner, corner + sides], axis=1)


def _ordered(boxes: np.ndarray) -> np.ndarray:
    low, high = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
    return np.concatenate([low, high + 1e-3], axis=1).clip(0, 1.002)


EMPTY: dict[str, EvaluationRecord] = {
    "no images": make_record([]),
    "no images, no classes": make_record([], num_classes=0),
    "no objects": make_record([ImageSpec([], [(LEFT, 0.9, 1), (CORNER, 0.2, 3)])]),
    "no detections": make_record([ImageSpec([(LEFT, 1, False), (RIGHT, 2, False)])]),
    "neither": make_record([ImageSpec(), ImageSpec()]),
    "difficult objects alone": make_record([ImageSpec([(LEFT, 1, True)], [(LEFT, 0.9, 1), (RIGHT, 0.8, 2)])]),
    "one class": make_record([ImageSpec([(LEFT, 1, False)], [(LEFT, 0.9, 1)])], num_classes=1),
}
"""Records that lack something."""
