"""Count how many priors the loss's matcher assigns to each object, and how many matches are forced."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from ssd_lightning.ops.boxes import cxcywh_to_xyxy
from ssd_lightning.ops.matching import Assignment
from ssd_lightning.ops.priors import PriorLevel
from ssd_lightning.types import Target
from ssd_lightning.visualization.draw_matches import MatchedObject

COUNTS = {"0 priors": (0, 0), "1 prior": (1, 1), "2 to 5 priors": (2, 5), "6 priors and more": (6, np.inf)}
"""Name of a group of objects -> its smallest and largest number of priors."""


def matched_objects(
    assignment: Assignment,
    targets: Sequence[Target],
    priors_cxcywh: Tensor,
    *,
    levels: Sequence[PriorLevel],
    iou_threshold: float,
    class_names: Sequence[str] | None = None,
) -> list[list[MatchedObject]]:
    """List the objects of each image of a batch with their priors, without names if there are no `class_names`.

    A box without area has the best IoU 0.
    """
    priors_xyxy, level_of_prior = cxcywh_to_xyxy(priors_cxcywh), level_of_priors(levels)
    images = []
    for box_index, target in zip(assignment.box_index, targets, strict=True):
        iou = box_iou(target["boxes"].reshape(-1, 4), priors_xyxy)  # [N, K]
        objects = []
        for index, best_iou in enumerate(torch.nan_to_num(iou.amax(dim=1))):
            owned = (box_index == index).nonzero().flatten().numpy()
            objects.append(
                MatchedObject(
                    name="" if class_names is None else class_names[int(target["labels"][index]) - 1],
                    box_xyxy=target["boxes"][index].numpy(),
                    priors_xyxy=priors_xyxy[owned].numpy(),
                    levels=level_of_prior[owned],
                    best_iou=float(best_iou),
                    is_forced=len(owned) > 0 and bool(best_iou < iou_threshold),
                )
            )
        images.append(objects)
    return images


def level_of_priors(levels: Sequence[PriorLevel]) -> np.ndarray:
    """Return the feature map of every prior, 1 for the finest: int64 `[K]`."""
    counts = [math.prod(level.grid) * level.boxes_per_cell for level in levels]
    return np.repeat(np.arange(1, len(counts) + 1), counts)


def summarise_matches(images: Sequence[Sequence[MatchedObject]], levels: Sequence[PriorLevel]) -> dict[str, Any]:
    """Count objects by their number of priors, and priors and objects by level, in plain values.

    Returns:
        `images`, `objects`, `priors`; `by_count`: the groups of `COUNTS`; `forced`: objects; `levels`: for each level
        the matched `priors`, the number `of` all priors, the `objects` with priors there, and those that are `forced`.
    """
    objects = [matched for image in images for matched in image]
    counts = [len(matched.levels) for matched in objects]
    by_level = []
    for number, of in enumerate(np.bincount(level_of_priors(levels))[1:].tolist(), start=1):
        there = np.array([(matched.levels == number).sum() for matched in objects], dtype=np.int64)
        forced = sum(matched.is_forced for matched, count in zip(objects, there, strict=True) if count)
        num_objects = int((there > 0).sum())
        by_level.append({"priors": int(there.sum()), "of": of * len(images), "objects": num_objects, "forced": forced})
    return {
        "images": len(images),
        "objects": len(objects),
        "priors": sum(counts),
        "by_count": {name: sum(least <= count <= most for count in counts) for name, (least, most) in COUNTS.items()},
        "forced": sum(matched.is_forced for matched in objects),
        "levels": by_level,
    }
