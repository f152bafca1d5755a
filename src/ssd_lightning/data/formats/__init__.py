"""Readers of annotation formats: one class each, whose fields are the settings."""

from ssd_lightning.data.formats.coco import COCO
from ssd_lightning.data.formats.csv_boxes import CSV
from ssd_lightning.data.formats.voc import VOC
from ssd_lightning.data.formats.yolo import YOLO

__all__ = ["COCO", "CSV", "VOC", "YOLO"]
