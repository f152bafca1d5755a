"""Multi-scale training: every optimiser step uses one image size, drawn from a range."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssd_lightning.errors import ConfigurationError

MULTIPLE = 32
"""In pixels. The strides of most backbones divide it, so the cells are aligned at all sizes."""
STREAM = 2
"""Random stream, separate from those of order and samples."""


@dataclass(frozen=True)
class MultiScale:
    """The input sizes of a training, and the size of each step.

    Attributes:
        sizes: (height, width), ascending.
        seed: base seed.
    """

    sizes: tuple[tuple[int, int], ...]
    seed: int

    def size_at(self, epoch: int, step: int) -> tuple[int, int]:
        """Draw the size of a step, counted from 0 in its epoch: the same on all ranks and in a resumed run."""
        rng = np.random.default_rng([self.seed, epoch, step, STREAM])
        return self.sizes[int(rng.integers(len(self.sizes)))]


def multiscale_sizes(sides: Sequence[int], image_size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """List the sizes of a range, with about the aspect ratio of the network's input.

    Args:
        sides: smallest and largest shorter side, in pixels.
        image_size: (height, width) of the network's input.

    Returns:
        (height, width) of each, multiples of `MULTIPLE`, ascending.

    Raises:
        ConfigurationError: `sides` is not a range, or contains no multiple.
    """
    is_whole = len(sides) == 2 and all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if not is_whole or not 1 <= sides[0] <= sides[1]:
        raise ConfigurationError(
            f"data.multiscale is {list(sides)}; it must be null or the least and the largest side, such as [256,384]"
        )
    shorter = range(-(-sides[0] // MULTIPLE) * MULTIPLE, sides[1] + 1, MULTIPLE)
    if not shorter:
        raise ConfigurationError(f"data.multiscale is {list(sides)}; no multiple of {MULTIPLE} lies in this range")
    height, width = (side / min(image_size) for side in image_size)
    return tuple((_multiple(side * height), _multiple(side * width)) for side in shorter)


def _multiple(side: float) -> int:
    return round(side / MULTIPLE) * MULTIPLE
