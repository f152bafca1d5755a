"""Both ways of suppression against the rule itself, a box at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import nms

from ssd_lightning.ops import suppression
from ssd_lightning.ops.suppression import (
    PAIRS_AT_ONCE,
    goes_by_groups,
    rank_in_group,
    suppress,
    suppress_by_groups,
    suppress_by_pairs,
)


def slow_suppress(boxes_xyxy: Tensor, group: Tensor, iou_threshold: float) -> list[bool]:
    """The best box of a group removes what overlaps it too much, then the best of the others does, and so on."""
    kept: list[bool] = []
    for index, (x1, y1, x2, y2) in enumerate(boxes_xyxy):
        removed = False
        for before in range(index):
            if kept[before] and group[before] == group[index]:
                u1, v1, u2, v2 = boxes_xyxy[before]
                common = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp(min=0) * (
                    torch.minimum(y2, v2) - torch.maximum(y1, v1)
                ).clamp(min=0)
                union = (u2 - u1) * (v2 - v1) + (x2 - x1) * (y2 - y1) - common
                removed = removed or bool(common / union > iou_threshold)
        kept.append(not removed)
    return kept


def check(boxes_xyxy: Tensor, group: Tensor, iou_threshold: float) -> list[bool]:
    scores = torch.linspace(1, 0.5, len(boxes_xyxy))
    expected = slow_suppress(boxes_xyxy, group, iou_threshold)
    assert suppress_by_groups(boxes_xyxy, scores, group, iou_threshold).tolist() == expected
    assert suppress_by_pairs(boxes_xyxy, group, iou_threshold).tolist() == expected
    assert suppress(boxes_xyxy, scores, group, iou_threshold).tolist() == expected
    return expected


def draw_boxes(count: int, seed: int, spread: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * spread
    return torch.cat((corner, corner + torch.rand(count, 2, generator=generator)), dim=1)


@settings(deadline=None, max_examples=30)
@given(
    count=st.integers(0, 40),
    num_groups=st.integers(1, 12),
    iou_threshold=st.sampled_from([0.0, 0.1, 0.45, 0.9, 1.0]),
    spread=st.sampled_from([0.1, 1.0, 100.0]),
    seed=st.integers(0, 2**31),
)
def test_equals_the_slow_loop(count: int, num_groups: int, iou_threshold: float, spread: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(0, num_groups, (count,), generator=generator).sort().values
    check(draw_boxes(count, seed, spread), group, iou_threshold)


@pytest.mark.parametrize("limit", [1, 50, 1000])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    boxes, group = draw_boxes(300, seed=0), torch.randint(0, 9, (300,)).sort().values
    whole = suppress_by_pairs(boxes, group, 0.3)
    monkeypatch.setattr(suppression, "PAIRS_AT_ONCE", limit)
    assert torch.equal(suppress_by_pairs(boxes, group, 0.3), whole)
    assert 0 < whole.sum() < 300


def test_a_crowd_of_one_group_is_what_torchvision_keeps() -> None:
    boxes, scores = draw_boxes(700, seed=1), torch.linspace(1, 0, 700)
    group = torch.zeros(700, dtype=torch.int64)
    kept = nms(boxes, scores, 0.45)
    assert suppress_by_pairs(boxes, group, 0.45).nonzero()[:, 0].tolist() == kept.tolist()
    assert 0 < len(kept) < 600


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


def test_equality_is_not_too_much() -> None:
    """IoU of exactly .5."""
    boxes, group = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.5]]), torch.zeros(2, dtype=torch.int64)
    assert check(boxes, group, 0.5) == [True, True]
    assert check(boxes, group, 0.499) == [True, False]


def test_ranks_count_within_groups() -> None:
    assert rank_in_group(torch.tensor([2, 2, 5, 7, 7, 7])).tolist() == [0, 1, 0, 0, 1, 2]
    assert rank_in_group(torch.zeros(0, dtype=torch.int64)).tolist() == []


def test_an_accelerator_compares_all_pairs_only_where_they_fit() -> None:
    """80 classes of 400 boxes as one group are 512 million pairs, of about 100 bytes each."""
    gpu = torch.device("cuda")
    assert not goes_by_groups(gpu, 400)
    assert goes_by_groups(gpu, 80 * 400)
    largest = max(size for size in range(10_000) if not goes_by_groups(gpu, size))
    assert largest * (largest - 1) // 2 <= PAIRS_AT_ONCE < (largest + 1) * largest // 2
    assert goes_by_groups(torch.device("cpu"), 1)
