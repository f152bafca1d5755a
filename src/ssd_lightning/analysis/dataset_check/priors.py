"""Coverage of the training objects by the network's priors and by fitted ones, which become a choice of `priors=`."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ssd_lightning.analysis.coverage import best_priors, coverage_issues, coverage_summary, describe_unreached
from ssd_lightning.analysis.dataset_check.splits import DatasetCheck
from ssd_lightning.analysis.fitting import fit_levels, fit_to_twice_the_input
from ssd_lightning.analysis.objects import boxes_in_input, object_namer, sides_px
from ssd_lightning.models.config import to_config
from ssd_lightning.ops.priors import Clip, PriorLevel
from ssd_lightning.visualization.coverage_plot import PriorSet, draw_coverage

log = logging.getLogger(__name__)

FITTED = "fitted"
"""File name of the fitted priors."""


def judge_priors(
    check: DatasetCheck,
    levels: Sequence[PriorLevel],
    *,
    image_size: tuple[int, int],
    clip: Clip,
    iou_threshold: float,
    directory: Path,
    data: str,
    fit: bool,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Measure and draw the coverage; fit priors and write them as a choice of `priors=`.

    `iou_threshold` is that of the run's matcher: from this IoU, a prior reaches an object.

    Returns:
        The coverage, and `file` and `coverage` of the fitted priors, in plain values.
    """
    dataset = check.datasets["train"]
    boxes = boxes_in_input(dataset, check.resize, image_size)
    before = best_priors(boxes, levels, image_size, clip)
    summary = partial(coverage_summary, image_size=image_size, iou_threshold=iou_threshold)
    coverage = summary(boxes, before.iou)
    coverage["unreached"] = describe_unreached(
        boxes, before.iou, object_namer(dataset), image_size, iou_threshold=iou_threshold
    )
    judge = partial(coverage_issues, coverage, levels=levels, image_size=image_size)
    sets = [PriorSet("these priors", coverage, before.iou, _shapes(levels))]
    fitted = fitted_share = larger_share = None
    if fit:
        log.info("fitting priors to %d objects", len(boxes))
        found = fit_levels(boxes, levels, image_size, clip, seed=seed)
        after = summary(boxes, found.after.iou)
        fitted_share = after["share"]
        sets.append(PriorSet("fitted priors", after, found.after.iou, _shapes(found.levels)))
        if judge():  # the priors miss many objects
            larger = fit_to_twice_the_input(boxes, levels, image_size, clip, seed=seed)
            larger_share = summary(boxes, larger)["share"]
        shares = {"before": f"{coverage['share']:.1%}", "after": f"{fitted_share:.1%}"}
        path = directory / "priors" / f"{FITTED}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = priors_yaml(
            found.levels,
            clip=clip,
            image_size=image_size,
            data=data,
            objects=len(boxes),
            iou_threshold=iou_threshold,
            **shares,
        )
        path.write_text(text, encoding="utf-8")
        fitted = {"file": str(path), "coverage": after}
    check.issues += judge(fitted_share=fitted_share, larger_share=larger_share)
    draw_coverage(directory / "coverage.png", sides_px(boxes, image_size), sets)
    return coverage, fitted


def priors_yaml(
    levels: Sequence[PriorLevel],
    *,
    clip: Clip,
    image_size: tuple[int, int],
    data: str,
    objects: int,
    iou_threshold: float,
    before: str,
    after: str,
) -> str:
    """Write levels as a file of `conf/priors/`. It includes their grids, so that another network rejects them.

    `before` and `after` are the fractions, as text, of the objects that the previous and the fitted priors reach.
    """
    height, width = image_size
    # Not a plain list: a recipe's `priors: {levels: ...}` would not merge with it, with an obscure YAML error.
    choice = {"_target_": "builtins.tuple", "_args_": ["${priors.fitted}"]}
    content = {"fitted": to_config(levels), "levels": choice, "clip": clip}
    return f"""\
# Priors fitted to {objects} objects of {data} in an input of {width} x {height} px: {before} of them have a prior of
# IoU >= {iou_threshold:g} with the priors before, {after} with these.
# A recipe that sets priors.levels needs model.levels='${{priors.fitted}}' too.
{yaml.safe_dump(content, sort_keys=False, default_flow_style=None)}"""


def _shapes(levels: Sequence[PriorLevel]) -> list[tuple[float, float]]:
    return [shape for level in levels for shape in level.sizes()]
