"""Small random data sets whose numbers are exact: boxes on a grid, scores in steps, so that ties are many."""

from collections.abc import Callable

import pytest
import torch

from helpers.targets import make_target
from ssd_lightning.types import Detections, Target

Images = tuple[list[Detections], list[Target]]


def draw_boxes(count: int, generator: torch.Generator) -> torch.Tensor:
    corner = torch.randint(0, 12, (count, 2), generator=generator)
    size = torch.randint(1, 5, (count, 2), generator=generator)
    return torch.cat([corner, corner + size], dim=1) / 16


def draw_images(num_images: int, num_classes: int, seed: int, score_steps: int = 8) -> Images:
    """Detections near and off the objects; every fifth image has no objects, every seventh no detections."""
    generator = torch.Generator().manual_seed(seed)

    def integers(low: int, high: int, count: int) -> torch.Tensor:
        return torch.randint(low, high, (count,), generator=generator)

    preds, targets = [], []
    for image in range(num_images):
        num_objects = 0 if image % 5 == 4 else int(integers(1, 7, 1))
        boxes, labels = draw_boxes(num_objects, generator), integers(1, num_classes + 1, num_objects)
        num_stray = int(integers(0, 6, 1))
        aimed_at = integers(0, max(num_objects, 1), int(integers(0, 12, 1)) if num_objects else 0)
        sideways = integers(-1, 2, len(aimed_at))[:, None] / 16 * torch.tensor([1, 0, 1, 0])
        found_boxes = torch.cat([boxes[aimed_at] + sideways, draw_boxes(num_stray, generator)])
        found_labels = torch.cat([labels[aimed_at], integers(1, num_classes + 1, num_stray)])
        scores = integers(1, score_steps + 1, len(found_boxes)) / score_steps
        ranked = scores.argsort(descending=True, stable=True)[: 0 if image % 7 == 6 else None]
        preds.append(Detections(boxes=found_boxes[ranked], scores=scores[ranked], labels=found_labels[ranked]))
        target = make_target(boxes, labels, image_id=f"{seed}_{image:04d}")
        size_px = (256, 512) if image % 2 else (1024, 512)
        targets.append(target | {"difficult": integers(0, 4, num_objects) == 0, "size_px": size_px})
    return preds, targets


@pytest.fixture
def draw() -> Callable[..., Images]:
    return draw_images
