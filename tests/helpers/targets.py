"""Targets as a data set would give them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssd_lightning.types import Target


def draw_boxes(count: int, generator: torch.Generator, sides: tuple[float, float] = (0.05, 0.55)) -> Tensor:
    """Draw boxes within the image, xyxy `[count, 4]`, with sides in a range."""
    low, high = sides
    drawn = torch.rand(count, 2, generator=generator) * (high - low) + low
    corners = torch.rand(count, 2, generator=generator) * (1 - drawn)
    return torch.cat([corners, corners + drawn], dim=1)


def make_target(
    boxes: Sequence[Sequence[float]] | Tensor,
    labels: Sequence[int] | Tensor | None = None,
    *,
    image_id: str = "a",
    size_px: int = 32,
) -> Target:
    """Make the target of a square image whose objects are not difficult.

    Args:
        boxes: `[N, 4]`, xyxy normalised.
        labels: `[N]`; by default all are of class 1.
    """
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Target(
        boxes=boxes,
        labels=torch.as_tensor([1] * len(boxes) if labels is None else labels, dtype=torch.int64),
        difficult=torch.zeros(len(boxes), dtype=torch.bool),
        image_id=image_id,
        size_px=(size_px, size_px),
    )
