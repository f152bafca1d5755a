"""The COCO metric against pycocotools, and what it adds: pixels, crowds, duplicates, NaN."""

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.ops import box_convert

from helpers.no_warnings import no_warnings
from helpers.targets import make_target
from ssd_lightning.errors import ConfigurationError, DataError
from ssd_lightning.metrics import COCOMeanAveragePrecision
from ssd_lightning.ops.boxes import boxes_to_pixels
from ssd_lightning.types import Detections, Target


def image(boxes: torch.Tensor, found: torch.Tensor, size_px: tuple[int, int] = (512, 512), difficult: bool = False):
    labels = torch.ones(len(found), dtype=torch.int64)
    pred = Detections(boxes=found, scores=torch.linspace(1, 0.5, len(found)), labels=labels)
    target = make_target(boxes, image_id=f"{len(boxes)}_{size_px}_{difficult}")
    return pred, target | {"difficult": torch.full((len(boxes),), difficult), "size_px": size_px}


def evaluate(*pairs: tuple[Detections, Target], **settings: object) -> dict[str, torch.Tensor]:
    metric = COCOMeanAveragePrecision(**settings)
    for pred, target in pairs:
        metric.update([pred], [target])
    return metric.compute()


def by_pycocotools(
    preds: list[Detections], targets: list[Target], thresholds: tuple[int, ...]
) -> dict[str, torch.Tensor]:
    """The summary over all classes of pycocotools' precision `[T, R, C, A, M]` and recall `[T, C, A, M]`."""
    objects: list[dict[str, object]] = []
    found: list[dict[str, object]] = []
    for number, (pred, target) in enumerate(zip(preds, targets, strict=True), start=1):
        for image, rows, is_truth in ((target, objects, True), (pred, found, False)):
            boxes = box_convert(boxes_to_pixels(image["boxes"], target["size_px"]), "xyxy", "xywh").tolist()
            for place, (box, label) in enumerate(zip(boxes, image["labels"].tolist(), strict=True)):
                row = {"image_id": number, "category_id": label, "bbox": box, "area": box[2] * box[3]}
                extra = {"iscrowd": int(target["difficult"][place])} if is_truth else {"score": pred["scores"][place]}
                rows.append(row | extra | {"id": len(rows) + 1})
    truth = COCO()
    categories = [{"id": label} for label in range(1, 4)]
    images = [{"id": number + 1} for number in range(len(targets))]
    truth.dataset = {"images": images, "annotations": objects, "categories": categories, "info": {}}
    truth.createIndex()
    evaluator = COCOeval(truth, truth.loadRes(found), "bbox")
    evaluator.params.maxDets = list(thresholds)
    evaluator.evaluate()
    evaluator.accumulate()
    precision, recall = (torch.from_numpy(evaluator.eval[name]).float() for name in ("precision", "recall"))

    def mean(values: torch.Tensor) -> torch.Tensor:
        return values[values >= 0].mean()

    result = {"map": precision[..., 0, 2], "map_50": precision[0, ..., 0, 2], "map_75": precision[5, ..., 0, 2]}
    result |= {f"mar_{limit}": recall[..., 0, place] for place, limit in enumerate(thresholds)}
    for place, size in enumerate(("small", "medium", "large"), start=1):
        result |= {f"map_{size}": precision[..., place, 2], f"mar_{size}": recall[..., place, 2]}
    return {name: mean(values) for name, values in result.items()}


@pytest.mark.parametrize("thresholds", [(1, 10, 100), (1, 3, 5)])
def test_against_pycocotools(draw, thresholds: tuple[int, ...]) -> None:
    preds, targets = draw(25, 3, seed=0, score_steps=1000)
    expected = by_pycocotools(preds, targets, thresholds)
    result = evaluate(*zip(preds, targets, strict=True), max_detection_thresholds=thresholds)
    assert 0 < result["map"] < 1
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6, equal_nan=True)


def test_a_recall_of_three_in_five_reaches_six_tenths() -> None:
    corner = torch.stack([torch.arange(5) / 5, torch.zeros(5)], dim=1)
    boxes = torch.cat([corner, corner + 1 / 16], dim=1)
    assert float(evaluate(image(boxes, boxes[:3]))["map"]) == pytest.approx(61 / 101)


def test_more_than_a_hundred_detections_an_image_are_not_lost() -> None:
    corner = torch.cartesian_prod(torch.arange(15), torch.arange(10)) / 16
    boxes = torch.cat([corner, corner + 1 / 32], dim=1)
    assert evaluate(image(boxes, boxes))["map"] == 1
    with no_warnings():
        coco_limit = evaluate(image(boxes, boxes), max_detection_thresholds=(1, 10, 100))
    assert float(coco_limit["map"]) == pytest.approx(0.663, abs=1e-3)


def test_a_box_of_32_whole_pixels_is_small_and_medium() -> None:
    """Its fractions of 375 x 500 px are not exact in float32."""
    start = torch.arange(0, 300, 7).double()
    boxes = torch.stack([start / 500, start / 375, (start + 32) / 500, (start + 32) / 375], dim=1).float()
    for box in boxes.split(1):
        result = evaluate(image(box, box, (375, 500)))
        assert result["map_small"] == result["map_medium"] == 1


def test_nothing_to_find_is_nan_and_nothing_found_is_zero() -> None:
    none, box = torch.zeros(0, 4), torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    with no_warnings():
        for result in (evaluate(), evaluate(image(none, box))):
            assert result["map"].shape == ()
            assert all(value.isnan() for value in result.values())
        result = evaluate(image(box, none))
    assert result["map"] == result["map_50"] == result["mar_200"] == 0


def test_boxes_in_pixels_are_refused_as_their_sizes_would_be_wrong() -> None:
    box = torch.tensor([[10.0, 10.0, 40.0, 40.0]])
    with pytest.raises(DataError, match=r"the box \(10, 10, 40, 40\) is not normalised"):
        evaluate(image(box, box))


@pytest.mark.parametrize("thresholds", [(1, 10), (10, 1, 200), (0, 1, 2), (1, 2, 2.5)])
def test_detection_limits_are_three_ascending_numbers(thresholds: tuple) -> None:
    with pytest.raises(ConfigurationError, match="max_detection_thresholds is"):
        COCOMeanAveragePrecision(thresholds)
