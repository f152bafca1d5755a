"""Record of an evaluation: all detections and ground truth of a split, as the input of all analyses.

A record keeps every scored detection in the order of the metrics, with boxes and scores as float32. So mAP computed
from the file equals that of the evaluation, bit for bit.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.errors import DataError
from ssd_lightning.metrics.average_precision import DetectionTable, ObjectTable
from ssd_lightning.run_files import written_whole

if TYPE_CHECKING:
    from ssd_lightning.metrics.detection_state import DetectionMetric


@dataclass(frozen=True, eq=False)
class EvaluationRecord:
    """Detections and objects of all I images of a split."""

    split: str
    """`train`, `val` or `test`."""
    class_names: tuple[str, ...]
    """Names of the classes 1..C."""
    image_ids: tuple[str, ...]
    """`[I]`, unique."""
    image_paths: tuple[str, ...]
    """`[I]`: paths of the images at the time of the evaluation."""
    sizes_px: Tensor
    """int64 `[I, 2]`: (height, width) of each original image."""
    detections: DetectionTable
    """Sorted by image; `image_index` is an index into `image_ids`. Boxes are normalised xyxy, float32."""
    objects: ObjectTable
    """Sorted by image, boxes normalised xyxy, float32."""

    @classmethod
    def of(
        cls, metric: "DetectionMetric", dataset: DetectionDataset, *, split: str, class_names: Sequence[str]
    ) -> "EvaluationRecord":
        """Create the record of an evaluation from a metric's state. A collective call.

        The data set contains all images of the updates; the class names are those of the detector.
        """
        from ssd_lightning.metrics.detection_state import image_key  # torchmetrics takes a second to import

        keys, evaluation = metric.seen_by_all()
        images = {image_key(record.image_id): record for record in dataset.annotations}
        records = [images[key] for key in keys.tolist()]
        return cls(
            split=split,
            class_names=tuple(class_names),
            image_ids=tuple(record.image_id for record in records),
            image_paths=tuple(os.path.abspath(record.image_path) for record in records),
            sizes_px=evaluation.sizes_px,
            detections=evaluation.detections,
            objects=evaluation.objects,
        )

    @property
    def num_classes(self) -> int:
        """C, the number of classes without the background."""
        return len(self.class_names)

    def ranked_detections(self, score_threshold: float = 0.0) -> DetectionTable:
        """Return the detections with at least this score, best first; equal scores keep their order."""
        order = self.detections.scores.argsort(descending=True, stable=True)
        order = order[self.detections.scores[order] >= score_threshold]
        return _rows(self.detections, order)

    def split_difficult(self) -> tuple[ObjectTable, ObjectTable]:
        """Separate the objects into (counted, difficult)."""
        return _rows(self.objects, ~self.objects.difficult), _rows(self.objects, self.objects.difficult)

    def of_image(self, index: int, score_threshold: float = 0.0) -> tuple[DetectionTable, ObjectTable]:
        """Return the detections of an image with at least this score, and its objects."""
        found = (self.detections.image_index == index) & (self.detections.scores >= score_threshold)
        return _rows(self.detections, found), _rows(self.objects, self.objects.image_index == index)

    def save(self, path: Path | str) -> None:
        """Write an uncompressed `.npz` without pickles, atomically.

        A detection takes 22 bytes: images store the number of their rows, and labels are int16. Floats hardly compress.
        """
        names = {key: getattr(self, key) for key in _NAMES}
        arrays: dict[str, Any] = {
            "format": np.int64(_FORMAT),
            # As ASCII JSON: names may not be valid UTF-8, and arrays of strings are as wide as the longest string.
            "names": np.frombuffer(json.dumps(names).encode("ascii"), dtype=np.uint8),
            "sizes_px": self.sizes_px.numpy().astype(np.int32),
        }
        for what, table in (("detections", self.detections), ("objects", self.objects)):
            columns = {key: column.numpy() for key, column in table._asdict().items()}
            counts = np.bincount(columns.pop("image_index"), minlength=len(self.image_ids))
            columns |= {"counts": counts.astype(np.int32), "labels": columns["labels"].astype(np.int16)}
            arrays |= {f"{what}_{key}": column for key, column in columns.items()}
        with written_whole(Path(path)) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def load(cls, path: Path | str) -> "EvaluationRecord":
        """Read a file that `save` wrote.

        Raises:
            DataError: the file is missing, damaged or of another type.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
            if arrays["format"] != _FORMAT:
                raise DataError(f"it is of format {arrays['format']}; this version reads {_FORMAT}")
            names = json.loads(arrays["names"].tobytes())
            num_images, num_paths, shape = len(names["image_ids"]), len(names["image_paths"]), arrays["sizes_px"].shape
            if num_paths != num_images or shape != (num_images, 2):
                raise DataError(f"it has {num_images} images, but {num_paths} paths and sizes of shape {shape}")
            num_classes = len(names["class_names"])
            return cls(
                split=str(names["split"]),
                **{key: tuple(map(str, names[key])) for key in _NAMES[1:]},
                sizes_px=torch.from_numpy(arrays["sizes_px"].astype(np.int64)),
                detections=_read(arrays, "detections", DetectionTable, num_images, num_classes),
                objects=_read(arrays, "objects", ObjectTable, num_images, num_classes),
            )
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        except FileNotFoundError:
            raise DataError(f"there is no evaluation {path}") from None
        except Exception as error:  # whatever numpy and zipfile raise at damage
            # Only for an OSError: numpy's own message suggests unpickling an unreadable file.
            reason = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
            raise DataError(f"{path} is not an evaluation of this package, or it is damaged{reason}") from error


_FORMAT = 1
_NAMES = ("split", "class_names", "image_ids", "image_paths")
_TYPES = {"boxes": np.float32, "scores": np.float32, "labels": np.int64, "difficult": np.bool_}


_Table = TypeVar("_Table", DetectionTable, ObjectTable)


def _rows(table: _Table, kept: Tensor) -> _Table:
    return type(table)(*(column[kept] for column in table))


def _read(arrays: dict[str, np.ndarray], what: str, table: type[_Table], num_images: int, num_classes: int) -> _Table:
    counts = arrays[f"{what}_counts"].astype(np.int64)
    columns = [torch.from_numpy(arrays[f"{what}_{name}"].astype(_TYPES[name])) for name in table._fields[1:]]
    labels = arrays[f"{what}_labels"]
    if len(counts) != num_images:
        raise DataError(f"it has {num_images} images, but numbers of {what} for {len(counts)}")
    if (counts < 0).any() or counts.sum() != len(labels):
        raise DataError(f"it has {len(labels)} {what}, but its images have {counts.sum()}")
    if {len(column) for column in columns} != {len(labels)} or columns[0].shape[1:] != (4,):
        raise DataError(f"it has {what} with columns of shapes {[tuple(column.shape) for column in columns]}")
    if len(labels) and not 1 <= labels.min() <= labels.max() <= num_classes:
        raise DataError(f"it has {num_classes} classes, but {what} with labels outside 1..{num_classes}")
    return table(torch.arange(num_images).repeat_interleave(torch.from_numpy(counts)), *columns)
