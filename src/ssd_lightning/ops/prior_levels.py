"""Prior levels from scales, by a rule, or without some of their priors."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.ops.priors import PriorLevel, Size, as_height_width


def levels_from_scales(
    *, scales: Sequence[Sequence[float]], aspect_ratios: Sequence[Sequence[float]], image_size: Size
) -> tuple[PriorLevel, ...]:
    """Create levels from sizes relative to the image. Their grids are those of the feature maps.

    Args:
        scales: sides of the small and the large square of each level, as fractions of the image's shorter side.
        aspect_ratios: aspect ratios of each level.
        image_size: the network's input size, one number or (height, width).

    Raises:
        ConfigurationError: the two lists differ in length, or a scale is not positive.
    """
    if len(scales) != len(aspect_ratios):
        raise ConfigurationError(f"{len(scales)} scales but {len(aspect_ratios)} lists of aspect_ratios")
    if any(len(pair) != 2 or min(pair) <= 0 for pair in scales):
        raise ConfigurationError(f"scales are two positive numbers per level, got {scales}")
    side = min(as_height_width(image_size))
    return tuple(
        PriorLevel(None, None, small * side, large**2 / small * side, tuple(ratios))
        for (small, large), ratios in zip(scales, aspect_ratios, strict=True)
    )


def linear_levels(
    *, num_levels: int, smallest: float, largest: float, aspect_ratios: Sequence[float], image_size: Size
) -> tuple[PriorLevel, ...]:
    """Create levels whose sizes grow in equal steps (SSD paper, equation 4). Their grids are those of the feature maps.

    Args:
        num_levels: number of levels of the network.
        smallest: side of the small square of the first level, as a fraction of the image's shorter side.
        largest: side of the small square of the last level, as a fraction of the image's shorter side.
        aspect_ratios: aspect ratios of all levels.
        image_size: the network's input size, one number or (height, width).

    Raises:
        ConfigurationError: `num_levels` is less than 1, or not 0 < `smallest` < `largest`.
    """
    if num_levels < 1 or not 0 < smallest < largest:
        raise ConfigurationError(
            f"num_levels={num_levels}, smallest={smallest}, largest={largest}; at least one level "
            "and 0 < smallest < largest are required"
        )
    step = (largest - smallest) / max(1, num_levels - 1)
    sides = [smallest + step * level for level in range(num_levels + 1)]
    scales = [(small, math.sqrt(small * large)) for small, large in pairwise(sides)]
    return levels_from_scales(scales=scales, aspect_ratios=[aspect_ratios] * num_levels, image_size=image_size)


def octave_levels(
    *, strides: Sequence[int], scale: float, aspect_ratios: Sequence[float], both_sizes: bool = True
) -> tuple[PriorLevel, ...]:
    """Create levels with two sizes each, half an octave apart (RetinaNet has three).

    As TensorFlow's `MultiscaleGridAnchorGenerator` (multiscale_grid_anchor_generator.py) with two scales per octave.
    If a stride does not divide the image size, TensorFlow's centres start at the image's edge; here they are spread
    evenly.

    Args:
        strides: stride of each level, in pixels of the network's input.
        scale: side of the small square, in strides.
        aspect_ratios: aspect ratios of all levels.
        both_sizes: apply the aspect ratios to both sizes instead of only the small one.

    Raises:
        ConfigurationError: the scale or a stride is not positive.
    """
    if scale <= 0 or min(strides, default=0) <= 0:
        raise ConfigurationError(f"scale={scale} and strides={list(strides)} must be positive")
    return tuple(
        PriorLevel(None, None, scale * stride, 2 * scale * stride, tuple(aspect_ratios), both_sizes=both_sizes)
        for stride in strides
    )


def without_last_levels(levels: Sequence[PriorLevel], count: int) -> tuple[PriorLevel, ...]:
    """Drop the coarsest levels, for ablations. The paper also redistributes the boxes; this function does not.

    Raises:
        ConfigurationError: `count` is negative, or no level remains.
    """
    if not 0 <= count < len(levels):
        raise ConfigurationError(f"{count} prior levels cannot be dropped; there are {len(levels)}")
    return tuple(levels[: len(levels) - count])


def without_ratios(levels: Sequence[PriorLevel], above: float) -> tuple[PriorLevel, ...]:
    """Drop the aspect ratios above a limit, for ablations (SSD paper, section 3.3)."""
    return tuple(replace(level, aspect_ratios=tuple(r for r in level.aspect_ratios if r <= above)) for level in levels)
