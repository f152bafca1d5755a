"""What the analyses of an evaluation say, against slow twins, numbers by hand, and records that lack something."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from helpers.evaluation_records import (
    EMPTY,
    LEFT,
    PLANTED,
    RIGHT,
    ImageSpec,
    make_record,
    planted_record,
    random_record,
    slow_matches,
)
from ssd_lightning.analysis.calibration import calibration
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.matching import confusion_matrix, image_scores
from ssd_lightning.analysis.object_sizes import ap_by_size, recall_by_size
from ssd_lightning.analysis.pr_curves import mean_ap, pr_curves
from ssd_lightning.metrics import VOCMeanAveragePrecision
from ssd_lightning.metrics.average_precision import HIT, IGNORED, match_detections
from ssd_lightning.types import Detections, Target

RECORDS = {
    **EMPTY,
    "random": random_record(0),
    "difficult": random_record(1, difficult=0.3),
    "scores at the ends": make_record(
        [ImageSpec([(LEFT, 1, False)], [(LEFT, 1.0, 1), (RIGHT, 0.0, 1), (RIGHT, 0.5, 2)])]
    ),
}


@pytest.fixture(params=RECORDS)
def record(request: pytest.FixtureRequest) -> EvaluationRecord:
    return RECORDS[request.param]


@pytest.mark.parametrize("score_threshold", [0.0, 0.4])
def test_a_confusion_matrix_is_the_slow_twins(record: EvaluationRecord, score_threshold: float) -> None:
    matrix = confusion_matrix(record, score_threshold=score_threshold)
    taken, strays, missed = slow_matches(record, score_threshold=score_threshold, same_class=False)
    true, found = record.objects.labels.tolist(), record.detections.labels.tolist()
    expected = np.zeros_like(matrix)
    for pair in [
        *((true[other], found[row]) for row, (other, _) in taken.items()),
        *((0, found[row]) for row in strays),
        *((true[other], 0) for other in missed),
    ]:
        expected[pair] += 1
    np.testing.assert_array_equal(matrix, expected)


@pytest.mark.parametrize("score_threshold", [0.0, 0.4])
def test_image_scores_are_the_panoptic_quality_image_by_image(record: EvaluationRecord, score_threshold: float) -> None:
    result = image_scores(record, score_threshold=score_threshold)
    taken, strays, missed = slow_matches(record, score_threshold=score_threshold, same_class=True)
    for index in range(len(record.image_ids)):
        ious = [iou for row, (_, iou) in taken.items() if record.detections.image_index[row] == index]
        false_positives = sum(int(record.detections.image_index[row]) == index for row in strays)
        num_missed = sum(int(record.objects.image_index[other]) == index for other in missed)
        counts = result.hits[index], result.false_positives[index], result.missed[index]
        assert counts == (len(ious), false_positives, num_missed)
        divisor = len(ious) + false_positives / 2 + num_missed / 2
        assert result.scores[index] == pytest.approx(sum(ious) / divisor if divisor else 1.0, abs=1e-12)
    assert sorted(result.best_first) == list(range(len(record.image_ids)))


def test_planted_images_come_in_order() -> None:
    result = image_scores(planted_record())
    assert [list(PLANTED)[index] for index in result.best_first] == [
        "right", "duplicate", "background", "missed",  # a hit each; of equal ones by id
        "nothing", "difficult",  # nothing to see
        "background alone", "missed alone",  # one error
        "class", "localisation", "both",  # two
    ]  # fmt: skip
    assert result.scores[list(PLANTED).index("duplicate")] == pytest.approx(2 / 3, abs=1e-6)


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


def test_the_calibration_error_is_the_slow_twins(record: EvaluationRecord) -> None:
    curve = calibration(record)
    ranked = record.ranked_detections()
    outcomes = match_detections(ranked, record.objects)
    chosen = outcomes != IGNORED
    scores, hits = ranked.scores[chosen].tolist(), (outcomes[chosen] == HIT).tolist()
    assert curve.error == pytest.approx(slow_error(scores, hits, 10), abs=1e-12)
    assert curve.counts.sum() == len(scores)
    assert (curve.counts * curve.precisions).sum() == pytest.approx(sum(hits))
    assert (curve.counts * curve.mean_scores).sum() == pytest.approx(sum(scores))
    assert np.isfinite([*curve.mean_scores, *curve.precisions]).all()


def test_detections_below_the_threshold_and_those_of_difficult_objects_are_not_calibrated() -> None:
    image = ImageSpec([(LEFT, 1, True), (RIGHT, 1, False)], [(LEFT, 0.9, 1), (RIGHT, 0.7, 1), (RIGHT, 0.1, 1)])
    counts = [int(calibration(make_record([image]), score_threshold=least).counts.sum()) for least in (0.0, 0.2)]
    assert counts == [2, 1]


SMALL, LARGE = (0.0, 0.0, 0.1, 0.1), (0.5, 0.0, 1.0, 0.5)


def test_ap_counts_the_objects_of_a_size_alone() -> None:
    """In an image of 200 px: 20 px, found with an IoU of .7, beside 100 px, which are missed."""
    image = ImageSpec([(SMALL, 1, False), (LARGE, 1, False)], [((0.0, 0.0, 0.1, 0.07), 0.9, 1)])
    small, medium, large = ap_by_size(make_record([image], sizes_px=torch.tensor([[200, 200]])))
    assert (small.name, small.num_objects, small.ap_50) == ("small", 1, 1)
    assert small.ap == pytest.approx(0.5, abs=0.11)  # at .5, .55, .6, .65 and, but for rounding, .7
    assert (large.name, large.num_objects, large.ap, large.ap_50) == ("large", 1, 0, 0)
    assert medium.num_objects == 0
    assert math.isnan(medium.ap)


@pytest.mark.parametrize("name", EMPTY)
def test_sizes_without_objects_have_no_ap(name: str) -> None:
    rows = ap_by_size(EMPTY[name])
    assert sum(row.num_objects for row in rows) == int((~EMPTY[name].objects.difficult).sum())
    for row in rows:
        assert math.isnan(row.ap) == math.isnan(row.ap_50) == (row.num_objects == 0)


def test_a_border_belongs_to_both_sizes() -> None:
    """32 x 32 px, which no float32 fractions of 375 x 500 px say exactly."""
    squares = [(x / 500, x / 375, (x + 32) / 500, (x + 32) / 375) for x in range(0, 300, 7)]
    images = [ImageSpec([(square, 1, False)], [(square, 0.9, 1)]) for square in squares]
    rows = ap_by_size(make_record(images, sizes_px=torch.tensor([[375, 500]] * len(images))))
    assert [(row.num_objects, row.ap == 1) for row in rows] == [(43, True), (43, True), (0, False)]


def test_bins_hold_every_counted_object_once_and_equally_many() -> None:
    record = random_record(0, num_images=60, difficult=0.2)
    rows, (whole,) = (recall_by_size(record, bins, score_threshold=0.3) for bins in (7, 1))
    counts = [row.num_objects for row in rows]
    assert len(rows) == 7
    assert sum(counts) == whole.num_objects == int((~record.objects.difficult).sum())
    assert max(counts) - min(counts) <= 2
    for smaller, larger in pairwise(rows):
        assert smaller.largest_side_px < larger.least_side_px
    assert sum(row.num_found for row in rows) == whole.num_found
    assert all(0 <= row.recall <= 1 for row in rows)


def test_recall_counts_what_is_found_in_pixels_of_the_image() -> None:
    small, large = (0.0, 0.0, 0.125, 0.25), (0.5, 0.0, 1.0, 0.5)
    image = ImageSpec([(small, 1, False), (large, 1, False)], [(large, 0.9, 1), (small, 0.3, 1), (small, 0.9, 2)])
    record = make_record([image], sizes_px=torch.tensor([[100, 200]]))
    first, second = recall_by_size(record, 2)
    assert (first.num_objects, first.num_found, first.least_side_px) == (1, 0, 25.0)
    assert (second.num_objects, second.num_found) == (1, 1)
    assert second.largest_side_px == pytest.approx(np.sqrt(100 * 50))
    assert recall_by_size(record, 2, score_threshold=0.3)[0].recall == 1


def test_objects_of_one_size_lie_in_one_bin() -> None:
    record = make_record([ImageSpec([(LEFT, 1, False), (LEFT, 2, False), (LEFT, 3, False)], [(LEFT, 0.9, 2)])])
    (row,) = recall_by_size(record, 3)
    assert (row.num_objects, row.num_found) == (3, 1)
    assert recall_by_size(EMPTY["difficult objects alone"]) == []


def metric_of(record: EvaluationRecord) -> VOCMeanAveragePrecision:
    metric = VOCMeanAveragePrecision(record.num_classes)
    for index, image_id in enumerate(record.image_ids):
        found, there = record.detections.image_index == index, record.objects.image_index == index
        _, boxes, scores, labels = (column[found] for column in record.detections)
        _, true_boxes, true_labels, difficult = (column[there] for column in record.objects)
        target = Target(boxes=true_boxes, labels=true_labels, difficult=difficult, image_id=image_id)
        metric.update([Detections(boxes=boxes, scores=scores, labels=labels)], [target])
    return metric


def test_the_area_is_that_of_the_metric_exactly(record: EvaluationRecord) -> None:
    if not record.num_classes:  # which the metric refuses
        assert pr_curves(record) == []
        return
    scores, curves = metric_of(record).compute(), pr_curves(record)
    for name, averages in (("area", [one.ap for one in curves]), ("11point", [one.ap_11point for one in curves])):
        np.testing.assert_array_equal(np.float32(averages), scores[f"ap_{name}"])
    np.testing.assert_allclose(mean_ap(curves), scores["map_area"], rtol=0, atol=1e-7)


def test_a_curve_by_hand() -> None:
    image = ImageSpec(
        [(LEFT, 1, False), (RIGHT, 1, False)], [(LEFT, 0.75, 1), (LEFT, 0.5, 1), (RIGHT, 0.25, 1), (RIGHT, 0.9, 2)]
    )
    curve, other, _ = pr_curves(make_record([image]))
    assert curve.recall.tolist() == [0.5, 0.5, 1.0]
    assert curve.precision.tolist() == [1.0, 0.5, 2 / 3]
    assert curve.ap == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert (other.num_objects, len(other.precision)) == (0, 0)
    assert np.isnan(other.ap)


def test_a_thinned_curve_lies_on_the_envelope() -> None:
    curve = pr_curves(random_record(0, num_images=200, num_classes=1))[0]
    thin = curve.thinned(40)
    assert 20 < len(thin.recall) <= 40 < len(curve.recall)
    assert (np.diff(thin.recall) > 0).all()
    assert (np.diff(thin.precision) <= 0).all()
    assert thin.recall[-1] == curve.recall[-1]
    for recall, precision in zip(thin.recall, thin.precision, strict=True):
        assert precision == curve.precision[curve.recall >= recall].max()
    assert (thin.ap, thin.num_objects) == (curve.ap, curve.num_objects)
