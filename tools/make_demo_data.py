"""Make `demo_data/`, the images of `data=demo`, from a copy of https://github.com/Shenggan/BCCD_Dataset.

    python tools/make_demo_data.py BCCD_Dataset/BCCD demo_data

BCCD's own `trainval` and `test` stay apart; a tenth of `trainval`, by the hash of the names, becomes `val`.
"""

import sys
from dataclasses import replace
from pathlib import Path

from PIL import Image

from ssd_lightning.data.annotations import ImageAnnotation
from ssd_lightning.data.formats import VOC
from ssd_lightning.data.reading import DatasetOpener
from ssd_lightning.data.writers import write_csv

SIZE_PX = (240, 320)
"""Half of BCCD's: platelets are some 20 px wide, and 364 images have less than 5 MB."""
QUALITY = 85
VAL_FRACTION = 0.1


def main(source: Path, target: Path) -> None:
    """Write images and annotations beside the licence and the page that lie in the folder."""
    # Two boxes have no area and are skipped.
    opener = DatasetOpener(format=VOC(), on_error="skip")
    trainval, test = ([{"root": str(source), "split": name}] for name in ("trainval", "test"))
    splits = {
        "train": opener(splits=trainval, part="train", val_fraction=VAL_FRACTION),
        "val": opener(splits=trainval, part="val", val_fraction=VAL_FRACTION),
        "test": opener(splits=test),
    }
    written = {
        split: [write_reduced(record, target / split) for record in dataset.annotations]
        for split, dataset in splits.items()
    }
    write_csv(target, written, splits["train"].class_names)


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
