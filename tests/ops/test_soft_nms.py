import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from ssd_lightning.ops.soft_nms import batched_soft_nms, pad_places


def draw(count: int, num_groups: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sides = torch.rand(count, 2, generator=generator) * 0.4 + 0.1
    corners = torch.rand(count, 2, generator=generator)
    group = torch.randint(0, num_groups, (count,), generator=generator) * 7  # not all numbers occur
    return torch.cat([corners, corners + sides], 1), torch.rand(count, generator=generator), group


def textbook(boxes: Tensor, scores: list[float], settings: dict) -> dict[int, float]:
    """Figure 2 of the paper, for one group: {box: its score when it was taken}."""
    iou = box_iou(boxes, boxes).tolist()
    scores, waiting, taken = list(scores), set(range(len(scores))), {}
    while waiting:
        best = max(waiting, key=lambda i: scores[i])
        if scores[best] <= settings["score_threshold"]:
            break
        waiting.remove(best)
        taken[best] = scores[best]
        for i in waiting:
            if settings["decay"] == "gaussian":
                scores[i] *= math.exp(-(iou[best][i] ** 2) / settings["sigma"])
            elif iou[best][i] >= settings["iou_threshold"]:
                scores[i] *= 1 - iou[best][i]
    return taken


@pytest.mark.parametrize(
    "settings",
    [
        {"decay": "linear", "iou_threshold": 0.3, "sigma": 0.5, "score_threshold": 0.01},
        {"decay": "linear", "iou_threshold": 0.0, "sigma": 0.5, "score_threshold": 0.2},
        {"decay": "gaussian", "iou_threshold": 0.3, "sigma": 0.5, "score_threshold": 0.01},
        {"decay": "gaussian", "iou_threshold": 0.3, "sigma": 0.1, "score_threshold": 0.3},
    ],
    ids=str,
)
@pytest.mark.parametrize(("count", "num_groups"), [(1, 1), (40, 1), (60, 5), (30, 30)])
def test_equals_the_textbook_loop(count: int, num_groups: int, settings: dict) -> None:
    boxes, scores, group = draw(count, num_groups, seed=count)
    kept, lowered = batched_soft_nms(boxes, scores, group, **settings)
    assert (lowered.diff() <= 0).all()
    expected: dict[int, float] = {}
    for number in group.unique():
        members = (group == number).nonzero().flatten()
        taken = textbook(boxes[members], scores[members].tolist(), settings)
        expected |= {int(members[i]): score for i, score in taken.items()}
    found = dict(zip(kept.tolist(), lowered.tolist(), strict=True))
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_narrow_gaussian_is_hard_suppression_at_any_overlap() -> None:
    boxes, scores, group = draw(80, 3, seed=5)
    kept, lowered = batched_soft_nms(boxes, scores, group, decay="gaussian", sigma=1e-9, score_threshold=0.01)
    hard = batched_nms(boxes.double(), scores.double(), group, 1e-6)
    hard = hard[scores[hard] > 0.01]
    assert kept.tolist() == hard.tolist()
    assert torch.equal(lowered, scores[hard])
    assert 3 < len(kept) < 80


@pytest.mark.parametrize("decay", ["linear", "gaussian"])
def test_boxes_that_do_not_touch_keep_their_scores(decay: str) -> None:
    corner = torch.arange(6.0)[:, None].expand(6, 2)
    scores = torch.tensor([0.3, 0.9, 0.5, 0.005, 0.7, 0.2])
    kept, lowered = batched_soft_nms(
        torch.cat([corner, corner + 0.9], 1), scores, torch.zeros(6, dtype=torch.int64), decay=decay
    )
    assert kept.tolist() == [1, 4, 2, 0, 5]
    assert torch.equal(lowered, scores[kept])


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


def test_inputs_are_left_alone() -> None:
    boxes, scores, group = draw(20, 2, seed=0)
    before = [tensor.clone() for tensor in (boxes, scores, group)]
    batched_soft_nms(boxes, scores, group, decay="linear")
    assert all(torch.equal(a, b) for a, b in zip(before, (boxes, scores, group), strict=True))


def test_rows_hold_the_members_in_order() -> None:
    place, sizes = pad_places(torch.tensor([5, 2, 5, 9, 5, 2]))
    assert sizes.tolist() == [3, 2, 1]
    assert place.tolist() == [[0, 2, 4], [1, 5, -1], [3, -1, -1]]
