"""The COCO metric against torchmetrics called by hand, and what it adds: pixels, crowds, duplicates, NaN."""

import math

import pytest
import torch
from torchmetrics.detection import MeanAveragePrecision

from helpers.no_warnings import no_warnings
from helpers.targets import make_target
from ssd_lightning.metrics import COCOMeanAveragePrecision
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


@pytest.mark.parametrize("thresholds", [(1, 10, 100), (1, 3, 5)])
def test_against_torchmetrics_called_by_hand(draw, thresholds: tuple[int, ...]) -> None:
    preds, targets = draw(25, 3, seed=0, score_steps=1000)
    direct = MeanAveragePrecision(backend="faster_coco_eval", max_detection_thresholds=list(thresholds))
    direct.warn_on_many_detections = False
    for pred, target in zip(preds, targets, strict=True):
        scale = torch.tensor([*target["size_px"][::-1]] * 2)
        truth = {"boxes": target["boxes"] * scale, "labels": target["labels"], "iscrowd": target["difficult"].int()}
        direct.update([{**pred, "boxes": pred["boxes"] * scale}], [truth])
    expected = direct.compute()
    result = evaluate(*zip(preds, targets, strict=True), max_detection_thresholds=thresholds)
    assert set(result) == {
        *("map", "map_50", "map_75", "map_small", "map_medium", "map_large"),
        *(f"mar_{count}" for count in thresholds),
        *("mar_small", "mar_medium", "mar_large"),
    }
    assert 0 < result["map"] < 1
    for name, value in result.items():
        wanted = expected[name] if expected[name] >= 0 else torch.tensor(torch.nan)
        torch.testing.assert_close(value, wanted, rtol=0, atol=1e-6, equal_nan=True)


def test_more_than_a_hundred_detections_an_image_are_not_lost() -> None:
    corner = torch.cartesian_prod(torch.arange(15), torch.arange(10)) / 16
    boxes = torch.cat([corner, corner + 1 / 32], dim=1)
    assert evaluate(image(boxes, boxes))["map"] == 1
    with no_warnings():
        coco_limit = evaluate(image(boxes, boxes), max_detection_thresholds=(1, 10, 100))
    assert float(coco_limit["map"]) == pytest.approx(0.663, abs=1e-3)


@pytest.mark.parametrize(
    ("size_px", "range_name"), [((100, 400), "small"), ((200, 400), "medium"), ((1000, 400), "large")]
)
def test_size_ranges_are_pixels_of_the_original_image(size_px: tuple[int, int], range_name: str) -> None:
    """The box is 40 px wide and 20, 40 or 200 px high: small up to 32^2, medium up to 96^2."""
    box = torch.tensor([[0.5, 0.5, 0.8 if range_name == "large" else 0.6, 0.7]])
    result = evaluate(image(box, box, size_px))
    found = {name: result[f"map_{name}"].item() for name in ("small", "medium", "large")}
    assert found.pop(range_name) == 1
    assert all(map(math.isnan, found.values()))


def test_difficult_objects_are_crowds() -> None:
    box, other = torch.tensor([[0.0, 0.0, 0.25, 0.25]]), torch.tensor([[0.5, 0.5, 0.75, 0.75]])
    plain = image(box, box)
    missed = image(other, torch.zeros(0, 4), difficult=True)
    found_twice = image(other, torch.cat([other, other]), size_px=(256, 256), difficult=True)
    assert evaluate(plain, missed, found_twice)["map"] == 1
    assert evaluate(plain, image(other, torch.zeros(0, 4), size_px=(256, 256)))["map"] < 1


def test_nothing_to_find_is_nan_and_nothing_found_is_zero() -> None:
    none, box = torch.zeros(0, 4), torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    with no_warnings():
        for result in (evaluate(), evaluate(image(none, box))):
            assert result["map"].shape == ()
            assert all(value.isnan() for value in result.values())
        result = evaluate(image(box, none))
    assert result["map"] == result["map_50"] == result["mar_200"] == 0
