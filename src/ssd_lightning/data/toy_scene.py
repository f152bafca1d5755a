"""Toy images: which objects they show, where, and which of them are difficult."""

from dataclasses import dataclass

import numpy as np

from ssd_lightning.data.toy_paint import draw_background, paint, photograph
from ssd_lightning.data.toy_shapes import TOY_CLASSES, Box, Outline, box_around, random_shape, rasterise
from ssd_lightning.data.windows import window_iou

SPLITS = ("train", "val", "test")

EMPTY_SHARE = 0.05
MAX_OBJECTS = 6
BORDER_PROBABILITY = 0.4
CROWDED_PROBABILITY = 0.2

MIN_AREA_PX = 12
MIN_VISIBLE_SHARE = 0.2
MAX_BOX_IOU = 0.45
"""Largest overlap of two boxes: the usual NMS could not keep both above it."""

DIFFICULT_VISIBLE_SHARE = 0.5
DIFFICULT_SIDE = 0.08
DIFFICULT_CONTRAST = 20.0


@dataclass(frozen=True)
class ToyObject:
    """One drawn object, as visible in the finished image."""

    label: int
    """1..C, an index into `TOY_CLASSES` plus one."""
    box_xyxy_px: Box
    """Tight around the visible pixels: 0-based, right and bottom edges exclusive."""
    visible_mask: np.ndarray
    """bool `[H, W]`: pixels that it covers by at least half and that no later object covers by half."""
    visible_share: float
    """Visible pixels over the area of the whole shape. Later objects and the image border both reduce it."""
    contrast: float
    """Median CIELAB distance of its colour from the pixels around it."""
    truncated: bool
    """Whether it extends over the image border."""
    difficult: bool


def draw_toy_image(
    *, seed: int, split: str, index: int, size_px: tuple[int, int]
) -> tuple[np.ndarray, list[ToyObject]]:
    """Draw one image: uint8 `[H, W, 3]` RGB and its objects, from the bottom to the top."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, SPLITS.index(split), index]))
    canvas = draw_background(rng, size_px)
    owner = np.full(size_px, -1, dtype=np.int16)  # visible object of each pixel, -1 for the background
    drawn: list[tuple[int, Outline, float]] = []
    wanted = 0 if rng.random() < EMPTY_SHARE else int(rng.integers(1, MAX_OBJECTS + 1))
    for _ in range(wanted):
        label = int(rng.integers(1, len(TOY_CLASSES) + 1))
        outline = _place(rng, label, owner, [other.area for _, other, _ in drawn])
        if outline is not None:
            contrast = paint(rng, canvas, outline)
            owner[outline.window][outline.coverage >= 0.5] = len(drawn)
            drawn.append((label, outline, contrast))
    objects = [_describe(*drawn[i], visible_mask=owner == i) for i in range(len(drawn))]
    return photograph(rng, canvas), objects


def _describe(label: int, outline: Outline, contrast: float, *, visible_mask: np.ndarray) -> ToyObject:
    box = box_around(visible_mask)
    side = max(box[2] - box[0], box[3] - box[1]) / min(visible_mask.shape)
    share = min(1.0, float(visible_mask.sum()) / outline.area)
    difficult = share < DIFFICULT_VISIBLE_SHARE or side < DIFFICULT_SIDE or contrast < DIFFICULT_CONTRAST
    return ToyObject(label, box, visible_mask, share, contrast, outline.truncated, difficult)


def _place(rng: np.random.Generator, label: int, owner: np.ndarray, areas: list[float]) -> Outline | None:
    """Find a position that keeps all objects visible; None if several trials fail."""
    crowded = bool(areas) and rng.random() < CROWDED_PROBABILITY
    least_share = MIN_VISIBLE_SHARE if crowded else 0.75
    for _ in range(20):
        contours, extent = random_shape(rng, label, min(owner.shape))
        corner = _corner_on_object(rng, extent, owner) if crowded else _corner(rng, extent, owner.shape)
        outline = rasterise([contour + corner for contour in contours], owner.shape)
        mask = outline.coverage >= 0.5
        if mask.sum() < max(MIN_AREA_PX, DIFFICULT_VISIBLE_SHARE * outline.area):
            continue
        after = owner.copy()
        after[outline.window][mask] = len(areas)
        before_px, after_px = (np.bincount(o.ravel() + 1, minlength=len(areas) + 2)[1:-1] for o in (owner, after))
        lost = (after_px < before_px) & (after_px < np.maximum(least_share * np.array(areas), MIN_AREA_PX))
        if lost.any():
            continue
        # Check all pairs: covering an object also shrinks its box, and may move it closer to that of a third.
        boxes = np.array([box_around(after == i) for i in range(len(areas) + 1)])
        if np.triu(window_iou(boxes, boxes), k=1).max() <= MAX_BOX_IOU:
            return outline
    return None


def _corner(rng: np.random.Generator, extent: np.ndarray, size_px: tuple[int, ...]) -> np.ndarray:
    outside = rng.uniform(0, 0.45) if rng.random() < BORDER_PROBABILITY else 0.0
    free_px = np.array(size_px[::-1]) - extent * (1 - 2 * outside)
    return free_px * rng.random(2) - extent * outside


def _corner_on_object(rng: np.random.Generator, extent: np.ndarray, owner: np.ndarray) -> np.ndarray:
    row, column = divmod(int(rng.choice(np.flatnonzero(owner >= 0))), owner.shape[1])
    return np.array([column, row]) - extent * rng.random(2)
