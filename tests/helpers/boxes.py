"""Random boxes, and targets of boxes and labels."""

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


def make_target(boxes: Sequence[Sequence[float]] | Tensor, labels: Sequence[int] | Tensor) -> Target:
    return Target(
        boxes=torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.as_tensor(labels, dtype=torch.int64),
        difficult=torch.zeros(len(labels), dtype=torch.bool),
        image_id="",
        size_px=(300, 300),
    )
