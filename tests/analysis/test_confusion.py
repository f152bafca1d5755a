import numpy as np
import pytest

from helpers.evaluation_records import EMPTY, planted_record, random_record, slow_matches
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.matching import confusion_matrix

RANDOM = {f"random {seed}": random_record(seed, difficult=0.3 * (seed % 2)) for seed in range(2)}


@pytest.mark.parametrize("record", [*EMPTY.values(), *RANDOM.values()], ids=[*EMPTY, *RANDOM])
@pytest.mark.parametrize(("iou_threshold", "score_threshold"), [(0.5, 0.4), (0.3, 0.0)])
def test_it_is_the_slow_twins(record: EvaluationRecord, iou_threshold: float, score_threshold: float) -> None:
    matrix = confusion_matrix(record, iou_threshold=iou_threshold, score_threshold=score_threshold)
    taken, strays, missed = slow_matches(
        record, iou_threshold=iou_threshold, score_threshold=score_threshold, same_class=False
    )
    true, found = record.objects.labels.tolist(), record.detections.labels.tolist()
    expected = np.zeros_like(matrix)
    for pair in [
        *((true[other], found[row]) for row, (other, _) in taken.items()),
        *((0, found[row]) for row in strays),
    ]:
        expected[pair] += 1
    for other in missed:
        expected[true[other], 0] += 1
    np.testing.assert_array_equal(matrix, expected)


def test_planted_errors_lie_where_they_belong() -> None:
    assert confusion_matrix(planted_record()).tolist() == [[0, 2, 2, 1], [3, 1, 1, 0], [1, 0, 2, 0], [0, 0, 0, 3]]
