"""Toy images: which objects they show, where, in which colours, and which of them are difficult."""

from dataclasses import dataclass

import cv2
import numpy as np

from ssd_lightning.data.toy_shapes import TOY_CLASSES, Box, Outline, box_around, random_shape, rasterise, rim
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

CLEAR_CONTRAST = 28.0
OUTLINED_PROBABILITY = 0.3
FAINT_PROBABILITY = 0.04
TEXTURES = ("clouds", "ramp", "glow", "stripes", "weave", "speckle")


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
    canvas = _background(rng, size_px)
    owner = np.full(size_px, -1, dtype=np.int16)  # visible object of each pixel, -1 for the background
    drawn: list[tuple[int, Outline, float]] = []
    wanted = 0 if rng.random() < EMPTY_SHARE else int(rng.integers(1, MAX_OBJECTS + 1))
    for _ in range(wanted):
        label = int(rng.integers(1, len(TOY_CLASSES) + 1))
        outline = _place(rng, label, owner, [other.area for _, other, _ in drawn])
        if outline is not None:
            contrast = _paint(rng, canvas, outline)
            owner[outline.window][outline.coverage >= 0.5] = len(drawn)
            drawn.append((label, outline, contrast))
    objects = [_describe(*drawn[i], visible_mask=owner == i) for i in range(len(drawn))]
    return _photograph(rng, canvas), objects


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


def _background(rng: np.random.Generator, size_px: tuple[int, int]) -> np.ndarray:
    """Draw a textured background in muted colours, like sand, walls or fog: float32 `[H, W, 3]`, about 0..255."""
    canvas = np.empty((*size_px, 3), dtype=np.float32)
    canvas[:] = rng.uniform(40, 215) + _tint(rng, 15)
    canvas += _texture(rng, str(rng.choice(TEXTURES)), size_px)[..., None] * (rng.uniform(-45, 45) + _tint(rng, 10))
    canvas += _texture(rng, "clouds", size_px)[..., None] * _tint(rng, 15)
    return canvas


def _paint(rng: np.random.Generator, canvas: np.ndarray, outline: Outline) -> float:
    """Paint one object onto the canvas and return its contrast with the surroundings."""
    ground = canvas[outline.window]
    around = ground[outline.coverage < 0.5]
    around = around[:: max(1, len(around) // 200)]
    colour, contrast = _choose_colour(rng, around)
    fill = np.empty_like(ground)
    fill[:] = colour
    if rng.random() < 0.5:
        fill += _texture(rng, str(rng.choice(TEXTURES)), outline.coverage.shape)[..., None] * _tint(rng, 28)
    if rng.random() < OUTLINED_PROBABILITY:
        fill += rim(outline)[..., None] * np.float32(rng.choice([-80, 80]))
    ground += outline.coverage[..., None] * (fill - ground)
    return contrast


def _photograph(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Blur a little, add the sensor's noise, and round: uint8 `[H, W, 3]`."""
    if rng.random() < 0.5:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.3, 0.8))
    noisy = canvas + rng.standard_normal(canvas.shape, dtype=np.float32) * np.float32(rng.uniform(0, 6))
    return np.rint(noisy).clip(0, 255).astype(np.uint8)


def _choose_colour(rng: np.random.Generator, around: np.ndarray) -> tuple[np.ndarray, float]:
    """Pick a random colour that differs from the pixels `[P, 3]` around it, sometimes only slightly."""
    if rng.random() < FAINT_PROBABILITY:
        colours = np.median(around, 0) + rng.choice([-1, 1], (8, 3)) * rng.uniform(8, 20, (8, 3))
    else:  # of any hue
        hsv = np.stack([rng.uniform(0, 360, 16), rng.uniform(0.6, 1, 16), rng.uniform(0.5, 1, 16)], axis=1)
        colours = cv2.cvtColor(hsv[None].astype(np.float32), cv2.COLOR_HSV2RGB)[0] * 255
    colours = colours.clip(0, 255).astype(np.float32)
    distances = np.linalg.norm(_lab(colours)[:, None] - _lab(around)[None], axis=-1)
    low, middle = np.quantile(distances, [0.1, 0.5], axis=1)
    clear = np.flatnonzero(low > CLEAR_CONTRAST)
    best = int(clear[0]) if len(clear) else int(low.argmax())
    return colours[best], float(middle[best])


def _lab(colours: np.ndarray) -> np.ndarray:
    return cv2.cvtColor((colours[None] / 255).clip(0, 1), cv2.COLOR_RGB2LAB)[0]


def _tint(rng: np.random.Generator, strength: float) -> np.ndarray:
    return rng.uniform(-strength, strength, 3).astype(np.float32)


def _texture(rng: np.random.Generator, kind: str, size_px: tuple[int, int]) -> np.ndarray:
    """Draw one texture: float32 `[H, W]`, about -1..1."""
    height, width = size_px
    if kind == "clouds":
        field = np.zeros(size_px, dtype=np.float32)
        for octave in range(4):
            grid = rng.uniform(-1, 1, (3 * 2**octave, 3 * 2**octave)).astype(np.float32)
            field += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.6**octave
        return field / 1.5
    if kind == "speckle":
        noise = rng.standard_normal(size_px, dtype=np.float32)
        grains = cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.6, 2.0))
        return grains / (2 * grains.std() + 1e-6)
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None]
    angle = rng.uniform(0, 2 * np.pi)
    along = columns * np.float32(np.cos(angle)) + rows * np.float32(np.sin(angle))
    across = rows * np.float32(np.cos(angle)) - columns * np.float32(np.sin(angle))
    if kind == "ramp":
        return along
    if kind == "glow":
        centre = rng.uniform(-1, 1, 2).astype(np.float32)
        return 1 - np.sqrt((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2)
    frequency = np.float32(rng.uniform(3, 20))
    if kind == "stripes":
        sharpness = np.float32(rng.uniform(1, 4))
        return np.tanh(sharpness * np.sin(frequency * along))
    # Weave with soft waves, since checks would be squares without a box.
    return (np.sin(frequency * along) + np.sin(frequency * across)) / 2
