"""Mean average precision as COCO reports it, by torchmetrics and faster-coco-eval."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from ssd_lightning.checks import require_number
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.metrics.average_precision import DetectionTable, ObjectTable
from ssd_lightning.metrics.detection_state import DetectionMetric, Evaluation
from ssd_lightning.ops.boxes import areas_px, boxes_to_pixels
from ssd_lightning.ops.image_columns import check_normalised
from ssd_lightning.types import Detections, Target

IOU_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
RECALL_THRESHOLDS = tuple(np.linspace(0, 1, 101).tolist())
"""As in pycocotools. torchmetrics' own are rounded to float32: a recall of 3 / 5 does not reach its .6."""


class COCOMeanAveragePrecision(DetectionMetric):
    """COCO's summary: 101-point mAP over IoU .50:.05:.95, at .50, at .75, and by size in pixels of the original image.

    `update(preds, targets)` takes normalised boxes, unlike torchmetrics' own metric: `size_px` gives their size in
    pixels. See `DetectionMetric.update`.

    Difficult objects are treated as crowds in COCO: they are not counted, and detections inside them are ignored. The
    size of an object is that of its box. COCO's own evaluation takes the area of its outline, which is smaller.

    Args:
        max_detection_thresholds: three ascending numbers of detections per image, for the recalls. mAP uses the last
            one. COCO uses 100; the default is 200, because SSD keeps 200 detections.

    Raises:
        ConfigurationError: the thresholds are not three ascending whole numbers.
    """

    def __init__(self, max_detection_thresholds: Sequence[int] = (1, 10, 200)) -> None:
        super().__init__()
        self.max_detection_thresholds = limits = list(max_detection_thresholds)
        for number in limits:
            require_number("max_detection_thresholds", number, 1, whole=True)
        if len(limits) != 3 or sorted(set(limits)) != limits:
            raise ConfigurationError(
                f"max_detection_thresholds is {max_detection_thresholds}; it must be three ascending numbers"
            )

    def check(self, preds: Sequence[Detections], targets: Sequence[Target]) -> None:
        """Check columns, boxes and sizes of a batch.

        Raises:
            DataError: a box is not normalised, or a column has a wrong shape.
            ValueError: a target has no `size_px`.
        """
        for number, target in enumerate(targets):
            if "size_px" not in target:
                raise ValueError(f"target {number} of the batch has no size_px; COCO's size ranges are in pixels")
        super().check(preds, targets)
        check_normalised(targets, targets=targets)

    def compute(self) -> dict[str, Tensor]:
        """Evaluate all images seen by all ranks.

        Returns:
            float32 scalars: `map`, `map_50`, `map_75`, `map_small`, `map_medium`, `map_large`, `mar_{n}` for
            the three thresholds, `mar_small`, `mar_medium`, `mar_large`. A score without objects is NaN.
        """
        summary = coco_summary(self.evaluation(), max_detection_thresholds=self.max_detection_thresholds)
        return {name: value.to(self.device) for name, value in summary.items()}


def coco_summary(
    evaluation: Evaluation, *, max_detection_thresholds: Sequence[int], iou_thresholds: Sequence[float] = IOU_THRESHOLDS
) -> dict[str, Tensor]:
    """Compute the scores of `COCOMeanAveragePrecision`; by default over IoU .50:.05:.95."""
    sizes_px = evaluation.sizes_px.tolist()

    def by_image(table: DetectionTable | ObjectTable) -> Iterator[tuple[tuple[int, int], Tensor, Tensor, Tensor]]:
        counts = table.image_index.bincount(minlength=len(sizes_px)).tolist()
        return zip(sizes_px, *(column.split(counts) for column in table[1:]), strict=True)

    preds = [
        {"boxes": boxes_to_pixels(boxes, size_px), "scores": scores, "labels": labels}
        for size_px, boxes, scores, labels in by_image(evaluation.detections)
    ]
    targets = [
        {
            "boxes": boxes_to_pixels(boxes, size_px),
            "labels": labels,
            "iscrowd": difficult.int(),
            "area": areas_px(boxes, torch.tensor([size_px])),
        }
        for size_px, boxes, labels, difficult in by_image(evaluation.objects)
    ]
    # The ranks have already exchanged their images. A second exchange would count each image several times.
    evaluator = MeanAveragePrecision(
        backend="faster_coco_eval",
        iou_thresholds=list(iou_thresholds),
        rec_thresholds=list(RECALL_THRESHOLDS),
        max_detection_thresholds=list(max_detection_thresholds),
        sync_on_compute=False,
    )
    evaluator.warn_on_many_detections = False
    evaluator.update(preds, targets)
    return {
        name: value.masked_fill(value < 0, torch.nan)  # COCO uses -1 for undefined values
        for name, value in evaluator.compute().items()
        if name.startswith(("map", "mar")) and not name.endswith("per_class")
    }
