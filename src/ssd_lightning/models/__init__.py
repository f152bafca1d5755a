"""Floor 1: networks. Knows no target, no data set and no trainer."""

from ssd_lightning.models.ssd import SSD

__all__ = ["SSD"]
