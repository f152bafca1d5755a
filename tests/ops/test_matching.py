import math

import pytest
import torch
from torch import Tensor

from helpers.targets import draw_boxes, make_target
from ssd_lightning.ops import matching, rows
from ssd_lightning.ops.boxes import cxcywh_to_xyxy
from ssd_lightning.ops.matching import Assignment, argmax_assignment, bipartite_assignment, match_priors
from ssd_lightning.ops.priors import SSD300_VOC, make_priors
from ssd_lightning.types import Target

MATCHERS = {"bipartite": bipartite_assignment, "argmax": argmax_assignment}


def match(targets: list[Target], priors: Tensor, iou_threshold: float = 0.5, matcher: str = "bipartite") -> Assignment:
    return match_priors(targets, priors, iou_threshold=iou_threshold, force=MATCHERS[matcher])


def boxes_of(assignment: Assignment, priors: Tensor) -> Tensor:
    return assignment.matched_boxes(priors)[0].view(*assignment.labels.shape, 4)


def draw_iou(batch: int, num_boxes: int, num_priors: int, seed: int, steps: int | None = None) -> Tensor:
    """Random overlaps, a third of them none; `steps` rounds them, so that ties are many."""
    generator = torch.Generator().manual_seed(seed)
    iou = torch.rand(batch, num_boxes, num_priors, generator=generator)
    if steps:
        iou = (iou * steps).ceil() / steps
    return iou.masked_fill(torch.rand(iou.shape, generator=generator) < 1 / 3, 0.0)


def greedy(iou: Tensor) -> list[int]:
    """Best pair of all, of equal ones the first, then the best of what is left, of one image `[N, K]`."""
    forced = [-1] * iou.shape[1]
    left = iou.clone()
    while left.numel() and left.max() > 0:
        box, prior = divmod(int(left.argmax()), iou.shape[1])
        forced[prior] = box
        left[box, :] = -1
        left[:, prior] = -1
    return forced


def last_of_the_best(iou: Tensor) -> list[int]:
    """Each box in turn writes itself at its best prior, of one image `[N, K]`."""
    forced = [-1] * iou.shape[1]
    for box, row in enumerate(iou):
        if row.max() > 0:
            forced[int(row.argmax())] = box
    return forced


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 3, 20), (3, 6, 6), (2, 8, 5), (4, 1, 9), (2, 40, 9), (1, 30, 200)])
@pytest.mark.parametrize("steps", [None, 1, 5])
def test_assignments_equal_the_slow_loops(
    size: tuple[int, int, int], steps: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on an accelerator, which may not look whether all are settled, and goes through as many rounds as boxes."""
    iou = draw_iou(*size, seed=0, steps=steps)
    assert argmax_assignment(iou).tolist() == [last_of_the_best(image) for image in iou]
    expected = [greedy(image) for image in iou]
    assert bipartite_assignment(iou).tolist() == expected
    monkeypatch.setattr(rows, "HOST_DEVICES", ())
    monkeypatch.setattr(matching, "ROUNDS_PER_CHECK", 1000)
    assert bipartite_assignment(iou).tolist() == expected


def test_a_chain_of_displacements_is_settled() -> None:
    """Each box prefers the prior of a better one, so that one after the other has to move."""
    own = 0.9 - 0.05 * torch.arange(12)
    iou = torch.diag(own) + torch.diag(own[1:] + 0.01, -1)
    assert bipartite_assignment(iou[None]).tolist() == [greedy(iou)] == [list(range(12))]


@pytest.mark.parametrize("matcher", MATCHERS)
@pytest.mark.parametrize("pairs", [1, 20_000, 1 << 26])
def test_what_is_compared_at_once_changes_nothing(matcher: str, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor takes one image without padding, an accelerator many with it."""
    generator = torch.Generator().manual_seed(0)
    boxes = [draw_boxes(count, generator) for count in (9, 4, 0, 9, 6)]
    boxes[3][5:] = boxes[3][:4]  # equal overlaps
    targets = [make_target(each, torch.randint(1, 4, (len(each),), generator=generator)) for each in boxes]
    priors = make_priors(SSD300_VOC[1:], 300)
    alone = match(targets, priors, matcher=matcher)
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", pairs)
    monkeypatch.setattr(rows, "HOST_DEVICES", ())
    together = match(targets, priors, matcher=matcher)
    for found, expected in zip(together, alone, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("matcher", MATCHERS)
def test_an_overlap_of_the_threshold_is_enough(matcher: str) -> None:
    """The object's own prior is the second, so that the first, of IoU 1/2, is not forced."""
    priors = torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0]])
    target = make_target([[0.0, 0.0, 0.5, 1.0]], [7])
    for threshold, labels in ((0.5, [7, 7, 0]), (0.51, [0, 7, 0])):
        assert match([target], priors, threshold, matcher).labels.tolist() == [labels]


@pytest.mark.parametrize("matcher", MATCHERS)
@pytest.mark.parametrize(
    "box",
    [
        [0.5, 0.5, 0.5, 0.5],
        [0.2, 0.7, 0.6, 0.3],
        [math.nan, 0.1, math.inf, 0.5],
        [5.0, 5.0, 6.0, 6.0],  # overlaps nothing
    ],
)
def test_a_box_that_is_none_changes_nothing(matcher: str, box: list[float]) -> None:
    priors = make_priors(SSD300_VOC[3:], 300)
    good, labels = draw_boxes(2, torch.Generator().manual_seed(0)).tolist(), [3, 4]
    alone = match([make_target(good, labels)], priors, matcher=matcher)
    assert (alone.labels > 0).any()
    matches = match([make_target([good[0], box, good[1]], [3, 9, 4])], priors, matcher=matcher)
    assert torch.equal(matches.labels, alone.labels)
    assert torch.equal(boxes_of(matches, priors), boxes_of(alone, priors))
    nothing = match([make_target([box], [9])], priors, matcher=matcher)
    assert (nothing.labels == 0).all()
    assert torch.equal(boxes_of(nothing, priors)[0], cxcywh_to_xyxy(priors))
