"""Choose the images, objects and classes of a run from the annotations of a split."""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ssd_lightning.data.annotation_checks import Problem
from ssd_lightning.data.annotations import Annotations, AnnotationTable
from ssd_lightning.data.class_rules import EXCLUDED, ClassRules, map_labels, unknown_class_problems
from ssd_lightning.data.columns import Columns
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.held_out import HeldOut, Subset
from ssd_lightning.errors import listed, one_line

log = logging.getLogger(__name__)

OnError = Literal["raise", "skip", "clip"]


def choose(
    found: Annotations,
    *,
    classes: ClassRules,
    on_error: OnError,
    max_images: int | None,
    class_names: Sequence[str] | None = None,
    keep_difficult: bool = True,
    part: Subset = "all",
    **held_out: Any,
) -> DetectionDataset:
    """Choose images, objects and classes; for the arguments see `DatasetOpener` and its `__call__`."""
    shares = HeldOut(**held_out)
    columns = found.columns
    class_names, label_map = map_labels(found, class_names, classes)
    in_part = shares.in_subset(part, columns, label_map)
    rows = np.flatnonzero(in_part)[:max_images]
    is_cut = len(rows) == max_images
    if is_cut:
        in_part[rows[-1] + 1 :] = False
    labels = label_map[columns.labels]
    in_chosen = np.repeat(in_part, np.diff(columns.starts))
    is_wanted = (labels != EXCLUDED) & (keep_difficult | ~columns.difficult)
    keeps = (labels > 0) & is_wanted
    if on_error != "clip":
        keeps &= ~columns.overhangs
    elif num_clipped := int((columns.overhangs & keeps & in_chosen).sum()):
        log.warning("%d boxes reach out of their images and are clipped", num_clipped)
    problems = unknown_class_problems(found, np.flatnonzero((labels == 0) & is_wanted & in_chosen), class_names)
    problems += [
        problem
        for problem in found.problems
        if not (problem.label and label_map[problem.label] == EXCLUDED)
        and (keep_difficult or not problem.difficult)
        and not (problem.is_clipped and on_error == "clip")
        and not (is_cut and problem.position > rows[-1])
        and _concerns(problem, part, shares, columns, in_part)
    ]
    problems.sort(key=lambda problem: problem.position)
    table = AnnotationTable(columns, rows=rows, keeps=keeps, label_map=label_map)
    if on_error != "raise" and problems:
        table = _without_spoilt(table, problems)
    num_skipped = int((in_chosen & columns.difficult & (labels != EXCLUDED)).sum()) if not keep_difficult else 0
    return DetectionDataset(annotations=table, class_names=class_names, dropped=problems, num_skipped=num_skipped)


def _without_spoilt(table: AnnotationTable, problems: Sequence[Problem]) -> AnnotationTable:
    """Leave out images that have lost all their objects, since they would teach that these are background.

    Objects of an unknown class are no reason: for the known classes they are background.
    """
    faulty = {problem.image_id for problem in problems if problem.item and problem.kind != "unknown_class"}
    empty = np.flatnonzero(table.counts == 0)
    spoilt = [index for index, image_id in zip(empty, table.select(empty).image_ids, strict=True) if image_id in faulty]
    if not spoilt:
        return table
    paths = listed(map(one_line, table.select(np.array(spoilt)).image_paths), separator="\n  ")
    log.warning("%d images are left out, since none of their objects can be used:\n  %s", len(spoilt), paths)
    return table.select(np.delete(np.arange(len(table)), spoilt))


def _concerns(problem: Problem, part: Subset, held_out: HeldOut, columns: Columns, in_part: np.ndarray) -> bool:
    """Tell whether a problem is one of a part: that of its image, or every part."""
    if problem.image_id is None or part == "all":
        return True
    if problem.position < len(in_part) and columns.image_ids[problem.position] == problem.image_id:
        return bool(in_part[problem.position])
    return held_out.subset_of(problem.image_id) == part  # the image itself cannot be used
