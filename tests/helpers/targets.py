"""Targets as a data set would give them."""

import torch
from torch import Tensor

from ssd_lightning.types import Target


def make_target(boxes: Tensor, labels: Tensor | None = None, *, image_id: str = "a", size_px: int = 32) -> Target:
    """Make the target of a square image whose objects are not difficult.

    Args:
        boxes: `[N, 4]`, xyxy normalised.
        labels: `[N]`; by default all are of class 1.
    """
    return Target(
        boxes=boxes.reshape(-1, 4),
        labels=torch.ones(len(boxes), dtype=torch.int64) if labels is None else labels,
        difficult=torch.zeros(len(boxes), dtype=torch.bool),
        image_id=image_id,
        size_px=(size_px, size_px),
    )
