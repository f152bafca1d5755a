"""Priors: the fixed boxes that every prediction is an offset from (the paper's "default boxes", elsewhere "anchors").

Layout as in the Caffe reference: levels in order, within a level row by row, within a cell first the two squares,
then for each aspect ratio the wide box before the tall one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ssd_lightning.errors import ConfigurationError

Size = int | tuple[int, int] | Sequence[int]


@dataclass(frozen=True)
class PriorLevel:
    """The priors of one feature map. Sizes are in pixels of the network's input.

    Attributes:
        grid_size: cells, one number or (rows, columns); None takes what the network measures.
        step: distance of neighbouring cells' centres; None spreads the cells evenly, image size / grid size.
        min_size: side of the small square.
        max_size: the large square has the side sqrt(min_size * max_size); None leaves it out.
        aspect_ratios: each ratio r > 1 adds a wide box r : 1 and a tall box 1 : r of the small square's area.
    """

    grid_size: Size | None
    step: float | None
    min_size: float
    max_size: float | None
    aspect_ratios: Sequence[float]

    @property
    def boxes_per_cell(self) -> int:
        """Number of priors that share one cell."""
        return 1 + (self.max_size is not None) + 2 * len(self.aspect_ratios)

    def sizes(self) -> list[tuple[float, float]]:
        """Give the (width, height) of a cell's priors in pixels."""
        squares = [self.min_size]
        if self.max_size is not None:
            squares.append(math.sqrt(self.min_size * self.max_size))
        sizes = [(side, side) for side in squares]
        for ratio in self.aspect_ratios:
            long, short = self.min_size * math.sqrt(ratio), self.min_size / math.sqrt(ratio)
            sizes += [(long, short), (short, long)]
        return sizes


def as_height_width(size: Size) -> tuple[int, int]:
    """Read a size given as one number (a square) or as (height, width)."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


def fit_to_grids(levels: Sequence[PriorLevel], grids: Sequence[tuple[int, int]]) -> tuple[PriorLevel, ...]:
    """Give every level the grid that the network measures.

    Args:
        levels: as configured; those without a grid size take the measured one.
        grids: (rows, columns) of every feature map.

    Raises:
        ConfigurationError: a level states another grid, or the numbers of levels differ; the message is a table.
    """
    stated = [None if level.grid_size is None else as_height_width(level.grid_size) for level in levels]
    fits = len(stated) == len(grids) and all(s in (None, g) for s, g in zip(stated, grids, strict=True))
    if not fits:
        raise ConfigurationError(
            "the network's feature maps and the prior levels do not fit; choose priors= (or image_size=, extras=) "
            "that belong together:\n" + _comparison(grids, stated)
        )
    return tuple(replace(level, grid_size=grid) for level, grid in zip(levels, grids, strict=True))


def _comparison(grids: Sequence[tuple[int, int]], stated: Sequence[tuple[int, int] | None]) -> str:
    rows = ["level   network   priors"]
    for index in range(max(len(grids), len(stated))):
        measured = "x".join(map(str, grids[index])) if index < len(grids) else "-"
        level = stated[index] if index < len(stated) else ()
        wanted = "any" if level is None else "x".join(map(str, level)) or "-"
        differs = measured != wanted and (wanted != "any" or measured == "-")
        rows.append(f"{index + 1:>5}   {measured:>7}   {wanted:>6}{'   <-- differs' if differs else ''}")
    return "\n".join(rows)


def make_priors(levels: Sequence[PriorLevel], image_size: Size, clip: bool = False) -> Tensor:
    """Lay out the priors of all levels.

    Args:
        levels: every one with its grid size.
        image_size: the network's input, one number or (height, width).
        clip: clamp centre, width and height to [0, 1], as the PyTorch ports do; the Caffe reference does not.

    Returns:
        `[K, 4]` float32, cxcywh, normalised, in the order level, row, column, box.
    """
    height, width = as_height_width(image_size)
    per_level = []
    for level in levels:
        if level.grid_size is None:
            raise ConfigurationError(f"{level} has no grid_size; fit_to_grids gives it one")
        rows, columns = as_height_width(level.grid_size)
        step_y, step_x = (height / rows, width / columns) if level.step is None else (level.step, level.step)
        centre_y = (torch.arange(rows, dtype=torch.float64) + 0.5) * step_y / height
        centre_x = (torch.arange(columns, dtype=torch.float64) + 0.5) * step_x / width
        sizes = torch.tensor(level.sizes(), dtype=torch.float64) / torch.tensor([width, height])
        shape = (rows, columns, level.boxes_per_cell)
        boxes = torch.stack(
            (
                centre_x[None, :, None].expand(shape),
                centre_y[:, None, None].expand(shape),
                sizes[:, 0].expand(shape),
                sizes[:, 1].expand(shape),
            ),
            dim=-1,
        )  # [rows, columns, boxes, 4]
        per_level.append(boxes.reshape(-1, 4))
    priors = torch.cat(per_level).float()
    return priors.clamp(0.0, 1.0) if clip else priors


def levels_from_scales(
    *, scales: Sequence[Sequence[float]], aspect_ratios: Sequence[Sequence[float]], image_size: Size
) -> tuple[PriorLevel, ...]:
    """Describe levels by sizes relative to the picture, on whatever grids the network has.

    Args:
        scales: for every level the sides of the small and of the large square, as fractions of the picture's
            shorter side.
        aspect_ratios: for every level.
        image_size: the network's input, one number or (height, width).

    Raises:
        ConfigurationError: the two lists differ in length, or a scale is not positive.
    """
    if len(scales) != len(aspect_ratios):
        raise ConfigurationError(f"priors: {len(scales)} scales but {len(aspect_ratios)} lists of aspect_ratios")
    if any(len(pair) != 2 or min(pair) <= 0 for pair in scales):
        raise ConfigurationError(f"priors.scales needs two positive numbers a level, got {scales}")
    side = min(as_height_width(image_size))
    return tuple(
        PriorLevel(None, None, small * side, large**2 / small * side, tuple(ratios))
        for (small, large), ratios in zip(scales, aspect_ratios, strict=True)
    )


def published_levels(name: str) -> tuple[PriorLevel, ...]:
    """Look up published levels by name: `ssd300_voc`, `ssd300_coco` or `ssd512_voc`.

    Raises:
        ConfigurationError: there is no such name.
    """
    if name not in PUBLISHED:
        raise ConfigurationError(f"no published priors '{name}'; there are {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


# Sizes of VOC: the paper, section 3.1; sizes of COCO: section 3.4 (smaller by .15 / .2); steps: the Caffe prototxt.
SSD300_VOC = (
    PriorLevel(38, 8, 30, 60, (2,)),
    PriorLevel(19, 16, 60, 111, (2, 3)),
    PriorLevel(10, 32, 111, 162, (2, 3)),
    PriorLevel(5, 64, 162, 213, (2, 3)),
    PriorLevel(3, 100, 213, 264, (2,)),
    PriorLevel(1, 300, 264, 315, (2,)),
)
SSD300_COCO = (
    PriorLevel(38, 8, 21, 45, (2,)),
    PriorLevel(19, 16, 45, 99, (2, 3)),
    PriorLevel(10, 32, 99, 153, (2, 3)),
    PriorLevel(5, 64, 153, 207, (2, 3)),
    PriorLevel(3, 100, 207, 261, (2,)),
    PriorLevel(1, 300, 261, 315, (2,)),
)
SSD512_VOC = (
    PriorLevel(64, 8, 35.84, 76.8, (2,)),
    PriorLevel(32, 16, 76.8, 153.6, (2, 3)),
    PriorLevel(16, 32, 153.6, 230.4, (2, 3)),
    PriorLevel(8, 64, 230.4, 307.2, (2, 3)),
    PriorLevel(4, 128, 307.2, 384.0, (2, 3)),
    PriorLevel(2, 256, 384.0, 460.8, (2,)),
    PriorLevel(1, 512, 460.8, 537.65, (2,)),
)
PUBLISHED = {"ssd300_voc": SSD300_VOC, "ssd300_coco": SSD300_COCO, "ssd512_voc": SSD512_VOC}
