"""What the VOC metric adds to the rule: batches, duplicates, empty sides, types and borders."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.no_warnings import no_warnings
from helpers.targets import make_target
from ssd_lightning.errors import ConfigurationError, DataError
from ssd_lightning.metrics import COCOMeanAveragePrecision, VOCMeanAveragePrecision
from ssd_lightning.types import Detections, Target

NUM_CLASSES = 4


def nothing(image_id: str = "empty") -> tuple[Detections, Target]:
    target = make_target([], image_id=image_id)
    return Detections(boxes=target["boxes"], scores=torch.zeros(0), labels=target["labels"]), target


def evaluate(preds: list, targets: list, batch_size: int = 1000, num_classes: int = NUM_CLASSES) -> dict:
    metric = VOCMeanAveragePrecision(num_classes)
    for start in range(0, len(preds), batch_size):
        metric.update(preds[start : start + batch_size], targets[start : start + batch_size])
    return metric.compute()


def assert_same(result: dict, expected: dict) -> None:
    assert result.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(result[name], expected[name], rtol=0, atol=0, equal_nan=True)


def test_reference_vectors(reference_dir: Path) -> None:
    data = np.load(reference_dir / "voc_ap_0.npz")

    def column(name: str, image: int) -> torch.Tensor:
        return torch.from_numpy(data[f"{name}_{image}"])

    preds, targets = [], []
    for i in range(60):
        boxes, found = column("gt_boxes", i) / 512, column("det_boxes", i) / 512
        preds.append(Detections(boxes=found, scores=column("det_scores", i), labels=column("det_labels", i) + 1))
        target = make_target(boxes, column("gt_labels", i) + 1, image_id=str(i))
        targets.append(target | {"difficult": column("gt_difficult", i)})
    result = evaluate(preds, targets, batch_size=7, num_classes=20)
    assert set(result) == {"map_11point", "map_area", "ap_11point", "ap_area"}
    for name, value in result.items():
        np.testing.assert_allclose(value.numpy(), data[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_neither_batches_nor_order_of_images_count(draw, batch_size: int) -> None:
    preds, targets = draw(50, NUM_CLASSES, seed=1, score_steps=2)  # two scores only: nearly all are ties
    assert_same(evaluate(preds[::-1], targets[::-1], batch_size=batch_size), evaluate(preds, targets))


def test_first_occurrence_of_an_image_counts(draw) -> None:
    preds, targets = draw(20, NUM_CLASSES, seed=2)
    worse = [nothing()[0]] * 3
    assert_same(evaluate(preds + worse, targets + targets[:3], batch_size=4), evaluate(preds, targets))
    worse_first = worse + preds, targets[:3] + targets
    assert_same(evaluate(*worse_first), evaluate(worse + preds[3:], targets))


def test_mean_leaves_classes_without_objects_out(draw) -> None:
    preds, targets = draw(20, NUM_CLASSES, seed=3)
    narrow, wide = evaluate(preds, targets), evaluate(preds, targets, num_classes=NUM_CLASSES + 2)
    assert wide["ap_area"].isnan().tolist() == [False] * NUM_CLASSES + [True, True]
    assert wide["map_area"] == narrow["map_area"] == narrow["ap_area"].mean()
    assert wide["map_11point"] == narrow["map_11point"] == narrow["ap_11point"].mean()


@pytest.mark.parametrize("updates", [[], [()], [(), (nothing(),)]])
def test_no_images_or_empty_ones_are_nan_without_a_word(updates: list) -> None:
    metric = VOCMeanAveragePrecision(NUM_CLASSES)
    with no_warnings():
        for pairs in updates:
            metric.update([pred for pred, _ in pairs], [target for _, target in pairs])
        result = metric.compute()
    assert result["ap_area"].shape == result["ap_11point"].shape == (NUM_CLASSES,)
    assert all(value.isnan().all() for value in result.values())


def test_a_single_class_keeps_its_axis(draw) -> None:
    """torchmetrics squeezes it, also in the result of `forward` and after pickling."""
    metric = VOCMeanAveragePrecision(1)
    batch_result = metric(*draw(5, 1, seed=6))
    for result in (batch_result, metric.compute(), pickle.loads(pickle.dumps(metric)).compute()):
        assert result["ap_area"].shape == result["ap_11point"].shape == (1,)
        assert result["map_area"].shape == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_of_the_network(draw, dtype: torch.dtype) -> None:
    preds, targets = draw(20, NUM_CLASSES, seed=7)  # sixteenths and eighths: exact in every type
    cast = [Detections(boxes=p["boxes"].to(dtype), scores=p["scores"].to(dtype), labels=p["labels"]) for p in preds]
    result = evaluate(cast, targets)
    assert result["map_area"].dtype == torch.float32
    assert_same(result, evaluate(preds, targets))


def test_threshold_reset_and_repeated_compute(draw) -> None:
    preds, targets = draw(20, NUM_CLASSES, seed=9)
    strict = VOCMeanAveragePrecision(NUM_CLASSES, iou_threshold=0.9)
    strict.update(preds, targets)
    assert strict.compute()["map_area"] < evaluate(preds, targets)["map_area"]
    assert_same(strict.compute(), strict.compute())
    strict.reset()
    assert strict.compute()["map_area"].isnan()


@pytest.mark.parametrize(("side", "label"), [("detected", 0), ("annotated", 5)])
def test_labels_outside_the_classes_are_refused(side: str, label: int) -> None:
    labels = {"detected": 1, "annotated": 1, side: label}
    target = make_target([[0, 0, 1, 1]], [labels["annotated"]], image_id="000123")
    pred = {"boxes": target["boxes"], "scores": torch.ones(1), "labels": torch.tensor([labels["detected"]])}
    with pytest.raises(DataError, match=rf"'000123': {side} class {label} is outside 1..{NUM_CLASSES}"):
        VOCMeanAveragePrecision(NUM_CLASSES).update([pred], [target])


@pytest.mark.parametrize(
    ("side", "column"),
    [("detections", "scores"), ("detections", "labels"), ("target", "labels"), ("target", "difficult")],
)
def test_columns_of_an_image_do_not_reach_into_the_next(side: str, column: str) -> None:
    images = {
        "target": [make_target([[0, 0, 1, 1]] * 2, image_id=name) for name in "ab"],
        "detections": [{"boxes": torch.rand(2, 4), "scores": torch.ones(2), "labels": torch.tensor([1, 1])}] * 2,
    }
    first, second = images[side]
    rows = torch.cat([first[column], second[column]])
    images[side] = [first | {column: rows[:3]}, second | {column: rows[3:]}]
    with pytest.raises(DataError, match=f"image 'a': '{column}' of the {side} has the shape"):
        VOCMeanAveragePrecision(NUM_CLASSES).update(images["detections"], images["target"])


@pytest.mark.parametrize("arguments", [(0,), (2.0,), ("2",), (2, 0), (2, 1.5), (2, "0.5")])
def test_arguments_out_of_range_are_refused(arguments: tuple) -> None:
    with pytest.raises(ConfigurationError, match="it must be a"):
        VOCMeanAveragePrecision(*arguments)


def test_boxes_scores_and_labels_are_enough(draw) -> None:
    preds, targets = draw(9, NUM_CLASSES, seed=0, score_steps=10_000)
    bare = [{"boxes": target["boxes"], "labels": target["labels"]} for target in targets]
    none_difficult = [target | {"difficult": torch.zeros_like(target["difficult"])} for target in targets]
    assert_same(evaluate(preds, bare, batch_size=2), evaluate(preds, none_difficult))
    metric = VOCMeanAveragePrecision(NUM_CLASSES)
    for number, (pred, target) in enumerate(zip(preds, bare, strict=True)):
        metric([pred], [target | {"image_id": number}] if number < 2 else [target])  # numbers, as COCO has them
    assert_same(metric.compute(), evaluate(preds, none_difficult))
    with pytest.raises(DataError, match=r"image '1 of the batch': detected class 9 is outside"):
        metric.update([preds[0], preds[1] | {"labels": preds[1]["labels"] * 0 + 9}], bare[:2])
    with pytest.raises(ValueError, match="target 0 of the batch has no size_px"):
        COCOMeanAveragePrecision().update(preds[:1], bare[:1])


def test_images_without_names_give_the_same_result_again_and_none_is_lost(draw) -> None:
    preds, targets = draw(30, NUM_CLASSES, seed=3)  # many equal scores
    bare = [{"boxes": target["boxes"], "labels": target["labels"]} for target in targets]
    expected = evaluate(preds, bare)
    assert_same(evaluate(preds, bare, batch_size=7), expected)
    metric, other = VOCMeanAveragePrecision(NUM_CLASSES), VOCMeanAveragePrecision(NUM_CLASSES)
    metric.update(preds[:10], bare[:10])
    other.update(preds[10:], bare[10:])
    metric.merge_state(other)
    assert len(metric.evaluation().sizes_px) == len(targets)
    metric.reset()
    metric.update(preds, bare)
    assert_same(metric.compute(), expected)


def test_detections_of_another_image_are_refused() -> None:
    pred, target = nothing("a")
    metric = VOCMeanAveragePrecision(NUM_CLASSES)
    with pytest.raises(ValueError, match="image 'b' for the target of 'a'"):
        metric.update([pred | {"image_id": "b"}], [target])
    metric.update([pred | {"image_id": 1}], [target | {"image_id": "1"}])  # a number is the name of the same image
    with pytest.raises(ValueError, match="1 images but targets of 2"):
        metric.update([pred], [target, target])
