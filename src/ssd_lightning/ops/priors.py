"""Priors: fixed boxes that predictions are relative to (the paper's "default boxes", elsewhere "anchors").

A `PriorLevel` describes the priors of one feature map. The published levels are here; `prior_levels` makes others.

The order is that of the Caffe reference: by level, then row, then column. A cell starts with its two squares. Then each
aspect ratio adds a wide box and a tall box.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from numbers import Real
from typing import Literal

import torch
from torch import Tensor

from ssd_lightning.errors import ConfigurationError

Size = int | tuple[int, int] | Sequence[int]
Clip = bool | Literal["size"]


@dataclass(frozen=True)
class PriorLevel:
    """The priors of one feature map. Sizes are in pixels of the network's input.

    Attributes:
        grid_size: number of cells, one number or (rows, columns). None uses the measured size of the feature map.
        step: distance between the centres of neighbouring cells. None uses image size / grid size.
        min_size: side of the small square.
        max_size: the side of the large square is sqrt(min_size * max_size). None omits the large square.
        aspect_ratios: each ratio r > 1 adds a wide box r : 1 and a tall box 1 : r with the area of the small square.
        both_sizes: each ratio also adds two boxes with the area of the large square, after all other boxes.

    Raises:
        ConfigurationError: a size, step or ratio is not a positive number, or the grid size is not whole numbers.
    """

    grid_size: Size | None
    step: float | None
    min_size: float
    max_size: float | None
    aspect_ratios: Sequence[float]
    both_sizes: bool = False

    def __post_init__(self) -> None:
        optional = (value for value in (self.step, self.max_size) if value is not None)
        for value in (self.min_size, *optional, *self.aspect_ratios):
            if not isinstance(value, Real) or not 0 < value < math.inf:
                raise ConfigurationError(f"sizes, steps and aspect ratios of priors are above 0, got {value} in {self}")
        if self.grid_size is not None:
            as_height_width(self.grid_size, "grid_size of priors")

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns).

        Raises:
            ConfigurationError: the level has no grid size.
        """
        if self.grid_size is None:
            raise ConfigurationError(f"{self} has no grid_size; set it with fit_to_grids")
        return as_height_width(self.grid_size)

    def steps(self, image_size: tuple[int, int]) -> tuple[float, float]:
        """Return the (vertical, horizontal) distance between neighbouring centres in an input of (height, width)."""
        (height, width), (rows, columns) = image_size, self.grid
        return (height / rows, width / columns) if self.step is None else (self.step, self.step)

    @property
    def boxes_per_cell(self) -> int:
        """Number of priors per cell."""
        return len(self.sizes())

    def sizes(self) -> list[tuple[float, float]]:
        """Return the (width, height) of each prior of a cell in pixels."""
        squares = self.squares()
        sizes = [(side, side) for side in squares]
        for side in squares if self.both_sizes else squares[:1]:
            for ratio in self.aspect_ratios:
                long, short = side * math.sqrt(ratio), side / math.sqrt(ratio)
                sizes += [(long, short), (short, long)]
        return sizes

    def squares(self) -> list[float]:
        """Return the sides of the squares in pixels."""
        return [self.min_size] if self.max_size is None else [self.min_size, math.sqrt(self.min_size * self.max_size)]


def as_height_width(size: Size, name: str = "a size") -> tuple[int, int]:
    """Convert a size, one number (a square) or (height, width), to (height, width).

    Raises:
        ConfigurationError: it has another length, or a side is not a whole number of at least 1. The message begins
            with `name`.
    """
    sides = tuple(size) if isinstance(size, Iterable) else (size, size)
    if len(sides) != 2 or not all(_is_whole(side) and side >= 1 for side in sides):
        raise ConfigurationError(f"{name} is one number or (height, width), whole and at least 1, got {size}")
    return int(sides[0]), int(sides[1])


def _is_whole(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and float(value).is_integer()


def fit_to_grids(levels: Sequence[PriorLevel], grids: Sequence[tuple[int, int]]) -> tuple[PriorLevel, ...]:
    """Set the grid size of each level to that of its feature map.

    Args:
        levels: configured levels, with or without a grid size.
        grids: (rows, columns) of each feature map.

    Raises:
        ConfigurationError: a grid size or the number of levels differs. The message has a table of both.
    """
    stated = [None if level.grid_size is None else as_height_width(level.grid_size) for level in levels]
    fits = len(stated) == len(grids) and all(s in (None, g) for s, g in zip(stated, grids, strict=True))
    if not fits:
        raise ConfigurationError(
            "the prior levels do not match the network's feature maps; choose matching priors= (or image_size=, "
            "extras=):\n" + _comparison(grids, stated)
        )
    return tuple(replace(level, grid_size=grid) for level, grid in zip(levels, grids, strict=True))


def _comparison(grids: Sequence[tuple[int, int]], stated: Sequence[tuple[int, int] | None]) -> str:
    rows = ["level   network   priors"]
    for number, (grid, level) in enumerate(zip_longest(grids, stated, fillvalue=()), start=1):
        measured, wanted = ("any" if size is None else "x".join(map(str, size)) or "-" for size in (grid, level))
        differs = measured != wanted and (wanted != "any" or measured == "-")
        rows.append(f"{number:>5}   {measured:>7}   {wanted:>6}{'   <-- differs' if differs else ''}")
    return "\n".join(rows)


def rescale_levels(levels: Sequence[PriorLevel], image_size: Size, new_size: Size) -> tuple[PriorLevel, ...]:
    """Scale levels to another input size, in proportion to its shorter side. Grid sizes and steps become None.

    Args:
        levels: levels for an input of `image_size`.
        image_size: input size of `levels`, one number or (height, width).
        new_size: the new input size, one number or (height, width).
    """
    scale = min(as_height_width(new_size)) / min(as_height_width(image_size))
    return tuple(
        replace(
            level,
            grid_size=None,
            step=None,
            min_size=level.min_size * scale,
            max_size=None if level.max_size is None else level.max_size * scale,
        )
        for level in levels
    )


def make_priors(levels: Sequence[PriorLevel], image_size: Size, clip: Clip = False) -> Tensor:
    """Create the priors of all levels.

    Args:
        levels: levels with grid sizes.
        image_size: the network's input size, one number or (height, width).
        clip: True clamps centre, width and height to [0, 1], as ssd.pytorch, lufficc and qfgaohao do. `size` clamps
            only width and height, as torchvision does. False does not clamp, as the Caffe reference.

    Returns:
        `[K, 4]` float32, cxcywh, normalised, in the order level, row, column, box.

    Raises:
        ConfigurationError: a level has no grid size, or `clip` is invalid.
    """
    if clip not in (True, False, "size"):
        raise ConfigurationError(f"clip is '{clip}'; it can be false, true or size")
    height, width = as_height_width(image_size)
    per_level = []
    for level in levels:
        rows, columns = level.grid
        step_y, step_x = level.steps((height, width))
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
    if clip == "size":
        return torch.cat((priors[:, :2], priors[:, 2:].clamp(0.0, 1.0)), dim=1)
    return priors.clamp(0.0, 1.0) if clip else priors


def published_levels(name: str, image_size: Size | None = None) -> tuple[PriorLevel, ...]:
    """Look up published levels by name; see `PUBLISHED`.

    Args:
        name: a key of `PUBLISHED`, such as `ssd300_voc`.
        image_size: the network's input size, one number or (height, width). If it is not the published size, the
            levels are scaled with `rescale_levels`.

    Raises:
        ConfigurationError: the name is unknown.
    """
    if name not in PUBLISHED:
        raise ConfigurationError(f"unknown published priors '{name}'; known are {', '.join(PUBLISHED)}")
    published_size, levels = PUBLISHED[name]
    if image_size is None or as_height_width(image_size) == (published_size, published_size):
        return levels
    return rescale_levels(levels, published_size, image_size)


def _levels(
    grids: Sequence[int | None], steps: Sequence[float | None], sizes: Sequence[float], ratios: str
) -> tuple[PriorLevel, ...]:
    # The large square of a level lies between its own size and that of the next level.
    return tuple(
        PriorLevel(grid, step, small, large, (2, 3) if ratio == "3" else (2,))
        for grid, step, small, large, ratio in zip(grids, steps, sizes[:-1], sizes[1:], ratios, strict=True)
    )


_GRIDS_300, _STEPS_300 = (38, 19, 10, 5, 3, 1), (8, 16, 32, 64, 100, 300)
_GRIDS_512, _STEPS_512 = (64, 32, 16, 8, 4, 2, 1), (8, 16, 32, 64, 128, 256, 512)
_MOBILE_STEPS_300, _MOBILE_SIZES = (16, 32, 64, 100, 150, 300), (60, 105, 150, 195, 240, 285, 330)

PUBLISHED: dict[str, tuple[int, tuple[PriorLevel, ...]]] = {
    # VOC sizes: paper, section 3.1. COCO sizes: section 3.4 (smaller by .15 / .2). Steps: the Caffe prototxt.
    "ssd300_voc": (300, _levels(_GRIDS_300, _STEPS_300, (30, 60, 111, 162, 213, 264, 315), "233322")),
    "ssd300_coco": (300, _levels(_GRIDS_300, _STEPS_300, (21, 45, 99, 153, 207, 261, 315), "233322")),
    "ssd512_voc": (
        512,
        _levels(_GRIDS_512, _STEPS_512, (35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.65), "2333322"),
    ),
    "ssd512_coco": (
        512,
        _levels(_GRIDS_512, _STEPS_512, (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72), "2333322"),
    ),
    # MobileNets of qfgaohao and lufficc: no level of stride 8.
    "mobilenet_ssd300": (300, _levels((19, 10, 5, 3, 2, 1), _MOBILE_STEPS_300, _MOBILE_SIZES, "333333")),
    "squeezenet_ssd300": (300, _levels((17, 10, 5, 3, 2, 1), _MOBILE_STEPS_300, _MOBILE_SIZES, "333333")),
    "mobilenet_ssd320": (320, _levels((20, 10, 5, 3, 2, 1), (16, 32, 64, 107, 160, 320), _MOBILE_SIZES, "333333")),
    # torchvision: .2 to .95 of the image in five equal steps, then 1.
    "ssdlite320": (320, _levels((20, 10, 5, 3, 2, 1), (None,) * 6, (64, 112, 160, 208, 256, 304, 320), "333333")),
}
"""Name -> (side of the square input image in pixels, levels)."""

SSD300_VOC, SSD300_COCO = PUBLISHED["ssd300_voc"][1], PUBLISHED["ssd300_coco"][1]
SSD512_VOC, SSDLITE320 = PUBLISHED["ssd512_voc"][1], PUBLISHED["ssdlite320"][1]
