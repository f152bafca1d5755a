"""A network that trains in milliseconds."""

from functools import partial

from ssd_lightning.models import SSD
from ssd_lightning.models.backbones import TinyBackbone
from ssd_lightning.models.extras import TinyExtras
from ssd_lightning.ops.prior_levels import levels_from_scales


def small_net(image_size: int = 32, num_classes: int = 2, *, clip_priors: bool = False) -> SSD:
    scales = [(0.2, 0.3), (0.4, 0.5), (0.6, 0.7)]
    return SSD(
        backbone=TinyBackbone(channels=[4, 8]),
        extras=partial(TinyExtras, channels=[8]),
        levels=levels_from_scales(scales=scales, aspect_ratios=[(2,)] * 3, image_size=image_size),
        image_size=image_size,
        num_classes=num_classes,
        clip_priors=clip_priors,
    )
