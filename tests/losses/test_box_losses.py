import pytest
import torch
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from helpers.targets import draw_boxes
from ssd_lightning.losses import IoULoss, SmoothL1Loss
from ssd_lightning.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ssd_lightning.ops.coder import encode

OVERLAPS = {"giou": generalized_box_iou_loss, "diou": distance_box_iou_loss, "ciou": complete_box_iou_loss}


@pytest.mark.parametrize("kind", OVERLAPS)
@pytest.mark.parametrize("largest", [0.5, 0.03])
def test_overlap_is_torchvisions(kind: str, largest: float) -> None:
    """In double precision, where no epsilon is needed."""
    boxes, wanted, priors = (draw_boxes(60, torch.Generator().manual_seed(seed), (0.02, largest)) for seed in (0, 1, 2))
    boxes[:30] = (wanted[:30] + 0.1 * boxes[:30] * largest).float()  # half of them overlap
    priors = xyxy_to_cxcywh(priors)
    loss = IoULoss(kind)(encode(xyxy_to_cxcywh(boxes), priors), wanted, priors)
    expected = OVERLAPS[kind](boxes.double(), wanted.double(), eps=1e-15)
    torch.testing.assert_close(loss.double(), expected, rtol=2e-4, atol=2e-4)
    assert loss.max() > 1 > loss.min()


@pytest.mark.parametrize("kind", OVERLAPS)
@pytest.mark.parametrize("side", [0.5, 0.002])
def test_a_perfect_box_costs_nothing_however_small(kind: str, side: float) -> None:
    """At .002, .6 of 300 pixels, an epsilon of 1e-7 on the areas of normalised boxes would cost .024."""
    priors = torch.tensor([[0.5, 0.5, side, side]])
    wanted = torch.tensor([[0.5 - side / 2, 0.5 - side / 2, 0.5 + side / 2, 0.5 + side / 2]])
    assert IoULoss(kind)(torch.zeros(1, 4), wanted, priors).item() == pytest.approx(0, abs=2e-4)


EXTREMES = [(0, 0, -1e3, -1e3), (0, 0, 100, -1e3), (1e20, 1e20, 0, 0), (-3e38, 3e38, 3e38, -3e38), (0, 0, 1e6, 1e6)]


@pytest.mark.parametrize("kind", OVERLAPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_offset_is_too_extreme(kind: str, dtype: torch.dtype) -> None:
    offsets = torch.tensor(EXTREMES, dtype=dtype, requires_grad=True)
    priors = torch.tensor([[0.5, 0.5, 0.2, 0.1]]).expand(len(EXTREMES), 4)
    wanted = torch.tensor([[0.4, 0.45, 0.6, 0.55]]).expand(len(EXTREMES), 4)
    loss = IoULoss(kind)(offsets, wanted, priors)
    (gradient,) = torch.autograd.grad(loss.sum(), offsets)
    assert loss.dtype is torch.float32
    assert ((loss >= 0) & (loss <= 3)).all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("beta", "expected"), [(1.0, 1.5 + 0.125), (0.5, 1.75 + 0.25), (4.0, 0.5 + 0.03125)])
def test_smooth_l1_is_quadratic_up_to_beta(beta: float, expected: float) -> None:
    distance, prior = torch.tensor([[2.0, -0.5, 0.0, 0.0]]), torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    box = cxcywh_to_xyxy(prior)  # the prior itself: it wants no offset
    assert SmoothL1Loss(beta)(distance, box, prior).item() == pytest.approx(expected, abs=1e-5)
    assert SmoothL1Loss(0.0)(distance, box, prior).item() == pytest.approx(2.5, abs=1e-5)
