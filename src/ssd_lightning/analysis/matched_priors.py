"""Count how many priors the loss's matcher assigns to each object, and how many matches are forced."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

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


class ObjectMatches(NamedTuple):
    """Matches of the objects of one image."""

    priors: tuple[np.ndarray, ...]
    """int64 indices of the priors of each object, ascending."""
    best_iou: np.ndarray
    """`[N]`: the highest overlap with any prior, 0 for a box without area."""

    def is_forced(self, iou_threshold: float) -> np.ndarray:
        """Tell for each object whether it has a prior although none reaches the threshold: bool `[N]`."""
        has_prior = np.array([len(priors) > 0 for priors in self.priors], dtype=bool)
        return has_prior & (self.best_iou < iou_threshold)


def by_object(assignment: Assignment, targets: Sequence[Target], priors_cxcywh: Tensor) -> list[ObjectMatches]:
    """Group the matches of a batch by image and object."""
    priors_xyxy = cxcywh_to_xyxy(priors_cxcywh)
    matches = []
    for box_index, target in zip(assignment.box_index, targets, strict=True):
        count = len(target["labels"])
        owned = tuple((box_index == index).nonzero().flatten().cpu().numpy() for index in range(count))
        iou = box_iou(target["boxes"].to(priors_xyxy).reshape(-1, 4), priors_xyxy)  # [N, K]
        best = iou.amax(dim=1) if count else iou.new_zeros(0)
        matches.append(ObjectMatches(owned, torch.nan_to_num(best).cpu().numpy()))
    return matches


def matched_objects(
    matches: ObjectMatches,
    target: Target,
    *,
    priors_cxcywh: Tensor,
    levels: Sequence[PriorLevel],
    iou_threshold: float,
    class_names: Sequence[str] | None = None,
) -> list[MatchedObject]:
    """Describe the objects of one image for a drawing, without names if there are no `class_names`."""
    priors_xyxy, level_of_prior = cxcywh_to_xyxy(priors_cxcywh).numpy(), level_of_priors(levels)
    names = ["" if class_names is None else class_names[label - 1] for label in target["labels"].tolist()]
    return [
        MatchedObject(name, box, priors_xyxy[owned], level_of_prior[owned], float(best), bool(is_forced))
        for name, box, owned, best, is_forced in zip(
            names,
            target["boxes"].numpy(),
            matches.priors,
            matches.best_iou,
            matches.is_forced(iou_threshold),
            strict=True,
        )
    ]


def level_of_priors(levels: Sequence[PriorLevel]) -> np.ndarray:
    """Return the feature map of every prior, 1 for the finest: int64 `[K]`."""
    counts = [math.prod(level.grid) * level.boxes_per_cell for level in levels]
    return np.repeat(np.arange(1, len(counts) + 1), counts)


def summarise_matches(
    images: Sequence[ObjectMatches], level_of_prior: np.ndarray, iou_threshold: float
) -> dict[str, Any]:
    """Count objects by their number of priors, and priors and objects by level, in plain values.

    Returns:
        `images`, `objects`, `priors`; `by_count`: the groups of `COUNTS`; `forced`: objects; `levels`: for each level
        the matched `priors`, the number `of` all priors, the `objects` with priors there, and those that are `forced`.
    """
    levels = [level_of_prior[indices] for image in images for indices in image.priors]
    forced = [is_forced for image in images for is_forced in image.is_forced(iou_threshold).tolist()]
    counts = np.array([len(of) for of in levels], dtype=np.int64)
    by_level = []
    for level in range(1, int(level_of_prior.max(initial=0)) + 1):
        there = [int((of == level).sum()) for of in levels]
        by_level.append(
            {
                "priors": sum(there),
                "of": int((level_of_prior == level).sum()) * len(images),
                "objects": sum(count > 0 for count in there),
                "forced": sum(count > 0 for count, is_forced in zip(there, forced, strict=True) if is_forced),
            }
        )
    return {
        "images": len(images),
        "objects": len(levels),
        "priors": int(counts.sum()),
        "by_count": {name: int(((counts >= least) & (counts <= most)).sum()) for name, (least, most) in COUNTS.items()},
        "forced": sum(forced),
        "levels": by_level,
    }
