import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from helpers.targets import draw_boxes, make_target
from ssd_lightning.analysis.matched_priors import COUNTS, level_of_priors, matched_objects, summarise_matches
from ssd_lightning.losses import ArgmaxMatcher, BipartiteMatcher, Matcher
from ssd_lightning.ops.boxes import cxcywh_to_xyxy
from ssd_lightning.ops.priors import SSD300_VOC, PriorLevel, make_priors
from ssd_lightning.types import Target
from ssd_lightning.visualization.draw_matches import MatchedObject

LEVELS = (PriorLevel(6, None, 20, 40, (2,)), PriorLevel((3, 2), None, 50, None, (2, 3)))
PRIORS = make_priors(LEVELS, 100)
PRIORS_XYXY = cxcywh_to_xyxy(PRIORS)


def random_targets(seed: int) -> list[Target]:
    generator = torch.Generator().manual_seed(seed)
    return [make_target(draw_boxes(count, generator, (0.005, 0.295)), [1] * count) for count in (5, 0, 9)]


def match(targets: list[Target], matcher: Matcher) -> list[list[MatchedObject]]:
    assignment = matcher(targets, PRIORS)
    return matched_objects(
        assignment, targets, PRIORS, levels=LEVELS, iou_threshold=matcher.iou_threshold, class_names=["cat"]
    )


@pytest.mark.parametrize("matcher", [BipartiteMatcher(), ArgmaxMatcher()], ids=str)
def test_objects_have_the_priors_that_the_loss_trains(matcher: Matcher) -> None:
    targets = random_targets(0)
    wanted = matcher(targets, PRIORS)
    of_image = wanted.matched_boxes(PRIORS)[0].view(len(targets), -1, 4)

    images = match(targets, matcher)

    for objects, labels, boxes, given in zip(images, wanted.labels, of_image, targets, strict=True):
        assert sum(len(one.levels) for one in objects) == int((labels > 0).sum())
        for one, box in zip(objects, given["boxes"], strict=True):
            is_own = (boxes == box).all(dim=1) & (labels > 0)
            assert (one.name, one.box_xyxy.tolist()) == ("cat", box.tolist())
            assert (one.priors_xyxy == PRIORS_XYXY[is_own].numpy()).all()
            assert (one.levels == np.where(is_own.nonzero().flatten() < 6 * 6 * 4, 1, 2)).all()
            best = float(box_iou(box[None].double(), PRIORS_XYXY.double()).max())
            assert one.best_iou == pytest.approx(best, abs=1e-5)
            assert one.is_forced == (best < matcher.iou_threshold and bool(is_own.any()))
            assert not one.is_forced or len(one.levels) == 1


def test_the_summary_is_a_plain_count() -> None:
    images = match(random_targets(0), BipartiteMatcher())

    summary = summarise_matches(images, LEVELS)

    counts = [len(one.levels) for objects in images for one in objects]
    assert (summary["images"], summary["objects"], summary["priors"]) == (3, 14, sum(counts))
    assert list(summary["by_count"]) == list(COUNTS)
    ranges = [range(1), range(1, 2), range(2, 6), range(6, 999)]
    assert list(summary["by_count"].values()) == [sum(count in one for count in counts) for one in ranges]
    assert summary["forced"] == sum(one.is_forced for objects in images for one in objects) > 0
    assert sum(level["priors"] for level in summary["levels"]) == sum(counts)
    assert sum(level["forced"] for level in summary["levels"]) == summary["forced"]  # one prior each, so one level
    assert [level["of"] for level in summary["levels"]] == [3 * 36 * 4, 3 * 6 * 5]
    assert np.bincount(level_of_priors(SSD300_VOC)).tolist() == [0, 5776, 2166, 600, 150, 36, 4]


def test_no_image_no_object_and_a_box_without_area() -> None:
    matcher = BipartiteMatcher()
    for targets in ([], [make_target([], [])]):
        summary = summarise_matches(match(targets, matcher), LEVELS)
        assert summary["by_count"] == dict.fromkeys(COUNTS, 0)
    ((flat,),) = match([make_target([[0.3, 0.3, 0.3, 0.6]], [1])], matcher)
    assert (len(flat.levels), flat.best_iou, flat.is_forced) == (0, 0, False)
