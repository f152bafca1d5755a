"""Compares the detections of two detectors."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ssd_lightning.types import Detections

CLOSE = 0.02
"""Two detections of a class match if no edge (as a share of the image) and no score differs by more than this.
Otherwise they are unmatched."""


@dataclass
class Parity:
    """Differences over some images."""

    close: float = CLOSE
    """See `CLOSE`."""
    images: int = 0
    """Number of compared images."""
    detections: int = 0
    """Number of detections of the first detector."""
    others: int = 0
    """Number of detections of the second detector."""
    unmatched: int = 0
    """Number of detections of either detector without a match."""
    boxes: float = 0.0
    """Largest difference of an edge among matched detections, normalised."""
    boxes_px: float = 0.0
    """Largest difference of an edge in pixels."""
    scores: float = 0.0
    """Largest difference of a score among matched detections."""

    def update(self, ours: Detections, theirs: Detections, size_px: tuple[int, int]) -> None:
        """Compare the detections of one image of `size_px` (height, width)."""
        boxes = (ours["boxes"][:, None] - theirs["boxes"]).abs()  # [M, N, 4]
        scores = (ours["scores"][:, None] - theirs["scores"]).abs()  # [M, N]
        same_class = ours["labels"][:, None] == theirs["labels"]
        cost = torch.maximum(boxes.amax(dim=2), scores).where(same_class, torch.inf)
        first, second = _pairs(cost, self.close)
        matched = boxes[first, second]  # [P, 4]
        sides_px = matched.new_tensor(size_px[::-1]).repeat(2)
        self.images += 1
        self.detections += len(ours["scores"])
        self.others += len(theirs["scores"])
        self.unmatched += len(ours["scores"]) + len(theirs["scores"]) - 2 * len(first)
        if first:
            self.boxes = max(self.boxes, float(matched.max()))
            self.boxes_px = max(self.boxes_px, float((matched * sides_px).max()))
            self.scores = max(self.scores, float(scores[first, second].max()))

    @property
    def unmatched_share(self) -> float:
        """Unmatched share of all detections of both."""
        return self.unmatched / max(1, self.detections + self.others)


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
