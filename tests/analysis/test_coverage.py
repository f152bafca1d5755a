"""Coverage: the nearest cell is the best, compared with all priors laid out one by one."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from ssd_lightning.analysis.coverage import (
    RATIO_NAMES,
    SIZE_NAMES,
    best_priors,
    coverage_issues,
    coverage_summary,
    describe_unreached,
)
from ssd_lightning.ops.boxes import cxcywh_to_xyxy
from ssd_lightning.ops.priors import SSD300_VOC, Clip, PriorLevel, make_priors

ODD = (
    PriorLevel((5, 7), None, 20.0, None, (1.4, 5)),
    PriorLevel((3, 2), 61.0, 70.0, 90.0, ()),
    PriorLevel(1, 300.0, 350.0, 380.0, (3,)),
)


def random_boxes(count: int, seed: int) -> np.ndarray:
    """Draw boxes of all sizes, many small ones among them."""
    rng = np.random.default_rng(seed)
    low, high = np.sort(rng.random((2, count, 2)), axis=0)
    return np.concatenate([low, low + (high - low) * rng.random((count, 1)) + 1e-3], axis=1)


@pytest.mark.parametrize(
    ("levels", "image_size", "clip"),
    [(SSD300_VOC, (300, 300), "size"), (ODD, (180, 240), False), (ODD, (180, 240), True)],
)
def test_it_is_the_best_of_all_priors(levels: tuple[PriorLevel, ...], image_size: tuple[int, int], clip: Clip) -> None:
    boxes = random_boxes(100, seed=len(levels))

    best = best_priors(boxes, levels, image_size, clip)

    priors = cxcywh_to_xyxy(make_priors(levels, image_size, clip=clip).double())
    iou = box_iou(torch.from_numpy(boxes), priors).numpy()
    np.testing.assert_allclose(best.iou, iou.max(axis=1), atol=2e-6)
    names = [  # of every prior, in make_priors' order
        (index, kind)
        for index, level in enumerate(levels)
        for _ in range(math.prod(level.grid))
        for kind in range(level.boxes_per_cell)
    ]
    is_named = (np.stack([best.level, best.kind], axis=1)[:, None] == names).all(axis=2)
    np.testing.assert_allclose(np.where(is_named, iou, 0).max(axis=1), best.iou, atol=2e-6)


def test_no_objects() -> None:
    best = best_priors(np.empty((0, 4)), SSD300_VOC, (300, 300))
    summary = coverage_summary(np.empty((0, 4)), best.iou, (300, 300))
    assert best.iou.shape == (0,)
    assert (summary["objects"], summary["share"], summary["mean_iou"]) == (0, None, None)
    assert coverage_issues(summary, levels=SSD300_VOC, image_size=(300, 300)) == []


def test_the_summary_counts_each_object_once_by_size_and_by_ratio() -> None:
    # In an input of 100 x 200: 20 x 10, 20 x 40, 160 x 40, 190 x 95 px.
    boxes = np.array([[0, 0, 0.1, 0.1], [0, 0, 0.1, 0.4], [0.1, 0.1, 0.9, 0.5], [0, 0, 0.95, 0.95]])
    iou = np.array([0.5, 0.49, 0.8, 0.9])

    summary = coverage_summary(boxes, iou, (100, 200))

    assert (summary["objects"], summary["reached"], summary["share"]) == (4, 3, 0.75)
    assert summary["mean_iou"] == pytest.approx(0.6725)
    by_size = {name: (values["objects"], values["reached"]) for name, values in summary["by_size"].items()}
    assert by_size == dict.fromkeys(SIZE_NAMES, (0, 0)) | {
        "below 16 px": (1, 1), "16 to 32 px": (1, 0), "64 to 128 px": (1, 1), "128 to 256 px": (1, 1),
    }  # fmt: skip
    by_ratio = [summary["by_ratio"][name]["objects"] for name in RATIO_NAMES]
    assert by_ratio == [0, 1, 0, 2, 1]
    judge = partial(coverage_issues, levels=SSD300_VOC, image_size=(100, 200))
    assert judge(summary | {"share": 0.8}) == []
    (issue,) = judge(summary | {"share": 0.5})
    assert issue.severity == "warning"
    for said in ("3 of 4 training objects, 50%", "50% are below 32 px in the input of 200 x 100 px", "=[200,400]"):
        assert said in issue.sentence
    assert not {"which", "finer"} & set(issue.sentence.split())  # nothing was fitted, and the first level is fine
    coarse = [PriorLevel((10, 25), None, 30, None, ())]
    (issue,) = judge(summary | {"share": 0.49}, levels=coarse, fitted_share=0.9, larger_share=0.95)
    assert issue.severity == "error"  # most objects have no prior but a forced one
    for said in ("the fitted priors, which reach 90%", "=[200,400], which would reach 95%", "steps of 10 px"):
        assert said in issue.sentence


def test_unreached_objects_are_named_the_worst_first() -> None:
    boxes = np.array([[0, 0, 0.5, 0.5], [0, 0, 0.1, 0.2], [0.5, 0, 1, 0.1]])
    iou = np.array([0.4, 0.5, 0.3])
    assert describe_unreached(boxes, iou, "object {}".format, (100, 200), iou_threshold=0.5) == [
        "object 2 of 100.0 x 10.0 px has a best IoU of 0.30",
        "object 0 of 100.0 x 50.0 px has a best IoU of 0.40",
    ]
