"""The smallest network with all parts of a detector, for tests that need one and not what it finds."""

import functools
from collections.abc import Callable

import torch

from ssd_lightning.models.backbones import TinyBackbone
from ssd_lightning.models.extras import TinyExtras
from ssd_lightning.models.ssd import SSD
from ssd_lightning.ops.priors import PriorLevel


def tiny_net(
    *,
    num_classes: int,
    image_size: tuple[int, int] = (32, 48),
    ratios: tuple[int, ...] = (2,),
    **settings: object,
) -> SSD:
    """Give three levels of priors over a small image, the same weights each time.

    Args:
        num_classes: C, without background.
        image_size: (height, width).
        ratios: of the priors on every level.
        settings: further ones of `SSD`.
    """
    torch.manual_seed(0)
    make: Callable[..., SSD] = SSD
    return make(
        backbone=TinyBackbone(channels=(4, 4, 8)),
        extras=functools.partial(TinyExtras, channels=[8]),
        levels=[PriorLevel(None, None, side, side + 8, ratios) for side in (10, 20, 40)],
        image_size=image_size,
        num_classes=num_classes,
        **settings,
    )
