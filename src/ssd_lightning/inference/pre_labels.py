"""Detections as a data set for correction by hand, readable by annotation tools, `voc_folder` and `coco_folder`."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ExifTags, Image

from ssd_lightning.data.annotations import ImageAnnotation
from ssd_lightning.data.image_suffixes import is_image_name
from ssd_lightning.data.images import FORMATS as IMAGE_FORMATS
from ssd_lightning.data.writers import FORMATS, written_class_names
from ssd_lightning.inference.frames import SourceImage
from ssd_lightning.inference.names import UniqueNames
from ssd_lightning.inference.results import SCORE_DECIMALS, ImageDetections
from ssd_lightning.inference.sources import Source

LEAST_SIDE_PX = 2
"""Minimum side of a box. Readers take a smaller box in the image's corner for fractions, and it cannot be corrected."""
JPEG_QUALITY = 95
SPLITS = {"voc": "trainval", "coco": "train"}
"""The default split of the readers."""


class PreLabels:
    """A folder in the layout of VOC or COCO, with copies of the images and the frames.

    An image with an EXIF rotation is stored upright, because not all annotation tools apply the rotation. COCO
    annotations get a `score`, as in COCO results. `names` has the base name of each source's images, without suffix.

    Raises:
        DataError: a class name cannot be written in this layout.
    """

    def __init__(
        self, root: Path, layout: Literal["voc", "coco"], names: Mapping[Source, str], class_names: Sequence[str]
    ) -> None:
        self.root = root
        self.layout = layout
        self.names = names
        self.class_names = written_class_names(class_names, layout)
        self._taken = UniqueNames()
        self._records: list[ImageAnnotation] = []
        self._scores: list[float] = []
        self._image_folder = root / FORMATS[layout].image_folder.format(split=SPLITS[layout])
        self._image_folder.mkdir(parents=True, exist_ok=True)

    def write(self, source_image: SourceImage, found: ImageDetections) -> None:
        """Copy the image and record its boxes."""
        stem = self.names[source_image.source] + ("" if source_image.frame is None else f"_{source_image.frame:06d}")
        # VOC's lists have one name per line. A blank would separate a name from a number.
        image_path = self._copy(source_image, self._taken.take(stem.replace(" ", "_")))
        sides_px = found.boxes_xyxy_px[:, 2:] - found.boxes_xyxy_px[:, :2]
        kept = (sides_px >= LEAST_SIDE_PX).all(axis=1)
        self._records.append(
            ImageAnnotation(
                image_id=image_path.stem,
                image_path=image_path,
                size_px=found.image.shape[:2],
                boxes_xyxy_px=found.boxes_xyxy_px[kept],
                labels=found.labels[kept],
                difficult=np.zeros(int(kept.sum()), dtype=bool),
            )
        )
        self._scores += found.scores[kept].tolist()

    def close(self) -> None:
        """Write the annotations."""
        split = SPLITS[self.layout]
        FORMATS[self.layout].write(self.root, {split: self._records}, self.class_names)
        if self.layout == "coco":
            path = self.root / "annotations" / f"instances_{split}.json"
            content = json.loads(path.read_text(encoding="utf-8"))
            for annotation, score in zip(content["annotations"], self._scores, strict=True):
                annotation["score"] = round(score, SCORE_DECIMALS)
            path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")

    def _copy(self, source_image: SourceImage, name: str) -> Path:
        if source_image.path is not None and is_image_name(source_image.path) and _is_upright(source_image.path):
            return Path(shutil.copyfile(source_image.path, self._image_folder / f"{name}{source_image.path.suffix}"))
        path = self._image_folder / f"{name}.jpg"
        Image.fromarray(source_image.image).save(path, quality=JPEG_QUALITY)
        return path


def _is_upright(path: Path) -> bool:
    """Whether the image has no EXIF rotation."""
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1) not in range(2, 9)
    except Exception:  # damaged tag, readable pixels
        return False
