import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou

from ssd_lightning.ops import nms as nms_module
from ssd_lightning.ops.nms import _nms_of_pairs, batched_nms, batched_soft_nms, vote_boxes


def draw(count: int, seed: int, num_groups: int, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Draw boxes and their sorted groups."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * spread
    boxes = torch.cat((corner, corner + torch.rand(count, 2, generator=generator)), dim=1)
    return boxes, torch.randint(0, num_groups, (count,), generator=generator).sort().values * 7  # not all numbers occur


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_the_limit_takes_the_best_of_each_group(limit: int) -> None:
    boxes, group = draw(60, seed=2, num_groups=4)
    scores = torch.rand(60, generator=torch.Generator().manual_seed(0))
    group = group[scores.argsort()]  # in no order
    kept, lowered = batched_soft_nms(boxes, scores, group, decay="gaussian")
    some, their_scores = batched_soft_nms(boxes, scores, group, decay="gaussian", max_per_group=limit)
    best = [i for n, i in enumerate(kept.tolist()) if (group[kept[:n]] == group[i]).sum() < limit]
    assert some.tolist() == best
    torch.testing.assert_close(their_scores, lowered[torch.isin(kept, some)])


@pytest.mark.parametrize("decay", ["linear", "gaussian"])
def test_equal_boxes_and_boxes_without_area(decay: str) -> None:
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.5]] * 3 + [[0.2, 0.2, 0.2, 0.2]] * 2)
    scores, group = torch.tensor([0.9, 0.9, 0.8, 0.7, 0.6]), torch.zeros(5, dtype=torch.int64)
    kept, lowered = batched_soft_nms(boxes, scores, group, decay=decay)
    assert lowered.isfinite().all()
    assert {0, 3, 4} <= set(kept.tolist())
    assert (len(kept) == 3) == (decay == "linear")  # equal boxes: 1 - IoU is 0, exp(-1 / .5) is .14


@pytest.mark.parametrize("at_once", [1, 1000])
def test_votes_are_the_mean_of_the_boxes_that_overlap(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nms_module, "VOTES_AT_ONCE", at_once)
    boxes, group = draw(60, seed=3, num_groups=3)
    boxes[7, 2:] = boxes[7, :2]  # no area
    boxes[8, 0] = math.nan
    scores = torch.rand(60, generator=torch.Generator().manual_seed(1))
    kept = torch.tensor([50, 7, 8, 0, 30])
    found = vote_boxes(boxes, scores, group, kept, iou_threshold=0.2)
    for index, box in zip(kept.tolist(), found, strict=True):
        votes = (box_iou(boxes[index : index + 1], boxes)[0] > 0.2) & (group == group[index])
        mean = (boxes[votes] * scores[votes, None]).sum(0) / scores[votes].sum()
        assert votes.any() == (index not in (7, 8))
        torch.testing.assert_close(box, mean if votes.any() else boxes[index], equal_nan=True)


def test_without_overlap_votes_change_nothing() -> None:
    boxes, group = draw(20, seed=4, num_groups=2)
    kept = torch.arange(20)
    assert torch.equal(vote_boxes(boxes, torch.ones(20), group, kept, iou_threshold=1), boxes)
    assert vote_boxes(boxes, torch.ones(20), group, kept[:0], iou_threshold=0.5).shape == (0, 4)


# NMS against the rule itself, one box at a time.


def slow_nms(boxes_xyxy: Tensor, group: Tensor, iou_threshold: float) -> list[bool]:
    """The best box of a group removes what overlaps it too much, then the best of the others does, and so on."""
    overlap, kept = box_iou(boxes_xyxy, boxes_xyxy), []
    for index in range(len(boxes_xyxy)):
        better = [before for before in range(index) if kept[before] and group[before] == group[index]]
        kept.append(not (overlap[better, index] > iou_threshold).any())
    return kept


def check(boxes_xyxy: Tensor, group: Tensor, iou_threshold: float) -> list[bool]:
    scores = torch.linspace(1, 0.5, len(boxes_xyxy))
    expected = slow_nms(boxes_xyxy, group, iou_threshold)
    rows = [row for row, stays in enumerate(expected) if stays]
    assert batched_nms(boxes_xyxy, scores, group, iou_threshold).tolist() == rows
    if rows:  # what an accelerator does
        assert _nms_of_pairs(boxes_xyxy, group, iou_threshold).tolist() == rows
    return expected


@hypothesis_settings(deadline=None, max_examples=20)
@given(
    count=st.integers(0, 40),
    num_groups=st.integers(1, 12),
    iou_threshold=st.sampled_from([0.0, 0.1, 0.45, 0.9, 1.0]),
    spread=st.sampled_from([0.1, 1.0, 100.0]),
    seed=st.integers(0, 2**31),
)
def test_equals_the_slow_loop(count: int, num_groups: int, iou_threshold: float, spread: float, seed: int) -> None:
    check(*draw(count, seed, num_groups, spread), iou_threshold)


@pytest.mark.parametrize("limit", [1, 50, 1000])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    boxes, group = draw(300, seed=0, num_groups=9)
    whole = _nms_of_pairs(boxes, group, 0.3)
    monkeypatch.setattr(nms_module, "PAIRS_AT_ONCE", limit)
    assert torch.equal(_nms_of_pairs(boxes, group, 0.3), whole)
    assert 0 < len(whole) < 300


def test_a_chain_is_followed_to_its_end() -> None:
    """Each box overlaps only the next one: every other one stays, the last as well as the first."""
    start = torch.arange(101.0) * 0.5
    boxes = torch.stack([start, torch.zeros(101), start + 1, torch.ones(101)], dim=1)
    assert check(boxes, torch.zeros(101, dtype=torch.int64), 0.3) == [index % 2 == 0 for index in range(101)]


def test_boxes_without_area_and_without_numbers_overlap_nothing() -> None:
    nan, inf = torch.nan, torch.inf
    boxes = torch.tensor(
        [[0.5, 0.5, 0.5, 0.5]] * 2
        + [[nan, 0, 1, 1], [nan, nan, nan, nan], [-inf, -inf, inf, inf]]
        + [[0.2, 0.2, 0.1, 0.1], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.9]]
    )
    assert check(boxes, torch.zeros(8, dtype=torch.int64), 0.45) == [True] * 7 + [False]


def test_other_groups_do_not_blur_small_boxes() -> None:
    """Two boxes of .004 with an IoU of .46, and of .44, in the last of many groups, beside one of the largest size."""
    shift = 0.004 * torch.tensor([0, 0.54 / 1.46, 0, 0.56 / 1.44])
    low = torch.stack([0.9 + shift, torch.full((4,), 0.9)], dim=1)
    boxes = torch.cat([torch.tensor([[-9.5, -9.5, 10.5, 10.5]]), torch.cat([low, low + 0.004], dim=1)])
    assert check(boxes, torch.tensor([0, 1278, 1278, 1279, 1279]), 0.45) == [True, True, False, True, True]


def test_equality_is_not_too_much() -> None:
    """IoU of exactly .5."""
    boxes, group = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.5]]), torch.zeros(2, dtype=torch.int64)
    assert check(boxes, group, 0.5) == [True, True]
    assert check(boxes, group, 0.499) == [True, False]
