import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from helpers.boxes import draw_boxes, make_target
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.losses import (
    ArgmaxMatcher,
    BipartiteMatcher,
    BoxLoss,
    CrossEntropy,
    FocalLoss,
    HardNegativeCrossEntropy,
    IoULoss,
    MultiBoxLoss,
    SmoothL1Loss,
)
from ssd_lightning.losses.class_losses import hardest_negatives
from ssd_lightning.ops import rows
from ssd_lightning.ops.boxes import xyxy_to_cxcywh
from ssd_lightning.ops.coder import encode
from ssd_lightning.ops.matching import Assignment
from ssd_lightning.ops.priors import SSD300_VOC, PriorLevel, make_priors
from ssd_lightning.types import SSDOutput, Target

NUM_CLASSES = 3
MATCHERS = {"bipartite": BipartiteMatcher(), "argmax": ArgmaxMatcher()}
CLASS_LOSSES = [HardNegativeCrossEntropy(), CrossEntropy(), FocalLoss()]
BOX_LOSSES = [SmoothL1Loss(), SmoothL1Loss(beta=0), IoULoss("giou"), IoULoss("diou"), IoULoss("ciou")]
PRIORS = make_priors([PriorLevel(4, None, 60, 90, (2,)), PriorLevel(2, None, 150, None, ())], 300)  # 64 + 4


def draw_targets(counts: Sequence[int], seed: int) -> list[Target]:
    generator = torch.Generator().manual_seed(seed)
    targets = []
    for count in counts:
        boxes = draw_boxes(count, generator, (0.1, 0.5))
        targets.append(make_target(boxes, torch.randint(1, NUM_CLASSES + 1, (count,), generator=generator)))
    return targets


def draw_output(batch: int, seed: int, priors: Tensor = PRIORS, num_classes: int = NUM_CLASSES) -> SSDOutput:
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.randn(batch, len(priors), 4, generator=generator, requires_grad=True)
    logits = torch.randn(batch, len(priors), num_classes + 1, generator=generator, requires_grad=True)
    return SSDOutput(offsets, logits, priors)


def wanted_offsets(assignment: Assignment, priors: Tensor = PRIORS) -> Tensor:
    boxes, priors = assignment.matched_boxes(priors)
    return encode(xyxy_to_cxcywh(boxes), priors).view(*assignment.labels.shape, 4)


def gradients(losses: dict[str, Tensor], output: SSDOutput) -> tuple[Tensor, ...]:
    total = losses["loss_box"] + losses["loss_cls"]
    return torch.autograd.grad(total, [output.box_offsets, output.class_logits])


# The oracle: the paper's formulas, one prior, one box and one coordinate at a time, in plain Python.


def jaccard(box: list[float], prior: list[float]) -> float:
    cx, cy, w, h = prior
    other = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    common = max(width, 0) * max(height, 0)
    return common / ((box[2] - box[0]) * (box[3] - box[1]) + w * h - common)


def match_one_image(boxes: list[list[float]], priors: list[list[float]], matcher: str) -> dict[int, int]:
    """Prior -> box."""
    overlap = [[jaccard(box, prior) for prior in priors] for box in boxes]
    matched = {}
    for k in range(len(priors)):
        best = max(range(len(boxes)), key=lambda n: overlap[n][k], default=None)
        if best is not None and overlap[best][k] >= 0.5:
            matched[k] = best
    if matcher == "argmax":
        for n in range(len(boxes)):
            matched[max(range(len(priors)), key=lambda k: overlap[n][k])] = n
    else:
        pairs = {(n, k) for n in range(len(boxes)) for k in range(len(priors)) if overlap[n][k] > 0}
        while pairs:
            box, prior = max(pairs, key=lambda pair: overlap[pair[0]][pair[1]])
            matched[prior] = box
            pairs = {(n, k) for n, k in pairs if n != box and k != prior}
    return matched


def oracle(
    output: SSDOutput, targets: list[Target], matcher: str, ratio: float, min_negatives: int
) -> dict[str, Tensor]:
    priors = output.priors_cxcywh.tolist()
    loc, conf, num_positive = torch.zeros(()), torch.zeros(()), 0
    for offsets, logits, target in zip(output.box_offsets, output.class_logits, targets, strict=True):
        boxes, labels = target["boxes"].tolist(), target["labels"].tolist()
        matched = match_one_image(boxes, priors, matcher)
        num_positive += len(matched)
        for k, n in matched.items():
            x1, y1, x2, y2 = boxes[n]
            cx, cy, w, h = priors[k]
            wanted = [
                ((x1 + x2) / 2 - cx) / w / 0.1,
                ((y1 + y2) / 2 - cy) / h / 0.1,
                math.log((x2 - x1) / w) / 0.2,
                math.log((y2 - y1) / h) / 0.2,
            ]
            for coordinate in range(4):
                distance = (offsets[k, coordinate] - wanted[coordinate]).abs()
                loc = loc + (0.5 * distance**2 if distance < 1 else distance - 0.5)
            conf = conf - (logits[k, labels[n]] - logits[k].exp().sum().log())
        background = [logits[k].exp().sum().log() - logits[k, 0] for k in range(len(priors)) if k not in matched]
        background.sort(key=lambda loss: loss.item(), reverse=True)
        for loss in background[: max(int(ratio * len(matched)), min_negatives)]:
            conf = conf + loss
    return {"loss_box": loc / max(num_positive, 1), "loss_cls": conf / max(num_positive, 1)}


@pytest.mark.parametrize("counts", [(0,), (3, 0), (4, 6, 2)])
@pytest.mark.parametrize("matcher", MATCHERS)
@pytest.mark.parametrize(("ratio", "min_negatives"), [(3, 0), (2.5, 5)])
def test_loss_is_that_of_the_paper(counts: tuple[int, ...], matcher: str, ratio: float, min_negatives: int) -> None:
    output, targets = draw_output(len(counts), seed=sum(counts)), draw_targets(counts, seed=len(counts))
    class_loss = HardNegativeCrossEntropy(ratio, min_negatives)
    loss = MultiBoxLoss(matcher=MATCHERS[matcher], class_loss=class_loss)
    losses, expected = loss(output, targets), oracle(output, targets, matcher, ratio, min_negatives)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    if sum(counts):
        torch.testing.assert_close(gradients(losses, output), gradients(expected, output), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("matcher", MATCHERS)
def test_a_crowd(matcher: str) -> None:
    """More objects than priors."""
    output, targets = draw_output(1, seed=1, priors=PRIORS[-4:]), draw_targets([9], seed=1)
    losses = MultiBoxLoss(matcher=MATCHERS[matcher])(output, targets)
    torch.testing.assert_close(losses, oracle(output, targets, matcher, 3, 0), rtol=1e-5, atol=1e-5)


def test_loss_and_gradients_are_those_of_the_reference(reference_dir: Path) -> None:
    reference = np.load(reference_dir / "multibox_0.npz")
    targets = [make_target(reference[f"gt_boxes_{i}"], reference[f"gt_labels_{i}"] + 1) for i in range(8)]
    offsets, logits = (torch.from_numpy(reference[name]).requires_grad_() for name in ("loc", "conf"))
    output = SSDOutput(offsets, logits, make_priors(SSD300_VOC, 300, clip=True))
    losses = MultiBoxLoss(matcher=ArgmaxMatcher())(output, targets)
    assert losses["loss_box"].item() == pytest.approx(float(reference["loss_loc"]), rel=1e-5)
    assert losses["loss_cls"].item() == pytest.approx(float(reference["loss_conf"]), rel=1e-5)
    offsets_grad, logits_grad = gradients(losses, output)
    assert offsets_grad.norm().item() == pytest.approx(float(reference["grad_loc_norm"]), rel=1e-5)
    assert logits_grad.norm().item() == pytest.approx(float(reference["grad_conf_norm"]), rel=1e-5)


@pytest.mark.parametrize(("batch", "min_negatives"), [(0, 5), (3, 0), (3, 5)])
def test_without_objects(batch: int, min_negatives: int) -> None:
    output = draw_output(batch, seed=0)
    losses = MultiBoxLoss(class_loss=HardNegativeCrossEntropy(min_negatives=min_negatives))(
        output, draw_targets([0] * batch, seed=0)
    )
    offsets_grad, logits_grad = gradients(losses, output)
    assert losses["loss_box"] == 0
    assert offsets_grad.abs().sum() == 0
    assert losses["loss_cls"].isfinite()
    taught = (logits_grad.abs().sum(-1) > 0).sum().item()
    assert taught == batch * min_negatives
    assert (losses["loss_cls"] > 0) == (taught > 0)


@pytest.mark.parametrize("num_classes", [1, 20])
def test_first_confidence_loss_is_four_times_log_of_the_classes(num_classes: int) -> None:
    priors = make_priors(SSD300_VOC, 300)
    output = SSDOutput(torch.zeros(2, 8732, 4), torch.zeros(2, 8732, num_classes + 1), priors)
    targets = [make_target([[0.1, 0.2, 0.5, 0.9], [0.3, 0.3, 0.4, 0.4]], [1, 1]), make_target([[0, 0, 1, 1]], [1])]
    assert MultiBoxLoss()(output, targets)["loss_cls"].item() == pytest.approx(4 * math.log(num_classes + 1), rel=1e-5)


def test_perfect_boxes_have_no_loss_and_alpha_weighs() -> None:
    output, targets = draw_output(2, seed=0), draw_targets([2, 1], seed=0)
    once, twice = MultiBoxLoss()(output, targets), MultiBoxLoss(box_weight=2.5)(output, targets)
    torch.testing.assert_close(twice, {"loss_box": 2.5 * once["loss_box"], "loss_cls": once["loss_cls"]})
    prior = PRIORS[20]
    box = torch.cat([prior[:2] - prior[2:] / 2, prior[:2] + prior[2:] / 2])
    sure = torch.zeros(1, len(PRIORS), NUM_CLASSES + 1)
    sure[..., 0] = 50
    sure[0, 20] = torch.tensor([0.0, 0, 50, 0])
    losses = MultiBoxLoss(matcher=BipartiteMatcher(0.99))(
        SSDOutput(torch.zeros(1, len(PRIORS), 4), sure, PRIORS), [make_target(box[None], [2])]
    )
    assert max(losses["loss_box"], losses["loss_cls"]) < 1e-4


def test_half_precision_output_gives_a_float32_loss() -> None:
    output, targets = draw_output(2, seed=0), draw_targets([3, 1], seed=0)
    half = SSDOutput(output.box_offsets.bfloat16(), output.class_logits.bfloat16(), PRIORS)
    full = SSDOutput(half.box_offsets.float(), half.class_logits.float(), PRIORS)
    with torch.autocast("cpu", torch.bfloat16):
        losses = MultiBoxLoss()(half, targets)
    assert losses["loss_box"].dtype is losses["loss_cls"].dtype is torch.float32
    torch.testing.assert_close(losses, MultiBoxLoss()(full, targets))


@pytest.mark.parametrize(
    ("ratio", "min_negatives", "chosen"),
    [(0, 0, 0), (1, 0, 2), (1.5, 0, 3), (0.9, 0, 1), (3, 0, 6), (100, 0, 8), (1, 5, 5), (3, 5, 6), (0, 100, 8)],
)
def test_number_of_negatives(ratio: float, min_negatives: int, chosen: int) -> None:
    """At most `ratio` a positive (the paper's words), at least `min_negatives`, and no more than there are."""
    loss = torch.tensor([[5.0, 9, 1, 2, 3, 4, 8, 0, 7, 6]])
    positive = torch.zeros(1, 10, dtype=torch.bool)
    positive[0, [1, 6]] = True
    negative = hardest_negatives(loss, positive, ratio, min_negatives)
    hardest = [k for k in loss[0].argsort(descending=True).tolist() if k not in (1, 6)]
    assert set(negative[0].nonzero().flatten().tolist()) == set(hardest[:chosen])


def test_negatives_of_an_image_do_not_depend_on_the_others() -> None:
    loss = torch.rand(3, 50, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [10], [100]])
    positive = torch.zeros(3, 50, dtype=torch.bool)
    positive[0, :4] = positive[2, :1] = True
    assert hardest_negatives(loss, positive, 3).sum(dim=1).tolist() == [12, 0, 3]


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (BipartiteMatcher, {"loss.matcher.iou_threshold": 0.0}),
        (ArgmaxMatcher, {"loss.matcher.iou_threshold": 1.5}),
        (ArgmaxMatcher, {"loss.matcher.iou_threshold": "half"}),
        (SmoothL1Loss, {"loss.box_loss.beta": -1}),
        (IoULoss, {"loss.box_loss.overlap": "iou"}),
        (HardNegativeCrossEntropy, {"loss.class_loss.negative_ratio": -1}),
        (HardNegativeCrossEntropy, {"loss.class_loss.min_negatives": 2.5}),
        (HardNegativeCrossEntropy, {"loss.class_loss.mining_score": "chance"}),
        (FocalLoss, {"loss.class_loss.alpha": 1.5}),
        (FocalLoss, {"loss.class_loss.gamma": -2}),
        (MultiBoxLoss, {"loss.box_weight": math.nan}),
        (MultiBoxLoss, {"loss.normalizer": "none"}),
        (MultiBoxLoss, {"loss.matcher": "argmax"}),
        (MultiBoxLoss, {"loss.class_loss": "focal"}),
        (MultiBoxLoss, {"loss.box_loss": None}),
    ],
    ids=str,
)
def test_settings_that_cannot_work(make: type, settings: dict[str, object]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(ConfigurationError, match=rf"{name} is '?{value}'?; it "):
        make(**{name.rpartition(".")[2]: value})


def slow_sums(output: SSDOutput, targets: list[Target], loss: MultiBoxLoss) -> tuple[Tensor, Tensor, Tensor]:
    """Summed losses and positives `[B]` of each image, by the loss itself on one image at a time."""
    rows = []
    for index, target in enumerate(targets):
        one = SSDOutput(output.box_offsets[index : index + 1], output.class_logits[index : index + 1], PRIORS)
        positives = sum(1 for label in loss.matcher([target], PRIORS).labels[0].tolist() if label)
        losses = loss(one, [target])
        rows.append((losses["loss_box"] * max(positives, 1), losses["loss_cls"] * max(positives, 1), positives))
    loc, cls, positives = zip(*rows, strict=True)
    return torch.stack(loc), torch.stack(cls), torch.tensor(positives)


def test_normalizers() -> None:
    output, targets = draw_output(4, seed=2), draw_targets([4, 0, 1, 6], seed=3)
    loc, cls, positives = slow_sums(output, targets, MultiBoxLoss())
    expected = {
        "positives": (loc.sum() / positives.sum(), cls.sum() / positives.sum()),
        "positives_per_image": ((loc / positives.clamp(min=1)).mean(), (cls / positives.clamp(min=1)).mean()),
        "batch_size": (loc.mean(), cls.mean()),
        "priors": (loc.sum() / (4 * len(PRIORS)), cls.sum() / (4 * len(PRIORS))),
    }
    found = {name: MultiBoxLoss(normalizer=name)(output, targets) for name in expected}
    for name, (of_boxes, of_classes) in expected.items():
        torch.testing.assert_close(found[name], {"loss_box": of_boxes, "loss_cls": of_classes}, rtol=1e-5, atol=1e-6)
    assert len({round(losses["loss_cls"].item(), 4) for losses in found.values()}) == 4


def test_the_loss_of_d2l() -> None:
    """Section 14.7 in its own words: all priors, mean over an image, four numbers a prior in the mean of the boxes."""
    output, targets = draw_output(3, seed=4), draw_targets([2, 0, 5], seed=5)
    loss = MultiBoxLoss(box_loss=SmoothL1Loss(beta=0), class_loss=CrossEntropy(), normalizer="priors", box_weight=0.25)
    wanted = loss.matcher(targets, PRIORS)
    entropies = torch.nn.CrossEntropyLoss(reduction="none")
    cls = entropies(output.class_logits.reshape(-1, NUM_CLASSES + 1), wanted.labels.reshape(-1))
    masks = (wanted.labels > 0).float().repeat_interleave(4, dim=1)
    distances = torch.nn.L1Loss(reduction="none")
    loc = distances(output.box_offsets.flatten(1) * masks, wanted_offsets(wanted).flatten(1) * masks)
    expected = {"loss_box": loc.mean(dim=1).mean(), "loss_cls": cls.reshape(3, -1).mean(dim=1).mean()}
    torch.testing.assert_close(loss(output, targets), expected)


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
    output, targets = draw_output(len(counts), seed=0), draw_targets(counts, seed=1)
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


@pytest.mark.parametrize("box_loss", BOX_LOSSES, ids=str)
def test_the_right_boxes_cost_nothing(box_loss: BoxLoss) -> None:
    targets, loss = draw_targets([3, 2], seed=0), MultiBoxLoss(box_loss=box_loss)
    wanted = loss.matcher(targets, PRIORS)
    offsets = wanted_offsets(wanted)
    output = SSDOutput(offsets, draw_output(2, seed=0).class_logits, PRIORS)
    assert loss.compare(output, wanted)["loss_box"].item() == pytest.approx(0, abs=1e-4)
    assert loss.compare(output._replace(box_offsets=offsets + 1), wanted)["loss_box"].item() > 0.1


class FakeRanks:
    """Two ranks in one process: the other one's count is known beforehand. Real ones are in test_distribution.py."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, other: int) -> None:
        self.reductions = 0
        self.other = other
        monkeypatch.setattr(dist, "is_initialized", lambda: True)
        monkeypatch.setattr(dist, "get_world_size", lambda: 2)
        monkeypatch.setattr(dist, "all_reduce", self.reduce)

    def reduce(self, count: Tensor) -> None:
        self.reductions += 1
        count += self.other


def num_positive(output: SSDOutput, targets: list[Target]) -> int:
    grads = gradients(MultiBoxLoss(class_loss=HardNegativeCrossEntropy(negative_ratio=0))(output, targets), output)
    return int((grads[1].abs().sum(-1) > 0).sum())


@pytest.mark.parametrize("counts", [((5, 2), (1, 1)), ((4, 3), (0, 0))])
@pytest.mark.parametrize("normalizer", ["positives", "positives_per_image", "batch_size", "priors"])
def test_averaged_gradient_is_that_of_the_big_batch(
    counts: tuple[tuple[int, ...], ...], normalizer: str, monkeypatch
) -> None:
    output, targets = draw_output(4, seed=5), draw_targets(counts[0] + counts[1], seed=6)
    expected = gradients(MultiBoxLoss(normalizer=normalizer)(output, targets), output)
    halves = [SSDOutput(*(tensor[part] for tensor in output[:2]), PRIORS) for part in (slice(2), slice(2, 4))]
    positives = [num_positive(half, targets[2 * rank : 2 * rank + 2]) for rank, half in enumerate(halves)]
    averaged = [torch.zeros_like(tensor) for tensor in expected]
    for rank in (0, 1):
        others = {"positives": positives[1 - rank], "priors": 2 * len(PRIORS)}.get(normalizer, 2)
        ranks = FakeRanks(monkeypatch, other=others)
        losses = MultiBoxLoss(normalizer=normalizer)(halves[rank], targets[2 * rank : 2 * rank + 2])
        assert ranks.reductions == 1
        for total, part in zip(averaged, gradients(losses, output), strict=True):
            total += part / 2
    torch.testing.assert_close(averaged, list(expected), rtol=1e-5, atol=1e-7)


def test_evaluation_waits_for_no_other_rank(monkeypatch) -> None:
    output, targets = draw_output(1, seed=0), draw_targets([3], seed=0)
    expected = MultiBoxLoss()(output, targets)
    ranks = FakeRanks(monkeypatch, other=1000)
    torch.testing.assert_close(MultiBoxLoss().eval()(output, targets), expected)
    assert ranks.reductions == 0
