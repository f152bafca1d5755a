"""Coverage of the ground truth by priors: the best IoU of each object with any prior.

Training images are cropped and expanded before matching; here they are unchanged.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ssd_lightning.analysis.issues import Issue
from ssd_lightning.analysis.objects import mean_sides_px, sides_px
from ssd_lightning.ops.priors import Clip, PriorLevel

PAPER_IOU_THRESHOLD = 0.5
"""IoU threshold of a match that is not forced (SSD paper, section 2.2)."""
LEAST_SHARE = 0.8
"""Fraction of training objects reached by priors. Published priors reach more on the sets they were made for."""
SPOILING_SHARE = 0.5
"""Below this fraction most objects only have their forced positive, and a run wastes its time."""
SMALL_PX = 32
"""COCO's limit for small objects, applied to the network's input; SSD's published levels start near this size."""
SIZE_EDGES_PX = (16, 32, 64, 128, 256)
"""Edges of the square root of a box's area, in pixels of the network's input."""
SIZE_NAMES = (
    f"below {SIZE_EDGES_PX[0]} px",
    *(f"{low} to {high} px" for low, high in pairwise(SIZE_EDGES_PX)),
    f"{SIZE_EDGES_PX[-1]} px and more",
)
FINEST_PUBLISHED_PX = 8
"""Steps of the first level of SSD300 and SSD512."""
RATIO_EDGES = (1 / 3, 1 / 1.5, 1.5, 3.0)
"""Edges of width : height."""
RATIO_NAMES = ("taller than 1:3", "1:3 to 1:1.5", "about square", "1.5:1 to 3:1", "wider than 3:1")


class BestPriors(NamedTuple):
    """The best prior of every object; the first one among equals."""

    iou: np.ndarray
    """`[N]`."""
    level: np.ndarray
    """int64 `[N]`: index of the feature map."""
    kind: np.ndarray
    """int64 `[N]`: index of the box within its cell, in the order of `PriorLevel.sizes`."""


def level_ious(boxes_xyxy: np.ndarray, level: PriorLevel, image_size: tuple[int, int], clip: Clip) -> np.ndarray:
    """Return the best IoU of every object with each box shape of a level, over all its cells.

    The overlap of two boxes is the product of the overlaps of their columns and of their rows. Each decreases with the
    distance of the centres. So the nearest cell of a grid is the best, and no other must be checked.

    Boxes `[N, 4]` are normalised, `level` has a grid size, `image_size` is the input's (height, width), `clip` is as in
    `make_priors`. Returns `[N, boxes_per_cell]`.
    """
    height, width = image_size
    (rows, columns), (step_y, step_x) = level.grid, level.steps(image_size)
    shapes = np.array(level.sizes()) / (width, height)  # [boxes, 2]
    if clip:
        shapes = shapes.clip(0, 1)
    overlap = np.ones((len(boxes_xyxy), len(shapes)))
    for axis, (cells, side, step) in enumerate(((columns, width, step_x), (rows, height, step_y))):
        centres = (np.arange(cells) + 0.5) * step / side
        if clip is True:
            centres = centres.clip(0, 1)
        low, high = boxes_xyxy[:, axis], boxes_xyxy[:, axis + 2]
        centre = (low + high) / 2
        nearest = centres[np.searchsorted((centres[1:] + centres[:-1]) / 2, centre)]
        start = np.maximum(low[:, None], nearest[:, None] - shapes[None, :, axis] / 2)
        end = np.minimum(high[:, None], nearest[:, None] + shapes[None, :, axis] / 2)
        overlap *= (end - start).clip(min=0)
    areas = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1)
    return overlap / (areas[:, None] + shapes.prod(axis=1)[None] - overlap)


def best_priors(
    boxes_xyxy: np.ndarray, levels: Sequence[PriorLevel], image_size: tuple[int, int], clip: Clip = False
) -> BestPriors:
    """Find the best prior of every object.

    Boxes `[N, 4]` are normalised and have areas; levels have grid sizes.
    """
    best = BestPriors(np.full(len(boxes_xyxy), -1.0), *(np.zeros(len(boxes_xyxy), np.int64) for _ in range(2)))
    for index, level in enumerate(levels):
        ious = level_ious(boxes_xyxy, level, image_size, clip)
        kind = ious.argmax(axis=1)
        highest = ious[np.arange(len(ious)), kind]
        better = highest > best.iou
        best.iou[better], best.level[better], best.kind[better] = highest[better], index, kind[better]
    return best


def size_bands(boxes_xyxy: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Return the index into `SIZE_NAMES` of normalised boxes in a network's input (height, width)."""
    return np.digitize(mean_sides_px(boxes_xyxy, image_size), SIZE_EDGES_PX)


def coverage_summary(
    boxes_xyxy: np.ndarray, iou: np.ndarray, image_size: tuple[int, int], *, iou_threshold: float = PAPER_IOU_THRESHOLD
) -> dict[str, Any]:
    """Describe coverage in plain values: in total, by size and by aspect ratio.

    Boxes `[N, 4]` are normalised, `iou` `[N]` is the best of each with a prior, `image_size` is the input's (height,
    width). A prior of `iou_threshold` reaches an object.
    """

    def share(iou: np.ndarray) -> dict[str, Any]:
        reached = int((iou >= iou_threshold).sum())
        return {
            "objects": len(iou),
            "reached": reached,
            "share": reached / len(iou) if len(iou) else None,
            "mean_iou": float(iou.mean()) if len(iou) else None,
        }

    sides = sides_px(boxes_xyxy, image_size)
    by_size = size_bands(boxes_xyxy, image_size)
    by_ratio = np.digitize(sides[:, 0] / sides[:, 1], RATIO_EDGES)
    return {
        "threshold": iou_threshold,
        **share(iou),
        "by_size": {name: share(iou[by_size == i]) for i, name in enumerate(SIZE_NAMES)},
        "by_ratio": {name: share(iou[by_ratio == i]) for i, name in enumerate(RATIO_NAMES)},
    }


def describe_unreached(
    boxes_xyxy: np.ndarray,
    iou: np.ndarray,
    name: Callable[[int], str],
    image_size: tuple[int, int],
    *,
    iou_threshold: float,
) -> list[str]:
    """Describe the objects that no prior reaches, worst first, one sentence each.

    `iou` `[N]` is the best IoU of each object with a prior; `name` names an object by its index.
    """
    sides = sides_px(boxes_xyxy, image_size)
    order = np.argsort(iou, kind="stable")
    return [
        f"{name(index)} of {sides[index, 0]:.1f} x {sides[index, 1]:.1f} px has a best IoU of {iou[index]:.2f}"
        for index in order[iou[order] < iou_threshold].tolist()
    ]


def coverage_issues(
    summary: Mapping[str, Any],
    *,
    levels: Sequence[PriorLevel],
    image_size: tuple[int, int],
    fitted_share: float | None = None,
    larger_share: float | None = None,
) -> list[Issue]:
    """Warn about priors that miss many training objects, and suggest remedies.

    The shares are those that fitted priors would reach, in this input and in one of twice the height and width; None if
    they were not fitted.
    """
    share = summary["share"]
    if share is None or share >= LEAST_SHARE:
        return []
    small = sum(summary["by_size"][name]["objects"] for name in SIZE_NAMES[: SIZE_EDGES_PX.index(SMALL_PX) + 1])
    height, width = image_size
    helps = [] if fitted_share is None else [f"the fitted priors, which reach {fitted_share:.0%} (priors=auto)"]
    # A larger input alone changes nothing, since published priors scale with it.
    larger = f"a larger input with priors fitted to it, such as image_size=[{2 * height},{2 * width}]"
    helps.append(larger if larger_share is None else f"{larger}, which would reach {larger_share:.0%}")
    finest_px = min(max(level.steps(image_size)) for level in levels)
    if finest_px > FINEST_PUBLISHED_PX:
        helps.append(f"a finer first level: this one has steps of {finest_px:.0f} px, that of model=ssdlite320_p3 of 8")
    sentence = (
        f"{summary['reached']} of {summary['objects']} training objects, {share:.0%}, have a prior of IoU >= "
        f"{summary['threshold']:g}; each of the others gets one prior to learn from, however badly it fits. "
        f"{small / summary['objects']:.0%} are below {SMALL_PX} px in the input of {width} x {height} px. "
        f"What helps: {'; '.join(helps)}"
    )
    return [Issue("error" if share < SPOILING_SHARE else "warning", "coverage", "train", sentence)]
