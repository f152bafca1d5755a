"""The VOC rule against published numbers, cases done by hand and a slow loop written from the definition."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from ssd_lightning.metrics import average_precision
from ssd_lightning.metrics.average_precision import (
    HIT,
    MISS,
    DetectionTable,
    ObjectTable,
    eleven_point_average,
    match_detections,
    precision_recall,
    voc_average_precision,
)

UNIT = [0.0, 0.0, 1.0, 1.0]
FAR = [5.0, 5.0, 6.0, 6.0]


def detections(boxes: list[list[float]]) -> DetectionTable:
    """Detections of class 1 in one image, the best first."""
    ones = torch.ones(len(boxes), dtype=torch.int64)
    return DetectionTable(0 * ones, torch.tensor(boxes).reshape(-1, 4), torch.linspace(0.9, 0.1, len(boxes)), ones)


def objects(boxes: list[list[float]], difficult: list[bool] | None = None) -> ObjectTable:
    """Objects of class 1 in one image."""
    ones = torch.ones(len(boxes), dtype=torch.int64)
    is_difficult = torch.tensor(difficult or [False] * len(boxes), dtype=torch.bool)
    return ObjectTable(0 * ones, torch.tensor(boxes).reshape(-1, 4), ones, is_difficult)


def tables_of(preds: list, targets: list) -> tuple[DetectionTable, ObjectTable]:
    def index(items: list) -> Tensor:
        return torch.cat([torch.full((len(item["labels"]),), i) for i, item in enumerate(items)])

    def column(items: list, name: str) -> Tensor:
        return torch.cat([item[name] for item in items])

    return (
        DetectionTable(index(preds), *(column(preds, name) for name in ("boxes", "scores", "labels"))),
        ObjectTable(index(targets), *(column(targets, name) for name in ("boxes", "labels", "difficult"))),
    )


def test_threshold_is_inclusive_and_changes_the_result() -> None:
    half = detections([[0.0, 0.0, 1.0, 0.5]])
    assert match_detections(half, objects([UNIT]), iou_threshold=0.5).tolist() == [HIT]
    assert match_detections(half, objects([UNIT]), iou_threshold=0.501).tolist() == [MISS]


def test_eleven_points_are_those_of_the_published_evaluators() -> None:
    """A recall of 3 / 10 falls short of the fourth point, 3 * .1 in double precision; 5 / 10 is the sixth."""
    three = precision_recall(torch.tensor([HIT] * 3), 10)
    five = precision_recall(torch.tensor([HIT] * 5), 10)
    assert float(eleven_point_average(*three)) == pytest.approx(3 / 11)
    assert float(eleven_point_average(*five)) == pytest.approx(6 / 11)


def test_nothing_on_either_side() -> None:
    for found in (detections([]), detections([UNIT])):
        for truth in (objects([]), objects([UNIT], difficult=[True])):
            ap = torch.cat(voc_average_precision(found, truth, num_classes=2))
            assert ap.shape == (4,)
            assert ap.isnan().all()
    assert torch.cat(voc_average_precision(detections([]), objects([UNIT]), num_classes=1)).tolist() == [0, 0]


def test_boxes_without_area_or_number_are_misses() -> None:
    broken = [[0.0, 0.0, math.nan, 1.0], [0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 0.0, 0.0], [math.inf] * 4]
    found = detections([*broken, UNIT])
    assert match_detections(found, objects([[math.nan] * 4, UNIT, [0.5] * 4])).tolist() == [MISS] * 4 + [HIT]


@pytest.mark.parametrize("iou_threshold", [0.25, 0.75])
@pytest.mark.parametrize(("num_images", "num_classes", "block"), [(1, 1, 7), (12, 3, 7), (40, 6, 65_536)])
def test_against_a_slow_loop(
    draw, num_images: int, num_classes: int, block: int, iou_threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(average_precision, "_BLOCK", block)
    preds, targets = draw(num_images, num_classes, seed=0)
    ap = voc_average_precision(*tables_of(preds, targets), num_classes=num_classes, iou_threshold=iou_threshold)
    for label in range(1, num_classes + 1):
        eleven_point, area = slow_average_precision(preds, targets, label, iou_threshold)
        assert float(ap.eleven_point[label - 1]) == pytest.approx(eleven_point, abs=1e-12, nan_ok=True)
        assert float(ap.area[label - 1]) == pytest.approx(area, abs=1e-12, nan_ok=True)


def slow_average_precision(preds: list, targets: list, label: int, iou_threshold: float) -> tuple[float, float]:
    """One class by the definition, one detection at a time: (11-point, area)."""
    ranking, truth = [], []
    for image, (pred, target) in enumerate(zip(preds, targets, strict=True)):
        rows, objects = pred["labels"] == label, target["labels"] == label
        ious = box_iou(pred["boxes"][rows].double(), target["boxes"][objects].double()).tolist()
        ranking += [(score, image, row) for score, row in zip(pred["scores"][rows].tolist(), ious, strict=True)]
        truth.append(target["difficult"][objects].tolist())
    ranking.sort(key=lambda entry: -entry[0])
    num_objects = sum(not difficult for image in truth for difficult in image)
    if num_objects == 0:
        return math.nan, math.nan
    taken: set[tuple[int, int]] = set()
    hits = misses = 0
    curve = []
    for _, image, ious in ranking:
        best = max(range(len(ious)), key=ious.__getitem__, default=-1)  # of equal ones the first
        is_near = best >= 0 and ious[best] >= iou_threshold
        if is_near and truth[image][best]:
            continue
        if is_near and (image, best) not in taken:
            taken.add((image, best))
            hits += 1
        else:
            misses += 1
        curve.append((hits / num_objects, hits / (hits + misses)))
    eleven_point = sum(best_precision(curve, t) for t in np.arange(0, 1.1, 0.1)) / 11
    recalls = sorted({0.0, *(recall for recall, _ in curve)})
    return eleven_point, sum((right - left) * best_precision(curve, right) for left, right in pairwise(recalls))


def best_precision(curve: list[tuple[float, float]], least_recall: float) -> float:
    return max((precision for recall, precision in curve if recall >= least_recall), default=0.0)
