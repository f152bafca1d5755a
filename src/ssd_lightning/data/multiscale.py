"""Multi-scale training: every optimiser step sees images of one size, drawn from a range."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssd_lightning.errors import ConfigurationError

MULTIPLE = 32
"""Of pixels: the strides of most backbones divide it, so that cells lie where they do at any other of these sizes."""
STREAM = 2
"""Of random numbers, beside those of order and samples."""


@dataclass(frozen=True)
class MultiScale:
    """The input sizes of a training and which step has which.

    Attributes:
        sizes: (height, width), ascending.
        seed: root of the draws.
    """

    sizes: tuple[tuple[int, int], ...]
    seed: int

    def size_at(self, epoch: int, step: int) -> tuple[int, int]:
        """Draw the size of a step, counted from 0 in its epoch: the same on all ranks, and in a run that goes on."""
        rng = np.random.default_rng([self.seed, epoch, step, STREAM])
        return self.sizes[int(rng.integers(len(self.sizes)))]


def multiscale_sizes(sides: Sequence[int], image_size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """List the sizes of a range, with about the aspect ratio of the network's input.

    Args:
        sides: the least and the largest shorter side, in pixels.
        image_size: (height, width) of the network's input.

    Returns:
        (height, width) of each, multiples of `MULTIPLE`, ascending.

    Raises:
        ConfigurationError: it is no range, or no multiple lies in it.
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
