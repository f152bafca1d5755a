"""Mean average precision as the PASCAL VOC challenge reports it."""

from collections.abc import Mapping, Sequence
from functools import wraps
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ssd_lightning.errors import DataError
from ssd_lightning.metrics.average_precision import voc_average_precision
from ssd_lightning.metrics.detection_state import DetectionMetric
from ssd_lightning.types import Detections, Target


class VOCMeanAveragePrecision(DetectionMetric):
    """11-point and area-under-envelope mAP, with difficult objects ignored.

    Args:
        num_classes: C, without the background.
        iou_threshold: smallest overlap of a hit.
    """

    def __init__(self, num_classes: int, iou_threshold: float = 0.5) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.iou_threshold = iou_threshold
        self._keep_class_axis()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._keep_class_axis()

    def update(self, preds: Sequence[Detections], targets: Sequence[Target]) -> None:
        """Add a batch of detections and the targets of the same images in the same order.

        As in torchmetrics, `boxes`, `scores` and `labels` are enough. Without `difficult`, all objects count; images
        without `image_id` are all different.

        Raises:
            DataError: a label is outside 1..C.
            ValueError: `preds` and `targets` have different lengths, or the names of an image differ.
        """
        self._check_labels(preds, "detected", targets)
        self._check_labels(targets, "annotated", targets)
        super().update(preds, targets)

    def compute(self) -> dict[str, Tensor]:
        """Evaluate all images seen by all ranks.

        Returns:
            float32: `map_11point` and `map_area` (scalars), `ap_11point` and `ap_area` (`[C]`). A class without
            counted objects is NaN, and the mean leaves it out. If all classes are NaN, the mean is NaN.
        """
        _, detections, objects = self.evaluation()
        ap = voc_average_precision(detections, objects, num_classes=self.num_classes, iou_threshold=self.iou_threshold)
        result = {
            "map_11point": ap.eleven_point.nanmean(),
            "map_area": ap.area.nanmean(),
            "ap_11point": ap.eleven_point,
            "ap_area": ap.area,
        }
        return {name: value.float().to(self.device) for name, value in result.items()}

    def _check_labels(self, images: Sequence[Mapping[str, Any]], origin: str, targets: Sequence[Target]) -> None:
        images = images[: len(targets)]
        if not images:
            return
        labels = torch.cat([image["labels"] for image in images])
        outside = ((labels < 1) | (labels > self.num_classes)).nonzero()[:, 0].tolist()
        if outside:
            ends = accumulate(len(image["labels"]) for image in images)
            number = next(number for number, end in enumerate(ends) if end > outside[0])
            image_id = targets[number].get("image_id", f"{number} of the batch")
            label = int(labels[outside[0]])
            raise DataError(f"image '{image_id}': {origin} class {label} is outside 1..{self.num_classes}")

    def _keep_class_axis(self) -> None:
        # torchmetrics squeezes every tensor with one element, including the AP of a single class.
        squeezed = self.compute

        @wraps(squeezed)
        def compute() -> dict[str, Tensor]:
            return {
                name: value.reshape(self.num_classes) if name.startswith("ap_") else value
                for name, value in squeezed().items()
            }

        self.compute = compute  # type: ignore[method-assign]
