"""Compares the detections of two detectors."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssd_lightning.types import Detections

CLOSE = 0.02
"""Two detections of a class match if no edge (as a share of the image) and no score differs by more than this.
Otherwise they are unmatched."""


@dataclass(frozen=True)
class Parity:
    """Differences over some images.

    Attributes:
        images: number of compared images.
        detections: number of detections of the first detector.
        others: number of detections of the second detector.
        unmatched: number of detections of either detector without a match.
        boxes: largest difference of an edge among matched detections, normalised.
        boxes_px: largest difference of an edge in pixels.
        scores: largest difference of a score among matched detections.
    """

    images: int = 0
    detections: int = 0
    others: int = 0
    unmatched: int = 0
    boxes: float = 0.0
    boxes_px: float = 0.0
    scores: float = 0.0

    def __add__(self, other: "Parity") -> "Parity":
        return Parity(
            self.images + other.images,
            self.detections + other.detections,
            self.others + other.others,
            self.unmatched + other.unmatched,
            max(self.boxes, other.boxes),
            max(self.boxes_px, other.boxes_px),
            max(self.scores, other.scores),
        )

    @property
    def unmatched_share(self) -> float:
        """Unmatched share of all detections of both."""
        return self.unmatched / max(1, self.detections + self.others)


def compare_detections(ours: Detections, theirs: Detections, size_px: tuple[int, int], close: float = CLOSE) -> Parity:
    """Compare the detections of one image.

    Differences in pixels are those of an image of `size_px` (height, width); see `CLOSE` for `close`.
    """
    boxes = (ours["boxes"][:, None] - theirs["boxes"]).abs()  # [M, N, 4]
    scores = (ours["scores"][:, None] - theirs["scores"]).abs()  # [M, N]
    same_class = ours["labels"][:, None] == theirs["labels"]
    first, second = _pairs(torch.maximum(boxes.amax(dim=2), scores).where(same_class, torch.inf), close)
    matched = boxes[first, second]  # [P, 4]
    height, width = size_px
    sides_px = matched.new_tensor([width, height, width, height])
    return Parity(
        images=1,
        detections=len(ours["scores"]),
        others=len(theirs["scores"]),
        unmatched=len(ours["scores"]) + len(theirs["scores"]) - 2 * len(first),
        boxes=_largest(matched),
        boxes_px=_largest(matched * sides_px),
        scores=_largest(scores[first, second]),
    )


def _pairs(cost: Tensor, most: float) -> tuple[list[int], list[int]]:
    """Pair rows with columns greedily, lowest cost first, each at most once."""
    rows, columns = (cost <= most).nonzero(as_tuple=True)
    order = cost[rows, columns].argsort(stable=True)
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in pairs and column not in taken:
            pairs[row] = column
            taken.add(column)
    return list(pairs), list(pairs.values())


def _largest(values: Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0
