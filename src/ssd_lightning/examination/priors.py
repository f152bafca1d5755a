"""How a network's priors cover the training objects, and others that are fitted to them."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ssd_lightning.analysis.coverage import (
    best_priors,
    coverage_findings,
    coverage_summary,
    describe_unreached,
    finest_step_px,
)
from ssd_lightning.analysis.fitting import fit_levels
from ssd_lightning.analysis.objects import sides_px
from ssd_lightning.analysis.priors_file import priors_yaml
from ssd_lightning.examination.splits import Examination, objects_of
from ssd_lightning.ops.priors import Clip, PriorLevel, as_height_width
from ssd_lightning.visualization.coverage_plot import draw_coverage

log = logging.getLogger(__name__)

FITTED = "fitted"
"""Name of the fitted priors' file."""


def judge_priors(
    examination: Examination,
    levels: Sequence[PriorLevel],
    *,
    image_size: tuple[int, int],
    clip: Clip,
    directory: Path,
    data: str,
    fit: bool,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Measure the coverage and draw it; fit priors and write them as a choice of `priors=`.

    Args:
        examination: takes the findings.
        levels: of the network, with their grids.
        image_size: of its input, (height, width).
        clip: as `make_priors` has it.
        directory: takes `coverage.png` and `priors/fitted.yaml`.
        data: name of the data set, for the file.
        fit: whether to fit priors.
        seed: of the fit.

    Returns:
        The coverage, and `file` and `coverage` of the fitted priors, in plain values.
    """
    dataset = examination.datasets["train"]
    size = image_size
    objects = objects_of(dataset.records, partial(examination.resize.placement, image_size=size))
    boxes = objects.boxes_xyxy
    before = best_priors(boxes, levels, size, clip)
    paths = [str(record.image_path) for record in dataset.records]
    coverage = coverage_summary(boxes, before.iou, size)
    coverage["unreached"] = describe_unreached(objects, before.iou, paths, dataset.class_names, size)
    judge = partial(coverage_findings, coverage, image_size=size, finest_step_px=finest_step_px(levels, size))
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
        examination.findings += judge()
        return coverage, None
    log.info("fitting priors to %d objects", len(boxes))
    found = fit_levels(boxes, levels, size, clip, seed=seed)
    after = coverage_summary(boxes, found.after.iou, size)
    larger_share = None
    if judge():  # priors that miss many
        larger = coverage_summary(boxes, fit_to_twice_the_input(boxes, levels, size, clip, seed=seed), size)
        larger_share = larger["share"]
    examination.findings += judge(fitted_share=after["share"], larger_share=larger_share)
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


def fit_to_twice_the_input(
    boxes_xyxy: np.ndarray, levels: Sequence[PriorLevel], image_size: tuple[int, int], clip: Clip, *, seed: int
) -> np.ndarray:
    """Give the best IoU `[N]` of each object with priors fitted to an input of twice the height and width.

    The maps of the network then have twice as many rows and columns, so that a cell is half as large beside an object.
    """
    doubled = []
    for level in levels:
        assert level.grid_size is not None
        rows, columns = as_height_width(level.grid_size)
        max_size = None if level.max_size is None else 2 * level.max_size
        grid = (2 * rows, 2 * columns)
        doubled.append(replace(level, grid_size=grid, min_size=2 * level.min_size, max_size=max_size))
    height, width = image_size
    return fit_levels(boxes_xyxy, doubled, (2 * height, 2 * width), clip, seed=seed, starts=2).after.iou
