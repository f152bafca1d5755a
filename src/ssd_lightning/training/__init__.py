"""Training with Lightning. Connects networks, losses, data and metrics."""

from ssd_lightning.training.datamodule import DetectionDataModule
from ssd_lightning.training.module import SSDModule

__all__ = ["DetectionDataModule", "SSDModule"]
