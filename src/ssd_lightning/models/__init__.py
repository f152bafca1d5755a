"""Networks and their post-processing. Independent of targets, data sets and the trainer."""

from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.models.ssd import SSD

__all__ = ["SSD", "PostProcess"]
