import numpy as np
import pytest
import torch

from helpers.evaluation_records import EMPTY, LEFT, RIGHT, ImageSpec, make_record, random_record
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.pr_curves import mean_ap, pr_curves
from ssd_lightning.metrics import VOCMeanAveragePrecision
from ssd_lightning.types import Detections, Target


def metric_of(record: EvaluationRecord) -> VOCMeanAveragePrecision:
    metric = VOCMeanAveragePrecision(record.num_classes)
    for index, image_id in enumerate(record.image_ids):
        found, there = record.detections.image_index == index, record.objects.image_index == index
        _, boxes, scores, labels = (column[found] for column in record.detections)
        _, true_boxes, true_labels, difficult = (column[there] for column in record.objects)
        metric.update(
            [Detections(boxes=boxes, scores=scores, labels=labels)],
            [
                Target(
                    boxes=true_boxes, labels=true_labels, difficult=difficult, image_id=image_id,
                    size_px=tuple(record.sizes_px[index].tolist()),
                )
            ],
        )  # fmt: skip
    return metric


RECORDS = {**EMPTY, **{f"random {seed}": random_record(seed, difficult=0.2 * (seed % 2)) for seed in range(2)}}


@pytest.mark.parametrize(
    "record", [r for r in RECORDS.values() if r.num_classes], ids=[n for n in RECORDS if "no classes" not in n]
)
def test_the_area_is_that_of_the_metric_exactly(record: EvaluationRecord) -> None:
    scores = metric_of(record).compute()
    curves = pr_curves(record)
    for name, averages in (("area", [one.ap for one in curves]), ("11point", [one.ap_11point for one in curves])):
        expected = torch.tensor(averages, dtype=torch.float64).float()
        torch.testing.assert_close(expected, scores[f"ap_{name}"], rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(
        torch.tensor(mean_ap(curves)), scores["map_area"].double(), rtol=0, atol=1e-7, equal_nan=True, check_dtype=False
    )


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


def test_a_class_that_is_never_found_has_ap_0() -> None:
    curve = pr_curves(EMPTY["no detections"])[0]
    assert (curve.num_objects, curve.ap, len(curve.recall)) == (1, 0.0, 0)


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
