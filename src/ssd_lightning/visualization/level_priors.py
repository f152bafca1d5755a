"""Priors by feature map, with what figures and tables say of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssd_lightning.ops.priors import PriorLevel


@dataclass(frozen=True)
class LevelPriors:
    """The priors of one feature map.

    Attributes:
        boxes_cxcywh: float `[rows, columns, boxes, 4]`, normalised, as in the network.
        ratios: long side over short side of each box of a cell.
        step_px: (vertical, horizontal) distance between neighbouring centres, in pixels of the network's input.
        sizes_px: sides of the squares.
    """

    boxes_cxcywh: np.ndarray
    ratios: tuple[float, ...]
    step_px: tuple[float, float]
    sizes_px: tuple[float, ...]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.boxes_cxcywh.shape[0], self.boxes_cxcywh.shape[1]

    @property
    def count(self) -> int:
        """Number of its priors."""
        return int(np.prod(self.boxes_cxcywh.shape[:3]))

    @property
    def boxes_xyxy(self) -> np.ndarray:
        """`[rows, columns, boxes, 4]`, normalised."""
        centre, half = self.boxes_cxcywh[..., :2], self.boxes_cxcywh[..., 2:] / 2
        return np.concatenate((centre - half, centre + half), axis=-1)

    @property
    def share_reaching_out(self) -> float:
        """Fraction of its priors that extend beyond the image."""
        boxes = self.boxes_xyxy
        return float(((boxes < -1e-6) | (boxes > 1 + 1e-6)).any(-1).mean())

    def cells(self) -> tuple[str, str, str]:
        """Return its cells, its step and its squares as text for tables."""
        vertical, horizontal = (f"{step:.4g}" for step in self.step_px)
        step = vertical if vertical == horizontal else f"{vertical} x {horizontal}"
        return f"{self.grid[0]} x {self.grid[1]}", step, ", ".join(f"{size:.4g}" for size in self.sizes_px)

    def ratio_texts(self) -> str:
        """Describe the boxes of a cell by their aspect ratios, equal ones once."""
        squares = self.ratios.count(1)
        return ", ".join(f"{squares} x 1:1" if ratio == 1 else ratio_text(ratio) for ratio in sorted({*self.ratios}))


def split_by_level(
    priors_cxcywh: np.ndarray, levels: Sequence[PriorLevel], image_size: tuple[int, int]
) -> list[LevelPriors]:
    """Split priors `[K, 4]` into levels of `[rows, columns, boxes, 4]`."""
    start, found = 0, []
    for level in levels:
        rows, columns = level.grid
        end = start + rows * columns * level.boxes_per_cell
        squares = tuple(level.squares())
        shapes = tuple(float(ratio) for ratio in level.aspect_ratios for _ in range(2))
        found.append(
            LevelPriors(
                boxes_cxcywh=priors_cxcywh[start:end].reshape(rows, columns, level.boxes_per_cell, 4),
                ratios=(1.0,) * len(squares) + shapes * (2 if level.both_sizes else 1),
                step_px=level.steps(image_size),
                sizes_px=squares,
            )
        )
        start = end
    return found


def ratio_text(ratio: float) -> str:
    """Describe both boxes of an aspect ratio."""
    return "1:1" if ratio == 1 else f"{ratio:.3g}:1, 1:{ratio:.3g}"
