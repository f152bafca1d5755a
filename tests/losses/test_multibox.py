import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from helpers.random_ssd import random_output
from helpers.targets import draw_boxes, make_target
from ssd_lightning.errors import ConfigurationError, DataError
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
from ssd_lightning.losses.class_losses import hardest_negatives
from ssd_lightning.ops import rows
from ssd_lightning.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ssd_lightning.ops.coder import encode
from ssd_lightning.ops.priors import SSD300_VOC, PriorLevel, make_priors
from ssd_lightning.types import SSDOutput, Target

NUM_CLASSES = 3
CLASS_LOSSES = [HardNegativeCrossEntropy(), CrossEntropy(), FocalLoss()]
BOX_LOSSES = [SmoothL1Loss(), SmoothL1Loss(beta=0), IoULoss("giou"), IoULoss("diou"), IoULoss("ciou")]
PRIORS = make_priors([PriorLevel(4, None, 60, 90, (2,)), PriorLevel(2, None, 150, None, ())], 300)  # 64 + 4


def draw(counts: Sequence[int]) -> tuple[SSDOutput, list[Target]]:
    """Draw the output for a batch of images with so many objects, and their targets."""
    generator = torch.Generator().manual_seed(len(counts))
    targets = []
    for count in counts:
        boxes = draw_boxes(count, generator, (0.1, 0.5))
        targets.append(make_target(boxes, torch.randint(1, NUM_CLASSES + 1, (count,), generator=generator)))
    return random_output(len(counts), PRIORS, NUM_CLASSES), targets


def gradients(losses: dict[str, Tensor], output: SSDOutput) -> tuple[Tensor, ...]:
    total = losses["loss_box"] + losses["loss_cls"]
    return torch.autograd.grad(total, [output.box_offsets, output.class_logits])


def paper_sums(
    output: SSDOutput,
    targets: list[Target],
    matcher: Matcher,
    ratio: float = 3,
    least: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """The paper's formulas, an image at a time: summed box loss, summed class loss and positives `[B]` of each."""
    sums = []
    assignment = matcher(targets, PRIORS)
    for image, target in enumerate(targets):
        labels = assignment.labels[image]
        positive = labels > 0
        boxes = xyxy_to_cxcywh(target["boxes"][assignment.box_index[image, positive]])
        offsets = encode(boxes, PRIORS[positive])
        box_loss = F.smooth_l1_loss(output.box_offsets[image, positive], offsets, reduction="sum")
        entropy = F.cross_entropy(output.class_logits[image], labels, reduction="none")
        num_negatives = max(int(ratio * positive.sum()), least)
        hardest = entropy[~positive].sort(descending=True).values[:num_negatives]
        sums.append((box_loss, entropy[positive].sum() + hardest.sum(), positive.sum()))
    box_losses, class_losses, positives = (torch.stack(column) for column in zip(*sums, strict=True))
    return box_losses, class_losses, positives


@pytest.mark.parametrize("counts", [(0,), (3, 0), (4, 6, 2), (90,)])  # the last: more objects than priors
@pytest.mark.parametrize("matcher", [BipartiteMatcher(), ArgmaxMatcher()], ids=str)
@pytest.mark.parametrize(("ratio", "least"), [(3, 0), (2.5, 5)])
def test_loss_is_that_of_the_paper(counts: tuple[int, ...], matcher, ratio: float, least: int) -> None:
    output, targets = draw(counts)
    losses = MultiBoxLoss(matcher=matcher, class_loss=HardNegativeCrossEntropy(ratio, least))(output, targets)
    box_losses, class_losses, positives = paper_sums(output, targets, matcher, ratio, least)
    count = positives.sum().clamp(min=1)
    expected = {"loss_box": box_losses.sum() / count, "loss_cls": class_losses.sum() / count}
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients(losses, output), gradients(expected, output), rtol=1e-4, atol=1e-6)


def test_loss_and_gradients_are_those_of_the_reference(reference_dir: Path) -> None:
    reference = np.load(reference_dir / "multibox_0.npz")
    targets = [make_target(reference[f"gt_boxes_{i}"], reference[f"gt_labels_{i}"] + 1) for i in range(8)]
    offsets, logits = (torch.from_numpy(reference[name]).requires_grad_() for name in ("loc", "conf"))
    output = SSDOutput(offsets, logits, make_priors(SSD300_VOC, 300, clip=True))
    losses = MultiBoxLoss(matcher=ArgmaxMatcher())(output, targets)
    norms = [each.norm() for each in gradients(losses, output)]
    expected = [float(reference[name]) for name in ("loss_loc", "loss_conf", "grad_loc_norm", "grad_conf_norm")]
    assert [each.item() for each in (*losses.values(), *norms)] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boxes": [[10, 20, 110, 80], [0, 0, 300, 300]]}, r"image 'a': the box \(10, 20, 110, 80\) is not normalised"),
        ({"labels": [1, 0]}, "image 'a': annotated class 0 is outside 1..3"),
        ({"labels": [NUM_CLASSES + 1, 1]}, "image 'a': annotated class 4 is outside 1..3"),
        ({"labels": [1]}, r"image 'a': 'labels' of the target has the shape \[1\]; it must be \[2\]"),
        ({"boxes": [[0.1, 0.2]] * 4}, r"image 'a': 'boxes' of the target has the shape \[4, 2\]; it must be \[N, 4\]"),
        ({"boxes": np.zeros((2, 4))}, "image 'a': 'boxes' of the target is of type ndarray, not a tensor"),
        ({"labels": None}, "image 'a': 'labels' of the target is of type NoneType"),
    ],
)
def test_ground_truth_that_would_teach_nothing_is_refused(changes: dict, message: str) -> None:
    output, targets = draw([0, 2])
    made = {name: torch.tensor(value) if isinstance(value, list) else value for name, value in changes.items()}
    targets[1] |= made  # type: ignore[typeddict-item]
    with pytest.raises(DataError, match=message):
        MultiBoxLoss()(output, targets)


@pytest.mark.parametrize(
    ("name", "part", "shape"),
    [
        ("class_loss", lambda logits, labels: CrossEntropy()(logits, labels).mean(), "[]"),
        ("class_loss", lambda logits, labels: CrossEntropy()(logits, labels)[..., None], "[2, 68, 1]"),
        ("box_loss", lambda *arguments: SmoothL1Loss()(*arguments).mean(), "[]"),
        ("box_loss", lambda *arguments: SmoothL1Loss()(*arguments)[:, None], "[1, 1]"),
        ("matcher", lambda targets, priors: BipartiteMatcher()(targets[:1], priors), "[1, 68]"),
    ],
)
def test_a_part_of_another_shape_is_refused(name: str, part: Callable[..., object], shape: str) -> None:
    output, targets = draw([0, 1])
    targets[1]["boxes"] = cxcywh_to_xyxy(PRIORS[-1:])  # a single positive
    with pytest.raises(
        ConfigurationError, match=rf"loss.{name} gives a tensor of the shape {re.escape(shape)}; it must"
    ):
        MultiBoxLoss(**{name: part})(output, targets)


def test_each_image_has_a_target() -> None:
    output, targets = draw([2, 1])
    with pytest.raises(DataError, match="got 1 targets for the network's output of 2 images"):
        MultiBoxLoss()(output, targets[:1])


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.float32])
def test_labels_of_other_types_count_as_whole_numbers(dtype: torch.dtype) -> None:
    output, targets = draw([2, 1])
    others = [target | {"labels": target["labels"].to(dtype)} for target in targets]
    assert MultiBoxLoss()(output, others) == MultiBoxLoss()(output, targets)


def test_half_precision_output_gives_a_float32_loss() -> None:
    output, targets = draw([3, 1])
    half = SSDOutput(output.box_offsets.bfloat16(), output.class_logits.bfloat16(), PRIORS)
    full = SSDOutput(half.box_offsets.float(), half.class_logits.float(), PRIORS)
    with torch.autocast("cpu", torch.bfloat16):
        losses = MultiBoxLoss()(half, targets)
    assert losses["loss_box"].dtype is losses["loss_cls"].dtype is torch.float32
    torch.testing.assert_close(losses, MultiBoxLoss()(full, targets))


@pytest.mark.parametrize(
    ("ratio", "min_negatives", "chosen"),
    [(0, 0, 0), (1.5, 0, 3), (0.9, 0, 1), (100, 0, 8), (1, 5, 5), (3, 5, 6), (0, 100, 8)],
)
def test_number_of_negatives(ratio: float, min_negatives: int, chosen: int) -> None:
    """At most `ratio` a positive (the paper's words), at least `min_negatives`, and no more than there are.

    What is chosen in an image does not depend on the others.
    """
    loss = torch.tensor([[5.0, 9, 1, 2, 3, 4, 8, 0, 7, 6]])
    positive = torch.zeros(2, 10, dtype=torch.bool)
    positive[0, [1, 6]] = True
    negative = hardest_negatives(torch.cat([loss, 100 * loss]), positive, ratio, min_negatives)
    hardest = [k for k in loss[0].argsort(descending=True).tolist() if k not in (1, 6)]
    assert set(negative[0].nonzero().flatten().tolist()) == set(hardest[:chosen])
    assert negative[1].sum() == min(min_negatives, 10)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (BipartiteMatcher, {"loss.matcher.iou_threshold": 0.0}),
        (ArgmaxMatcher, {"loss.matcher.iou_threshold": 1.5}),
        (SmoothL1Loss, {"loss.box_loss.beta": -1}),
        (SmoothL1Loss, {"loss.box_loss.variances": 0.1}),
        (IoULoss, {"loss.box_loss.variances": None}),
        (IoULoss, {"loss.box_loss.overlap": "iou"}),
        (HardNegativeCrossEntropy, {"loss.class_loss.negative_ratio": -1}),
        (HardNegativeCrossEntropy, {"loss.class_loss.min_negatives": 2.5}),
        (HardNegativeCrossEntropy, {"loss.class_loss.mining_score": "chance"}),
        (FocalLoss, {"loss.class_loss.alpha": 1.5}),
        (FocalLoss, {"loss.class_loss.gamma": -2}),
        (MultiBoxLoss, {"loss.box_weight": math.nan}),
        (MultiBoxLoss, {"loss.normalizer": "none"}),
        (MultiBoxLoss, {"loss.matcher": "argmax"}),
        (MultiBoxLoss, {"loss.class_loss": FocalLoss}),
        (MultiBoxLoss, {"loss.box_loss": None}),
    ],
    ids=str,
)
def test_settings_that_cannot_work(make: type, settings: dict[str, object]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(ConfigurationError, match=rf"{name} is '?{value}'?; it "):
        make(**{name.rpartition(".")[2]: value})


def test_normalizers_and_the_weight_of_the_boxes() -> None:
    output, targets = draw([4, 0, 1, 6])
    boxes, classes, positives = paper_sums(output, targets, BipartiteMatcher())
    expected = {
        "positives": (boxes.sum() / positives.sum(), classes.sum() / positives.sum()),
        "positives_per_image": ((boxes / positives.clamp(min=1)).mean(), (classes / positives.clamp(min=1)).mean()),
        "batch_size": (boxes.mean(), classes.mean()),
        "priors": (boxes.sum() / (4 * len(PRIORS)), classes.sum() / (4 * len(PRIORS))),
    }
    for name, (of_boxes, of_classes) in expected.items():
        found = MultiBoxLoss(normalizer=name, box_weight=2.5)(output, targets)
        torch.testing.assert_close(found, {"loss_box": 2.5 * of_boxes, "loss_cls": of_classes}, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        *(MultiBoxLoss(box_loss=box_loss) for box_loss in BOX_LOSSES),
        *(MultiBoxLoss(class_loss=class_loss) for class_loss in CLASS_LOSSES),
    ],
    ids=lambda loss: f"{loss.class_loss}-{loss.box_loss}",
)
@pytest.mark.parametrize("counts", [(), (0,), (3, 0, 1)])
def test_every_loss_on_every_batch(
    loss: MultiBoxLoss, counts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A processor looks at the priors that count, an accelerator at all of them; see `ops.rows`."""
    output, targets = draw(counts)
    few = loss(output, targets)
    few_gradients = offsets_grad, logits_grad = gradients(few, output)
    assert few.keys() == {"loss_box", "loss_cls"}
    assert (few["loss_box"] > 0) == (offsets_grad.abs().sum() > 0) == (sum(counts) > 0)
    assert offsets_grad.isfinite().all()
    assert logits_grad.isfinite().all()
    monkeypatch.setattr(rows, "HOST_DEVICES", ())
    every = loss(output, targets)
    torch.testing.assert_close(every, few, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients(every, output), few_gradients, rtol=1e-4, atol=1e-6)


def test_evaluation_waits_for_no_other_rank(monkeypatch) -> None:
    """In training, they count together; see test_distribution.py."""
    output, targets = draw([3])
    expected = MultiBoxLoss()(output, targets)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "all_reduce", lambda count: pytest.fail("it waits"))
    torch.testing.assert_close(MultiBoxLoss().eval()(output, targets), expected)
