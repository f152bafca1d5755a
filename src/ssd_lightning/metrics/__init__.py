"""Torchmetrics metrics, built on pure functions."""

from ssd_lightning.metrics.coco import COCOMeanAveragePrecision
from ssd_lightning.metrics.voc import VOCMeanAveragePrecision

__all__ = ["COCOMeanAveragePrecision", "VOCMeanAveragePrecision"]
