import numpy as np
import pytest

from helpers.evaluation_records import EMPTY, LEFT, RIGHT, ImageSpec, make_record, random_record
from ssd_lightning.analysis.calibration import calibration, calibration_curve
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.metrics.average_precision import HIT, IGNORED, match_detections


def slow_error(scores: list[float], hits: list[bool], bins: int) -> float:
    """Guo et al., equation 3, bin after bin: ((b - 1) / B, b / B]."""
    total = 0.0
    for index in range(bins):
        members = [i for i, s in enumerate(scores) if index / bins < s <= (index + 1) / bins or (s == 0 == index)]
        if members:
            confidence = sum(scores[i] for i in members) / len(members)
            precision = sum(hits[i] for i in members) / len(members)
            total += len(members) / len(scores) * abs(precision - confidence)
    return total


@pytest.mark.parametrize("bins", [1, 10])
@pytest.mark.parametrize("seed", range(2))
def test_the_error_is_the_slow_twins(seed: int, bins: int) -> None:
    record = random_record(seed, difficult=0.2)
    curve = calibration(record, bins)
    ranked = record.ranked_detections()
    outcomes = match_detections(ranked, record.objects)
    chosen = outcomes != IGNORED
    scores, hits = ranked.scores[chosen].tolist(), (outcomes[chosen] == HIT).tolist()
    assert curve.error == pytest.approx(slow_error(scores, hits, bins), abs=1e-12)
    assert curve.counts.sum() == len(scores)
    assert (curve.counts * curve.precisions).sum() == pytest.approx(sum(hits))
    assert (curve.counts * curve.mean_scores).sum() == pytest.approx(sum(scores))


def test_numbers_by_hand() -> None:
    curve = calibration_curve(np.array([0.9, 0.8, 0.3, 0.5]), np.array([True, False, False, True]), 2)
    assert curve.edges.tolist() == [0.0, 0.5, 1.0]
    assert curve.counts.tolist() == [2, 2]
    assert curve.mean_scores.tolist() == pytest.approx([0.4, 0.85])
    assert curve.precisions.tolist() == [0.5, 0.5]
    assert curve.error == pytest.approx(0.5 * 0.1 + 0.5 * 0.35)


def test_scores_of_0_and_1_have_bins() -> None:
    assert calibration_curve(np.array([0.0, 1.0]), np.array([False, True]), 10).counts.tolist() == [1, *[0] * 8, 1]


@pytest.mark.parametrize("record", EMPTY.values(), ids=EMPTY.keys())
def test_all_numbers_are_finite_where_there_is_nothing(record: EvaluationRecord) -> None:
    curve = calibration(record)
    for values in (curve.edges, curve.counts, curve.mean_scores, curve.precisions, curve.error):
        assert np.isfinite(values).all()
    empty = curve.counts == 0
    assert curve.mean_scores[empty] == pytest.approx((np.arange(10)[empty] + 0.5) / 10)
    assert not empty.all() or curve.error == 0


def test_detections_below_the_threshold_and_those_of_difficult_objects_are_left_out() -> None:
    image = ImageSpec([(LEFT, 1, True), (RIGHT, 1, False)], [(LEFT, 0.9, 1), (RIGHT, 0.7, 1), (RIGHT, 0.1, 1)])
    assert calibration(make_record([image])).counts.sum() == 2
    assert calibration(make_record([image]), score_threshold=0.2).counts.sum() == 1
