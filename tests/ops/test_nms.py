import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from ssd_lightning.ops import nms as nms_module
from ssd_lightning.ops.nms import _nms_of_pairs, batched_nms, batched_soft_nms


def draw(count: int, num_groups: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sides = torch.rand(count, 2, generator=generator) * 0.4 + 0.1
    corners = torch.rand(count, 2, generator=generator)
    group = torch.randint(0, num_groups, (count,), generator=generator) * 7  # not all numbers occur
    return torch.cat([corners, corners + sides], 1), torch.rand(count, generator=generator), group


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_the_limit_takes_the_best_of_each_group(limit: int) -> None:
    boxes, scores, group = draw(60, 4, seed=2)
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


def test_no_boxes() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    kept, lowered = batched_soft_nms(torch.zeros(0, 4), torch.zeros(0), none, decay="linear")
    assert (kept.shape, kept.dtype, lowered.shape) == ((0,), torch.int64, (0,))


# NMS against the rule itself, one box at a time.


def slow_nms(boxes_xyxy: Tensor, group: Tensor, iou_threshold: float) -> list[bool]:
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
    expected = slow_nms(boxes_xyxy, group, iou_threshold)
    rows = [row for row, stays in enumerate(expected) if stays]
    assert batched_nms(boxes_xyxy, scores, group, iou_threshold).tolist() == rows
    if rows:  # what an accelerator does
        assert _nms_of_pairs(boxes_xyxy, group, iou_threshold).tolist() == rows
    return expected


def draw_spread(count: int, seed: int, spread: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * spread
    return torch.cat((corner, corner + torch.rand(count, 2, generator=generator)), dim=1)


@hypothesis_settings(deadline=None, max_examples=20)
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
    check(draw_spread(count, seed, spread), group, iou_threshold)


@pytest.mark.parametrize("limit", [1, 50, 1000])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    boxes, group = draw_spread(300, seed=0), torch.randint(0, 9, (300,)).sort().values
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


def test_equality_is_not_too_much() -> None:
    """IoU of exactly .5."""
    boxes, group = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.5]]), torch.zeros(2, dtype=torch.int64)
    assert check(boxes, group, 0.5) == [True, True]
    assert check(boxes, group, 0.499) == [True, False]
