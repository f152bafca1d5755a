"""Floor 2: Lightning. Wires networks, losses, data and metrics together; no maths here."""

from ssd_lightning.training.datamodule import DetectionDataModule
from ssd_lightning.training.module import SSDModule

__all__ = ["DetectionDataModule", "SSDModule"]
