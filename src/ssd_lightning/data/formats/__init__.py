"""Readers of annotation formats: one class each, which holds the settings."""

from ssd_lightning.data.formats.coco import COCO
from ssd_lightning.data.formats.csv_boxes import CSV
from ssd_lightning.data.formats.cvat import CVAT
from ssd_lightning.data.formats.detect import Auto
from ssd_lightning.data.formats.label_studio import LabelStudio
from ssd_lightning.data.formats.labelme import LabelMe
from ssd_lightning.data.formats.records import Records, annotations_from_records
from ssd_lightning.data.formats.via import VIA
from ssd_lightning.data.formats.voc import VOC
from ssd_lightning.data.formats.yolo import YOLO

BY_NAME = {
    "auto": Auto,
    "coco": COCO,
    "csv": CSV,
    "cvat": CVAT,
    "label_studio": LabelStudio,
    "labelme": LabelMe,
    "via": VIA,
    "voc": VOC,
    "yolo": YOLO,
}
"""The formats that a place may name."""

__all__ = [
    "BY_NAME",
    "COCO",
    "CSV",
    "CVAT",
    "VIA",
    "VOC",
    "YOLO",
    "Auto",
    "LabelMe",
    "LabelStudio",
    "Records",
    "annotations_from_records",
]
