"""Make `demo_data/`, the images of `data=demo`, from a copy of https://github.com/Shenggan/BCCD_Dataset.

    python tools/make_demo_data.py BCCD_Dataset/BCCD demo_data

BCCD's own `trainval` and `test` stay apart; a tenth of `trainval`, by the hash of the names, becomes `val`.
"""

import sys
from dataclasses import replace
from pathlib import Path

from PIL import Image

from ssd_lightning.data.dataset import DetectionDataset, ImageAnnotation, in_subset
from ssd_lightning.data.voc import VOCDataset
from ssd_lightning.data.writers import write_csv

SIZE_PX = (240, 320)
"""Half of BCCD's: platelets are some 20 px wide, and 364 images have less than 5 MB."""
QUALITY = 85
VAL_FRACTION = 0.1


def main(source: Path, target: Path) -> None:
    """Write images and annotations beside the licence and the page that lie in the folder."""
    # Two boxes have no area and are skipped.
    trainval, test = (open_split(source, name) for name in ("trainval", "test"))
    splits = {
        "train": [record for record in trainval.records if in_subset(record.image_id, "train", VAL_FRACTION)],
        "val": [record for record in trainval.records if in_subset(record.image_id, "val", VAL_FRACTION)],
        "test": test.records,
    }
    written = {
        split: [write_reduced(record, target / split) for record in records] for split, records in splits.items()
    }
    write_csv(target, written, trainval.class_names)


def open_split(source: Path, split: str) -> DetectionDataset:
    """Read one of BCCD's lists."""
    return VOCDataset(splits=[{"root": str(source), "split": split}], on_error="skip")


def write_reduced(record: ImageAnnotation, folder: Path) -> ImageAnnotation:
    """Write one image at the reduced size, and give its record with the boxes there."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{record.image_id}.jpg"
    height, width = SIZE_PX
    with Image.open(record.image_path) as image:
        small = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        small.save(path, quality=QUALITY, optimize=True)
    scale = [width / record.size_px[1], height / record.size_px[0]] * 2
    return replace(record, image_path=path, size_px=SIZE_PX, boxes_xyxy_px=record.boxes_xyxy_px * scale)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
