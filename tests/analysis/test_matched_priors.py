import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from helpers.targets import draw_boxes, make_target
from ssd_lightning.analysis.matched_priors import COUNTS, by_object, level_of_priors, summarise_matches
from ssd_lightning.losses import ArgmaxMatcher, BipartiteMatcher, Matcher
from ssd_lightning.ops.boxes import cxcywh_to_xyxy
from ssd_lightning.ops.priors import SSD300_VOC, PriorLevel, make_priors
from ssd_lightning.types import Target

LEVELS = (PriorLevel(6, None, 20, 40, (2,)), PriorLevel((3, 2), None, 50, None, (2, 3)))
PRIORS = make_priors(LEVELS, 100)


def random_targets(seed: int) -> list[Target]:
    generator = torch.Generator().manual_seed(seed)
    return [make_target(draw_boxes(count, generator, (0.005, 0.295)), [1] * count) for count in (5, 0, 9)]


@pytest.mark.parametrize("matcher", [BipartiteMatcher(), ArgmaxMatcher()], ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_objects_have_the_priors_that_the_loss_trains(seed: int, matcher: Matcher) -> None:
    targets = random_targets(seed)
    wanted = matcher(targets, PRIORS)

    images = by_object(wanted, targets, PRIORS)

    for image, labels, boxes, given in zip(
        images, wanted.labels, wanted.matched_boxes(PRIORS)[0].view(len(targets), -1, 4), targets, strict=True
    ):
        owned = np.concatenate([np.zeros(0, dtype=np.int64), *image.priors])
        assert sorted(owned) == (labels > 0).nonzero().flatten().tolist()
        for index, priors in enumerate(image.priors):
            assert (boxes[priors] == given["boxes"][index]).all()
            best = float(box_iou(given["boxes"][index][None].double(), cxcywh_to_xyxy(PRIORS).double()).max())
            assert image.best_iou[index] == pytest.approx(best, abs=1e-5)
            forced = best < matcher.iou_threshold and len(priors) > 0
            assert image.is_forced(matcher.iou_threshold)[index] == forced
            if forced:
                assert len(priors) == 1


def test_the_summary_is_a_plain_count() -> None:
    targets = random_targets(0)
    matcher = BipartiteMatcher()
    images = by_object(matcher(targets, PRIORS), targets, PRIORS)
    levels = level_of_priors(LEVELS)

    summary = summarise_matches(images, levels, matcher.iou_threshold)

    counts = [len(priors) for image in images for priors in image.priors]
    assert (summary["images"], summary["objects"], summary["priors"]) == (3, 14, sum(counts))
    assert list(summary["by_count"]) == list(COUNTS)
    ranges = [range(1), range(1, 2), range(2, 6), range(6, 999)]
    assert list(summary["by_count"].values()) == [sum(count in one for count in counts) for one in ranges]
    assert summary["forced"] == sum(int(image.is_forced(0.5).sum()) for image in images) > 0
    assert sum(level["priors"] for level in summary["levels"]) == sum(counts)
    assert sum(level["forced"] for level in summary["levels"]) == summary["forced"]  # one prior each, so one level
    assert [level["of"] for level in summary["levels"]] == [3 * 36 * 4, 3 * 6 * 5]
    assert np.bincount(level_of_priors(SSD300_VOC)).tolist() == [0, 5776, 2166, 600, 150, 36, 4]


def test_no_image_no_object_and_a_box_without_area() -> None:
    matcher, levels = BipartiteMatcher(), level_of_priors(LEVELS)
    assert by_object(matcher([], PRIORS), [], PRIORS) == []
    assert summarise_matches([], levels, 0.5)["by_count"] == dict.fromkeys(COUNTS, 0)
    empty = [make_target([], [])]
    assert summarise_matches(by_object(matcher(empty, PRIORS), empty, PRIORS), levels, 0.5)["objects"] == 0
    flat = [make_target([[0.3, 0.3, 0.3, 0.6]], [1])]
    (image,) = by_object(matcher(flat, PRIORS), flat, PRIORS)
    assert len(image.priors[0]) == 0
    assert image.best_iou.tolist() == [0]
    assert not image.is_forced(0.5).any()
