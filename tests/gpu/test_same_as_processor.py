"""A GPU finds what the processor finds, on the same inputs.

Without a GPU the processor is held against itself going the ways that only an accelerator takes.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from pytorch_lightning.utilities import move_data_to_device
from torch import Tensor
from torchvision.ops import box_iou

from helpers.random_ssd import random_output, random_targets, trained_like_output
from helpers.tiny_nets import tiny_net
from ssd_lightning.inference.detector import Detector
from ssd_lightning.losses import (
    ArgmaxMatcher,
    BipartiteMatcher,
    CrossEntropy,
    FocalLoss,
    HardNegativeCrossEntropy,
    IoULoss,
    Matcher,
    MultiBoxLoss,
    SmoothL1Loss,
)
from ssd_lightning.metrics.coco import COCOMeanAveragePrecision
from ssd_lightning.metrics.prior_errors import prior_errors
from ssd_lightning.metrics.voc import VOCMeanAveragePrecision
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.ops import rows
from ssd_lightning.ops.nms import Decay
from ssd_lightning.ops.priors import SSD300_VOC, make_priors
from ssd_lightning.types import Detections, SSDOutput, Target

pytestmark = pytest.mark.gpu

NUM_CLASSES = 20
PRIORS = make_priors(SSD300_VOC, 300)


@contextmanager
def accelerator() -> Iterator[torch.device]:
    """Give the GPU in strict float32, or make an accelerator of the processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.cudnn, "allow_tf32", False)
        if torch.cuda.is_available():
            yield torch.device("cuda")
            return
        patch.setattr(rows, "HOST_DEVICES", ())
        yield torch.device("cpu")


def some_targets(boxes: tuple[int, int] = (1, 12)) -> list[Target]:
    targets = random_targets(7, NUM_CLASSES, boxes)
    targets[3] |= {name: targets[3][name][:0] for name in ("boxes", "labels", "difficult")}  # type: ignore[literal-required]
    return targets


def share_found(found: Detections, expected: Detections) -> float:
    """Which share of the expected detections has one of the same class, place and score."""
    if not len(expected["scores"]):
        return 1.0
    same = box_iou(expected["boxes"], found["boxes"]) > 0.999
    same &= expected["labels"][:, None] == found["labels"]
    same &= (expected["scores"][:, None] - found["scores"]).abs() < 1e-4
    return float(same.any(dim=1).float().mean())


@pytest.mark.parametrize("boxes", [(1, 12), (40, 60)], ids=["few", "many"])
@pytest.mark.parametrize("matcher", [BipartiteMatcher(), ArgmaxMatcher()], ids=str)
def test_matches(matcher: Matcher, boxes: tuple[int, int]) -> None:
    targets = some_targets(boxes)
    expected = matcher(targets, PRIORS)
    with accelerator() as device:
        found = matcher(targets, PRIORS.to(device))
    assert (expected.labels > 0).sum() > 100
    assert torch.equal(found.labels.cpu(), expected.labels)
    assert torch.equal(found.box_index.cpu(), expected.box_index)


def losses_and_gradients(
    loss: MultiBoxLoss, output: SSDOutput, targets: list[Target], device: torch.device
) -> tuple[dict[str, float], list[Tensor]]:
    leaves = [tensor.detach().to(device).requires_grad_() for tensor in output[:2]]
    output = SSDOutput(*leaves, output.priors_cxcywh.to(device))
    assignment = loss.matcher(targets, output.priors_cxcywh)
    values = loss.compare(output, assignment)
    gradients = torch.autograd.grad(values["loss_box"] + values["loss_cls"], leaves)
    values |= prior_errors(output, assignment)
    return {name: value.item() for name, value in values.items()}, [gradient.cpu() for gradient in gradients]


LOSSES = [
    *({"box_loss": loss} for loss in (SmoothL1Loss(), SmoothL1Loss(0), *map(IoULoss, ("giou", "diou", "ciou")))),
    *({"class_loss": loss} for loss in (CrossEntropy(), FocalLoss())),
    *({"class_loss": HardNegativeCrossEntropy(3, count, "foreground")} for count in (0, 5)),
    {"normalizer": "positives_per_image"},
]


@pytest.mark.parametrize("settings", LOSSES, ids=lambda settings: "-".join(map(str, settings.values())))
def test_losses_and_their_gradients(settings: dict[str, object]) -> None:
    loss, targets = MultiBoxLoss(**settings).train(), some_targets()  # type: ignore[arg-type]
    output = random_output(len(targets), PRIORS, NUM_CLASSES)
    expected, (boxes, logits) = losses_and_gradients(loss, output, targets, torch.device("cpu"))
    with accelerator() as device:
        found, (found_boxes, found_logits) = losses_and_gradients(loss, output, targets, device)
    assert found == pytest.approx(expected, rel=1e-4)
    assert expected["loss_box"] > 0
    assert expected["loss_cls"] > 0
    torch.testing.assert_close(found_boxes, boxes, rtol=1e-3, atol=1e-6)
    # Of two negatives that are equally hard but for a rounding, either may be the last that teaches.
    assert (found_logits - logits).norm() < 0.05 * logits.norm()


@pytest.mark.parametrize(
    ("logits", "soft_nms", "class_agnostic"),
    [
        *(("random", None, True), ("random", "linear", False), ("random", "gaussian", True)),
        *(("trained", None, False), ("trained", "linear", True), ("trained", "gaussian", False)),
    ],
)
def test_detections(logits: str, soft_nms: Decay | None, class_agnostic: bool) -> None:
    make = random_output if logits == "random" else trained_like_output
    output = make(3, PRIORS, NUM_CLASSES)
    top_k = 200 if logits == "trained" else 40
    box_voting = 0.65 if soft_nms == "gaussian" else None
    postprocess = PostProcess(soft_nms=soft_nms, class_agnostic=class_agnostic, top_k=top_k, box_voting=box_voting)
    expected = postprocess(output)
    with accelerator() as device:
        found = move_data_to_device(postprocess(move_data_to_device(output, device)), torch.device("cpu"))
    assert all(len(one["scores"]) > 0 for one in expected)
    for one, other in zip(found, expected, strict=True):
        assert abs(len(one["scores"]) - len(other["scores"])) <= 2
        assert share_found(one, other) > 0.99
        assert share_found(other, one) > 0.99


@pytest.mark.parametrize(
    "metric", [VOCMeanAveragePrecision(NUM_CLASSES), COCOMeanAveragePrecision()], ids=["voc", "coco"]
)
def test_mean_average_precision(metric: VOCMeanAveragePrecision | COCOMeanAveragePrecision) -> None:
    targets = some_targets()
    noise = torch.Generator().manual_seed(0)
    detections = [
        Detections(
            boxes=(target["boxes"] + 0.02 * torch.randn(target["boxes"].shape, generator=noise)).clamp(0, 1),
            scores=torch.rand(len(target["labels"]), generator=noise),
            labels=target["labels"],
        )
        for target in targets
    ]
    metric.update(detections, targets)
    expected = metric.compute()
    metric.reset()
    with accelerator() as device:
        metric.to(device).update(move_data_to_device(detections, device), targets)
        found = metric.compute()
        assert found["map_area" if "map_area" in found else "map"].device.type == device.type
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].cpu(), value.cpu(), rtol=0, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_detector_finds_the_same(precision: str) -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (5, 50, 70, 3), dtype=np.uint8))
    net = tiny_net(num_classes=3)
    with torch.no_grad():
        for convolution in net.head.cls:
            convolution.weight *= 10  # so that scores differ
    settings = {"class_names": ["a", "b", "c"], "precision": precision}
    expected = Detector(net, **settings)(images)  # type: ignore[arg-type]
    with accelerator() as device:
        found = Detector(net.to(device), **settings)(images)  # type: ignore[arg-type]
    assert sum(len(one.scores) for one in expected) > 50
    for one, other in zip(found, expected, strict=True):
        shared = min(len(one.scores), len(other.scores))
        assert abs(len(one.scores) - len(other.scores)) <= (1 if precision == "float32" else 0.1 * shared)
        tolerance = 1e-4 if precision == "float32" else 3e-2
        np.testing.assert_allclose(one.scores[:shared], other.scores[:shared], rtol=0, atol=tolerance)
