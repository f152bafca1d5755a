"""Mean average precision as the PASCAL VOC challenge reports it."""

from collections.abc import Sequence
from functools import wraps
from typing import Any

from torch import Tensor

from ssd_lightning.checks import require_number
from ssd_lightning.metrics.average_precision import voc_average_precision
from ssd_lightning.metrics.detection_state import DetectionMetric
from ssd_lightning.ops.image_columns import check_labels
from ssd_lightning.types import Detections, Target


class VOCMeanAveragePrecision(DetectionMetric):
    """11-point and area-under-envelope mAP, with difficult objects ignored.

    `update(preds, targets)` takes a batch as in torchmetrics: `boxes`, `scores` and `labels` are enough. Without
    `difficult`, all objects count; images without `image_id` are all different. See `DetectionMetric.update`.

    Args:
        num_classes: C, without the background.
        iou_threshold: smallest overlap of a hit, above 0.

    Raises:
        ConfigurationError: an argument is out of its range.
    """

    def __init__(self, num_classes: int, iou_threshold: float = 0.5) -> None:
        super().__init__()
        require_number("num_classes", num_classes, 1, whole=True)
        require_number("iou_threshold", iou_threshold, 0, 1, above_low=True)
        self.num_classes = num_classes
        self.iou_threshold = iou_threshold
        self._keep_class_axis()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._keep_class_axis()

    def check(self, preds: Sequence[Detections], targets: Sequence[Target]) -> None:
        """Check columns and labels of a batch.

        Raises:
            DataError: a label is outside 1..C, or a column has a wrong shape.
        """
        super().check(preds, targets)
        check_labels(preds, self.num_classes, targets=targets, what="detected")
        check_labels(targets, self.num_classes, targets=targets, what="annotated")

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
