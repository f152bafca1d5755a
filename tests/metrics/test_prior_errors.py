import pytest
import torch
from torch import Tensor

from ssd_lightning.metrics.prior_errors import prior_errors
from ssd_lightning.ops.boxes import cxcywh_to_xyxy
from ssd_lightning.ops.coder import decode
from ssd_lightning.ops.matching import Assignment
from ssd_lightning.types import SSDOutput


def assign(labels: Tensor, offsets: Tensor, priors: Tensor) -> Assignment:
    """Match each positive prior with a box of its own, at these offsets from it."""
    own = torch.arange(labels.shape[1]).expand_as(labels)
    return Assignment(labels, own.masked_fill(labels == 0, -1), cxcywh_to_xyxy(decode(offsets, priors)))


def test_both_errors_are_those_of_d2l() -> None:
    """`cls_eval`, `bbox_eval` and the two quotients of section 14.7, on its flat layout with a mask."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 40, 3, generator=generator)
    offsets, wanted = torch.randn(2, 3, 40, 4, generator=generator)
    labels = torch.randint(0, 3, (3, 40), generator=generator)
    priors = torch.rand(40, 4, generator=generator) + 0.1
    errors = prior_errors(SSDOutput(offsets.clone().requires_grad_(), logits, priors), assign(labels, wanted, priors))
    right = float((logits.argmax(dim=-1).type(labels.dtype) == labels).sum())
    assert errors["class_error"].item() == pytest.approx(1 - right / labels.numel())
    masks = (labels > 0).float().repeat_interleave(4, dim=1)  # [3, 160]
    flat, flat_wanted = offsets.flatten(1), wanted.flatten(1)
    expected = float(((flat_wanted - flat) * masks).abs().sum()) / flat_wanted.numel()
    assert errors["box_mae"].item() == pytest.approx(expected, rel=1e-4)
    assert not errors["box_mae"].requires_grad


@pytest.mark.parametrize(("batch", "num_priors"), [(0, 5), (2, 0)])
def test_nothing_has_no_error(batch: int, num_priors: int) -> None:
    output = SSDOutput(torch.zeros(batch, num_priors, 4), torch.zeros(batch, num_priors, 3), torch.zeros(num_priors, 4))
    labels = torch.zeros(batch, num_priors, dtype=torch.int64)
    errors = prior_errors(output, assign(labels, output.box_offsets, output.priors_cxcywh))
    assert errors["class_error"] == errors["box_mae"] == 0
