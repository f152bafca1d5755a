"""Networks, and what reads their output. Knows no target, no data set and no trainer."""

from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.models.ssd import SSD

__all__ = ["SSD", "PostProcess"]
