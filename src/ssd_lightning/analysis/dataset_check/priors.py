"""Coverage of the training objects by the network's priors and by fitted ones."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ssd_lightning.analysis.coverage import (
    best_priors,
    coverage_issues,
    coverage_summary,
    describe_unreached,
    finest_step_px,
)
from ssd_lightning.analysis.dataset_check.splits import DatasetCheck, objects_of
from ssd_lightning.analysis.fitting import fit_levels, fit_to_twice_the_input
from ssd_lightning.analysis.objects import sides_px
from ssd_lightning.analysis.priors_file import priors_yaml
from ssd_lightning.ops.priors import Clip, PriorLevel
from ssd_lightning.visualization.coverage_plot import draw_coverage

log = logging.getLogger(__name__)

FITTED = "fitted"
"""File name of the fitted priors."""


def judge_priors(
    check: DatasetCheck,
    levels: Sequence[PriorLevel],
    *,
    image_size: tuple[int, int],
    clip: Clip,
    directory: Path,
    data: str,
    fit: bool,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Measure and draw the coverage; fit priors and write them as a choice of `priors=`.

    Args:
        check: collects the issues.
        levels: levels of the network, with their grids.
        image_size: size of the network's input, (height, width).
        clip: as in `make_priors`.
        directory: output folder for `coverage.png` and `priors/fitted.yaml`.
        data: name of the data set, for the file.
        fit: whether to fit priors.
        seed: seed of the fit.

    Returns:
        The coverage, and `file` and `coverage` of the fitted priors, in plain values.
    """
    dataset = check.datasets["train"]
    size = image_size
    objects = objects_of(dataset.annotations, partial(check.resize.placement, image_size=size))
    boxes = objects.boxes_xyxy
    before = best_priors(boxes, levels, size, clip)
    paths = list(dataset.annotations.image_paths)
    coverage = coverage_summary(boxes, before.iou, size)
    coverage["unreached"] = describe_unreached(objects, before.iou, paths, dataset.class_names, size)
    judge = partial(coverage_issues, coverage, image_size=size, finest_step_px=finest_step_px(levels, size))
    draw = partial(
        draw_coverage,
        directory / "coverage.png",
        sides_px=sides_px(boxes, size),
        threshold=coverage["threshold"],
        before=coverage,
        iou_before=before.iou,
        shapes_before=[shape for level in levels for shape in level.sizes()],
    )
    if not fit:
        draw()
        check.issues += judge()
        return coverage, None
    log.info("fitting priors to %d objects", len(boxes))
    found = fit_levels(boxes, levels, size, clip, seed=seed)
    after = coverage_summary(boxes, found.after.iou, size)
    larger_share = None
    if judge():  # the priors miss many objects
        larger = coverage_summary(boxes, fit_to_twice_the_input(boxes, levels, size, clip, seed=seed), size)
        larger_share = larger["share"]
    check.issues += judge(fitted_share=after["share"], larger_share=larger_share)
    draw(
        after=after,
        iou_after=found.after.iou,
        shapes_after=[shape for level in found.levels for shape in level.sizes()],
    )
    text = priors_yaml(
        found.levels,
        clip=clip,
        image_size=size,
        data=data,
        objects=len(boxes),
        before=f"{coverage['share']:.1%}",
        after=f"{after['share']:.1%}",
    )
    path = directory / "priors" / f"{FITTED}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return coverage, {"file": str(path), "coverage": after}
