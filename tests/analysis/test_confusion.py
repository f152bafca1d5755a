import numpy as np
import pytest
from torchvision.ops import box_iou

from helpers.evaluation_records import EMPTY, LEFT, RIGHT, ImageSpec, make_record, planted_record, random_record
from ssd_lightning.analysis.confusion import confusion_matrix
from ssd_lightning.analysis.evaluation_record import EvaluationRecord


def slow_matrix(record: EvaluationRecord, iou_threshold: float, score_threshold: float) -> np.ndarray:
    matrix = np.zeros((record.num_classes + 1,) * 2, dtype=np.int64)
    objects = record.objects
    taken = set()
    for row in record.ranking().tolist():
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


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("iou_threshold", "score_threshold"), [(0.5, 0.4), (0.3, 0.0), (0.75, 0.2)])
def test_it_is_the_slow_twins(seed: int, iou_threshold: float, score_threshold: float) -> None:
    record = random_record(seed, difficult=0.3 * (seed % 2))
    matrix = confusion_matrix(record, iou_threshold=iou_threshold, score_threshold=score_threshold)
    np.testing.assert_array_equal(matrix, slow_matrix(record, iou_threshold, score_threshold))


@pytest.mark.parametrize("record", [*EMPTY.values(), random_record(7, difficult=0.3)], ids=[*EMPTY, "random"])
def test_every_counted_object_stands_once_in_its_row(record: EvaluationRecord) -> None:
    matrix = confusion_matrix(record)
    counted = record.objects.labels[~record.objects.difficult]
    assert matrix.shape == (record.num_classes + 1,) * 2
    assert matrix.dtype == np.int64
    assert matrix.sum(1)[1:].tolist() == [int((counted == label + 1).sum()) for label in range(record.num_classes)]
    assert matrix[0, 0] == 0


@pytest.mark.parametrize("score_threshold", [0.0, 0.4, 2.0])
def test_every_detection_stands_once_in_its_column_where_nothing_is_difficult(score_threshold: float) -> None:
    record = random_record(1)
    columns = confusion_matrix(record, score_threshold=score_threshold).sum(0)[1:]
    found = record.detections.labels[record.detections.scores >= score_threshold]
    assert columns.tolist() == [int((found == label + 1).sum()) for label in range(record.num_classes)]


def test_planted_errors_lie_where_they_belong() -> None:
    assert confusion_matrix(planted_record()).tolist() == [[0, 2, 2, 1], [3, 1, 1, 0], [1, 0, 2, 0], [0, 0, 0, 3]]


def test_what_finds_a_difficult_object_is_left_out_whatever_its_class() -> None:
    image = ImageSpec([(LEFT, 1, True), (RIGHT, 2, False)], [(LEFT, 0.9, 1), (LEFT, 0.8, 2), (RIGHT, 0.7, 1)])
    assert confusion_matrix(make_record([image])).tolist() == [[0] * 4, [0] * 4, [0, 1, 0, 0], [0] * 4]


def test_the_better_score_takes_the_object_and_the_other_finds_background() -> None:
    image = ImageSpec([(LEFT, 1, False)], [(LEFT, 0.6, 1), (LEFT, 0.9, 2)])
    matrix = confusion_matrix(make_record([image]))
    assert (matrix[1, 2], matrix[0, 1], matrix.sum()) == (1, 1, 2)
