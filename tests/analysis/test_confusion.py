import numpy as np
import pytest
from torchvision.ops import box_iou

from helpers.evaluation_records import EMPTY, planted_record, random_record
from ssd_lightning.analysis.confusion import confusion_matrix
from ssd_lightning.analysis.evaluation_record import EvaluationRecord


def slow_matrix(record: EvaluationRecord, iou_threshold: float, score_threshold: float) -> np.ndarray:
    matrix = np.zeros((record.num_classes + 1,) * 2, dtype=np.int64)
    objects = record.objects
    taken = set()
    for row in record.detections.scores.argsort(descending=True).tolist():
        if record.detections.scores[row] < score_threshold:
            continue
        overlaps = {}
        for other in (objects.image_index == record.detections.image_index[row]).nonzero()[:, 0].tolist():
            boxes = record.detections.boxes[row : row + 1].double(), objects.boxes[other : other + 1].double()
            overlaps[other] = box_iou(*boxes).item()
        free = [
            o for o, iou in overlaps.items() if iou >= iou_threshold and o not in taken and not objects.difficult[o]
        ]
        if free:
            best = max(free, key=lambda other: overlaps[other])
            taken.add(best)
            matrix[objects.labels[best], record.detections.labels[row]] += 1
        elif not any(iou >= iou_threshold and objects.difficult[other] for other, iou in overlaps.items()):
            matrix[0, record.detections.labels[row]] += 1
    for other in range(len(objects.labels)):
        if other not in taken and not objects.difficult[other]:
            matrix[objects.labels[other], 0] += 1
    return matrix


RANDOM = {f"random {seed}": random_record(seed, difficult=0.3 * (seed % 2)) for seed in range(2)}


@pytest.mark.parametrize("record", [*EMPTY.values(), *RANDOM.values()], ids=[*EMPTY, *RANDOM])
@pytest.mark.parametrize(("iou_threshold", "score_threshold"), [(0.5, 0.4), (0.3, 0.0)])
def test_it_is_the_slow_twins(record: EvaluationRecord, iou_threshold: float, score_threshold: float) -> None:
    matrix = confusion_matrix(record, iou_threshold=iou_threshold, score_threshold=score_threshold)
    np.testing.assert_array_equal(matrix, slow_matrix(record, iou_threshold, score_threshold))


def test_planted_errors_lie_where_they_belong() -> None:
    assert confusion_matrix(planted_record()).tolist() == [[0, 2, 2, 1], [3, 1, 1, 0], [1, 0, 2, 0], [0, 0, 0, 3]]
