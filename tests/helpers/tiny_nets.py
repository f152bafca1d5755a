"""The smallest network with all parts of a detector, and the paper's."""

import functools
from collections.abc import Callable

import torch
from torch import nn

from ssd_lightning.models.backbones import VGG16, TinyBackbone
from ssd_lightning.models.extras import SSDExtras, TinyExtras
from ssd_lightning.models.ssd import SSD
from ssd_lightning.ops.priors import SSD300_VOC, PriorLevel

SSD300_EXTRAS = [
    {"mid_channels": 256, "out_channels": 512, "stride": 2, "padding": 1},
    {"mid_channels": 128, "out_channels": 256, "stride": 2, "padding": 1},
    {"mid_channels": 128, "out_channels": 256, "stride": 1, "padding": 0},
    {"mid_channels": 128, "out_channels": 256, "stride": 1, "padding": 0},
]


def ssd300(*, batch_norm: bool = False, weights: str | None = None, **settings: object) -> SSD:
    """Build it without weights, which take a second: names, shapes and grids are what these tests look at."""
    make: Callable[..., SSD] = SSD
    extras = functools.partial(SSDExtras, layers=SSD300_EXTRAS, norm=nn.BatchNorm2d if batch_norm else None)
    with torch.device("meta"):
        return make(
            backbone=VGG16(batch_norm=batch_norm, weights=weights),
            **{"extras": extras, "levels": SSD300_VOC, "image_size": 300, "num_classes": 20, **settings},
        )


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
        extras=functools.partial(TinyExtras, channels=[8]),
        image_size=image_size,
        num_classes=num_classes,
        **{
            "backbone": TinyBackbone(channels=(4, 4, 8)),
            "levels": [PriorLevel(None, None, side, side + 8, ratios) for side in (10, 20, 40)],
            **settings,
        },
    )
