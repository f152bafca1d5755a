"""Make annotations, and open data sets of each format in one call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ssd_lightning.data.annotations import ImageAnnotation
from ssd_lightning.data.choosing import OnError
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.formats import COCO, CSV, VOC, YOLO, Records
from ssd_lightning.data.reading import DatasetOpener
from ssd_lightning.data.sampler import EpochSampler
from ssd_lightning.data.split_annotations import AnnotationFormat


def annotation(
    path: Path | str = "a.png",
    *,
    image_id: str | None = None,
    size_px: tuple[int, int] = (10, 10),
    boxes: Any = (),
    labels: Sequence[int] | None = None,
    difficult: Any = False,
) -> ImageAnnotation:
    """Annotate an image, which need not exist; by default its id is the stem, and all objects are of class 1.

    Labels without boxes have empty ones.
    """
    labels = [1] * len(boxes) if labels is None else labels
    return ImageAnnotation(
        Path(path).stem if image_id is None else image_id,
        Path(path),
        size_px,
        np.resize(np.array(boxes, np.float32), (len(labels), 4)),
        np.array(labels, np.int64),
        np.resize(np.array(difficult, bool), len(labels)),
    )


@dataclass(frozen=True, kw_only=True)
class FunctionOpener(DatasetOpener):
    """Opens the data sets that a function makes."""

    make: Callable[..., DetectionDataset]
    format: AnnotationFormat = field(default_factory=Records)

    def __call__(self, **arguments: Any) -> DetectionDataset:
        return self.make(**arguments)


def opener(
    annotation_format: type[AnnotationFormat], *, on_error: OnError = "raise", max_images: int | None = None, **own: Any
) -> DatasetOpener:
    return DatasetOpener(format=annotation_format(**own), on_error=on_error, max_images=max_images)


def open_splits(annotation_format: type[AnnotationFormat], **arguments: Any) -> DetectionDataset:
    """Open splits; the arguments are those of the format, of the opener and of its call."""
    of_opener = ("on_error", "max_images", "xml_offset", "images", "unit", "class_descriptions")
    own = {name: arguments.pop(name) for name in of_opener if name in arguments}
    return opener(annotation_format, **own)(**arguments)


open_voc, open_coco, open_csv, open_yolo = (partial(open_splits, of) for of in (VOC, COCO, CSV, YOLO))


def sampler_of(rank: int, world_size: int, **settings: Any) -> EpochSampler:
    """Return the sampler of one of several ranks."""
    sampler = EpochSampler(**settings)
    sampler._place = lambda: (rank, world_size)  # type: ignore[method-assign]
    return sampler
