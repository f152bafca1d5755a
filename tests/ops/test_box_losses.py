import math

import pytest
import torch
from torch import Tensor

from ssd_lightning.ops.box_losses import BOX_LOSSES, OVERLAP_LOSSES, box_regression_loss, offset_loss, overlap_loss
from ssd_lightning.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ssd_lightning.ops.coder import decode, encode

OVERLAPS = sorted(OVERLAP_LOSSES)


def draw_boxes(count: int, seed: int, largest: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    sides = torch.rand(count, 2, generator=generator) * (largest - 0.02) + 0.02
    corners = torch.rand(count, 2, generator=generator) * (1 - sides)
    return torch.cat([corners, corners + sides], dim=1)


def slow_overlap(kind: str, a: list[float], b: list[float]) -> float:
    """The papers' formulas for one pair of boxes, in double precision and without epsilons."""
    area_a, area_b = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    union = area_a + area_b - width * height
    iou = width * height / union
    hull = [max(a[i + 2], b[i + 2]) - min(a[i], b[i]) for i in (0, 1)]
    if kind == "giou":
        return 1 - iou + (hull[0] * hull[1] - union) / (hull[0] * hull[1])
    apart = [(a[i] + a[i + 2] - b[i] - b[i + 2]) / 2 for i in (0, 1)]
    loss = 1 - iou + math.hypot(*apart) ** 2 / math.hypot(*hull) ** 2
    if kind == "diou":
        return loss
    angles = [math.atan((box[2] - box[0]) / (box[3] - box[1])) for box in (a, b)]
    v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    return loss + (v / (1 - iou + v) * v if v else 0.0)


@pytest.mark.parametrize("kind", OVERLAPS)
@pytest.mark.parametrize("largest", [0.5, 0.03])
def test_overlap_is_that_of_the_papers(kind: str, largest: float) -> None:
    boxes, wanted, priors = (draw_boxes(60, seed, largest) for seed in (0, 1, 2))
    boxes[:30] = (wanted[:30] + 0.1 * boxes[:30] * largest).float()  # half of them overlap
    priors = xyxy_to_cxcywh(priors)
    loss = overlap_loss(encode(xyxy_to_cxcywh(boxes), priors), wanted, priors, kind=kind)
    expected = [slow_overlap(kind, a, b) for a, b in zip(boxes.tolist(), wanted.tolist(), strict=True)]
    torch.testing.assert_close(loss, torch.tensor(expected), rtol=2e-4, atol=2e-4)
    assert loss.max() > 1 > loss.min()


@pytest.mark.parametrize("kind", OVERLAPS)
@pytest.mark.parametrize("side", [0.5, 0.002])
def test_a_perfect_box_costs_nothing_however_small(kind: str, side: float) -> None:
    """At .002, .6 of 300 pixels, an epsilon of 1e-7 on the areas of normalised boxes would cost .024."""
    priors = torch.tensor([[0.5, 0.5, side, side]])
    wanted = torch.tensor([[0.5 - side / 2, 0.5 - side / 2, 0.5 + side / 2, 0.5 + side / 2]])
    assert overlap_loss(torch.zeros(1, 4), wanted, priors, kind=kind).item() == pytest.approx(0, abs=2e-4)


@pytest.mark.parametrize("kind", BOX_LOSSES)
def test_descent_finds_the_box(kind: str) -> None:
    priors = xyxy_to_cxcywh(draw_boxes(8, 1))
    target = 2 * torch.randn(8, 4, generator=torch.Generator().manual_seed(0))  # as those of matched priors
    wanted = cxcywh_to_xyxy(decode(target, priors))
    offsets = torch.zeros(1, 8, 4, requires_grad=True)
    optimizer = torch.optim.Adam([offsets], lr=0.2)
    positive = torch.ones(1, 8, dtype=torch.bool)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 400)
        loss = box_regression_loss(offsets, target[None], wanted[None], positive, priors, kind=kind)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    torch.testing.assert_close(offsets.detach()[0], target, rtol=0, atol=0.15)


EXTREMES = [
    (0, 0, -1000, -1000),
    (0, 0, 100, -1000),
    (0, 0, -1000, 100),
    (1e6, -1e6, 0, 0),
    (1e20, 1e20, 0, 0),
    (-3e38, 3e38, 3e38, -3e38),
    (0, 0, 1e6, 1e6),
    (0, 0, 0, 0),
]


@pytest.mark.parametrize("kind", OVERLAPS)
@pytest.mark.parametrize("extreme", EXTREMES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_offset_is_too_extreme(kind: str, extreme: tuple[float, ...], dtype: torch.dtype) -> None:
    offsets = torch.tensor([extreme], dtype=dtype, requires_grad=True)
    priors = torch.tensor([[0.5, 0.5, 0.2, 0.1]])
    loss = overlap_loss(offsets, torch.tensor([[0.4, 0.45, 0.6, 0.55]]), priors, kind=kind)
    (gradient,) = torch.autograd.grad(loss.sum(), offsets)
    assert loss.dtype is torch.float32
    assert 0 <= loss.item() <= 3
    assert gradient.isfinite().all()


@pytest.mark.parametrize("kind", BOX_LOSSES)
@pytest.mark.parametrize("num_positive", [0, 3])
def test_only_positives_count_and_have_a_gradient(kind: str, num_positive: int) -> None:
    wanted, priors = draw_boxes(20, 3), xyxy_to_cxcywh(draw_boxes(20, 4))
    target = encode(xyxy_to_cxcywh(wanted), priors)
    offsets = torch.zeros(2, 20, 4, requires_grad=True)
    positive = torch.zeros(2, 20, dtype=torch.bool)
    positive[1, [2, 7, 11][:num_positive]] = True
    loss = box_regression_loss(offsets, target.expand(2, 20, 4), wanted.expand(2, 20, 4), positive, priors, kind=kind)
    assert loss.shape == (2, 20)
    assert torch.equal(loss > 0, positive)
    (gradient,) = torch.autograd.grad(loss.sum(), offsets)
    assert torch.equal(gradient.abs().sum(-1) > 0, positive)
    if num_positive:
        alone = torch.zeros(1, 1, 4)
        one = box_regression_loss(
            alone, target[None, 7:8], wanted[None, 7:8], positive[1:, 7:8], priors[7:8], kind=kind
        )
        torch.testing.assert_close(loss[1, 7], one[0, 0])


@pytest.mark.parametrize(("beta", "expected"), [(1.0, 1.5 + 0.125), (0.5, 1.75 + 0.25), (4.0, 0.5 + 0.03125)])
def test_smooth_l1_is_quadratic_up_to_beta(beta: float, expected: float) -> None:
    distance = torch.tensor([2.0, -0.5, 0.0, 0.0])
    assert offset_loss(distance, torch.zeros(4), kind="smooth_l1", beta=beta).item() == pytest.approx(expected)
    assert offset_loss(distance, torch.zeros(4), kind="l1").item() == 2.5
    assert offset_loss(distance, torch.zeros(4), kind="smooth_l1", beta=0.0).item() == 2.5
