import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from helpers.evaluation_records import EMPTY, LEFT, ImageSpec, make_record, random_record
from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.object_sizes import SIDES_PX, ap_by_size, coco_average, recall_by_size
from ssd_lightning.metrics import COCOMeanAveragePrecision
from ssd_lightning.types import Detections, Target


def coco_scores(record: EvaluationRecord) -> dict[str, float]:
    """What faster-coco-eval says, from the boxes as the metric gets them."""
    preds, targets = [], []
    for index, image_id in enumerate(record.image_ids):
        found, there = record.detections.image_index == index, record.objects.image_index == index
        boxes, scores, labels = (column[found] for column in record.detections[1:])
        preds.append(Detections(boxes=boxes, scores=scores, labels=labels))
        boxes, labels, difficult = (column[there] for column in record.objects[1:])
        size_px = tuple(record.sizes_px[index].tolist())
        targets.append(Target(boxes=boxes, labels=labels, difficult=difficult, image_id=image_id, size_px=size_px))
    metric = COCOMeanAveragePrecision()
    # The metric sorts images by a hash of their names; the order decides among equal scores alone.
    metric.update(preds, targets)
    return {name: float(value) for name, value in metric.compute().items()}


@pytest.fixture
def thresholds_of_torchmetrics(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "ssd_lightning.analysis.object_sizes"
    monkeypatch.setattr(f"{module}.IOU_THRESHOLDS", torch.linspace(0.5, 0.95, 10).double().numpy())
    monkeypatch.setattr(f"{module}.RECALL_THRESHOLDS", torch.linspace(0.0, 1.0, 101).double().numpy())


@pytest.mark.usefixtures("thresholds_of_torchmetrics")
@pytest.mark.parametrize("difficult", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(2))
def test_ap_is_faster_coco_evals(seed: int, difficult: float) -> None:
    record = random_record(seed, num_images=20, num_classes=3, detections_an_image=20, difficult=difficult)
    expected = coco_scores(record)
    rows = ap_by_size(record)
    assert [row.name for row in rows] == ["small", "medium", "large"]
    for row in rows:
        assert row.num_objects > 3
        assert 0 < row.ap <= row.ap_50
        assert row.ap == pytest.approx(expected[f"map_{row.name}"], abs=1e-6)


@pytest.mark.parametrize("record", EMPTY.values(), ids=EMPTY.keys())
def test_sizes_without_objects_have_no_ap(record: EvaluationRecord) -> None:
    counted = int((~record.objects.difficult).sum())
    rows = ap_by_size(record)
    assert sum(row.num_objects for row in rows) == counted
    for row in rows:
        assert math.isnan(row.ap) == math.isnan(row.ap_50) == (row.num_objects == 0)


def test_a_border_belongs_to_both_sizes() -> None:
    square = (0.0, 0.0, 0.25, 0.25)
    record = make_record([ImageSpec([(square, 1, False)], [(square, 0.9, 1)])], sizes_px=torch.tensor([[128, 128]]))
    assert [(row.num_objects, row.ap == 1) for row in ap_by_size(record)] == [(1, True), (1, True), (0, False)]
    assert SIDES_PX["small"][1] == 128 / 4


def test_the_mean_over_101_recalls_by_hand() -> None:
    recall = torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64)
    precision = torch.tensor([1.0, 0.5, 2 / 3], dtype=torch.float64)
    assert float(coco_average(precision, recall)) == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)
    assert float(coco_average(precision[:0], recall[:0])) == 0


@pytest.mark.parametrize("bins", [1, 7])
def test_bins_hold_every_counted_object_once_and_equally_many(bins: int) -> None:
    record = random_record(0, num_images=60, difficult=0.2)
    rows = recall_by_size(record, bins, score_threshold=0.3)
    counted = int((~record.objects.difficult).sum())
    assert len(rows) == bins
    assert sum(row.num_objects for row in rows) == counted
    assert max(row.num_objects for row in rows) - min(row.num_objects for row in rows) <= 2
    for smaller, larger in pairwise(rows):
        assert smaller.largest_side_px < larger.least_side_px
    assert sum(row.num_found for row in rows) == recall_by_size(record, 1, score_threshold=0.3)[0].num_found
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


@pytest.mark.parametrize("name", ["no images", "no objects", "difficult objects alone"])
def test_without_counted_objects_there_are_no_bins(name: str) -> None:
    assert recall_by_size(EMPTY[name]) == []
