"""Colours of the toy images: textured backgrounds, painted objects and camera noise."""

import cv2
import numpy as np

from ssd_lightning.data.toy_shapes import Outline, rim

CLEAR_CONTRAST = 28.0
OUTLINED_PROBABILITY = 0.3
FAINT_PROBABILITY = 0.04

_TEXTURES = ("clouds", "ramp", "glow", "stripes", "weave", "speckle")


def draw_background(rng: np.random.Generator, size_px: tuple[int, int]) -> np.ndarray:
    """Draw a textured background in muted colours, like sand, walls or fog: float32 `[H, W, 3]`, about 0..255."""
    canvas = np.empty((*size_px, 3), dtype=np.float32)
    canvas[:] = rng.uniform(40, 215) + _tint(rng, 15)
    canvas += _texture(rng, str(rng.choice(_TEXTURES)), size_px)[..., None] * (rng.uniform(-45, 45) + _tint(rng, 10))
    canvas += _texture(rng, "clouds", size_px)[..., None] * _tint(rng, 15)
    return canvas


def paint(rng: np.random.Generator, canvas: np.ndarray, outline: Outline) -> float:
    """Paint one object onto the canvas and return its contrast with the surroundings."""
    ground = canvas[outline.window]
    around = ground[outline.coverage < 0.5]
    around = around[:: max(1, len(around) // 200)]
    colour, contrast = _choose_colour(rng, around)
    fill = np.empty_like(ground)
    fill[:] = colour
    if rng.random() < 0.5:
        fill += _texture(rng, str(rng.choice(_TEXTURES)), outline.coverage.shape)[..., None] * _tint(rng, 28)
    if rng.random() < OUTLINED_PROBABILITY:
        fill += rim(outline)[..., None] * np.float32(rng.choice([-80, 80]))
    ground += outline.coverage[..., None] * (fill - ground)
    return contrast


def photograph(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Blur a little, add the sensor's noise, and round: uint8 `[H, W, 3]`."""
    if rng.random() < 0.5:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.3, 0.8))
    noisy = canvas + rng.standard_normal(canvas.shape, dtype=np.float32) * np.float32(rng.uniform(0, 6))
    return np.rint(noisy).clip(0, 255).astype(np.uint8)


def _choose_colour(rng: np.random.Generator, around: np.ndarray) -> tuple[np.ndarray, float]:
    """Pick a random colour that differs from the pixels `[P, 3]` around it, sometimes only slightly."""
    if rng.random() < FAINT_PROBABILITY:
        colours = np.median(around, 0) + rng.choice([-1, 1], (8, 3)) * rng.uniform(8, 20, (8, 3))
    else:
        colours = _vivid_colours(rng, 16)
    colours = colours.clip(0, 255).astype(np.float32)
    distances = np.linalg.norm(_lab(colours)[:, None] - _lab(around)[None], axis=-1)
    low, middle = np.quantile(distances, [0.1, 0.5], axis=1)
    clear = np.flatnonzero(low > CLEAR_CONTRAST)
    best = int(clear[0]) if len(clear) else int(low.argmax())
    return colours[best], float(middle[best])


def _vivid_colours(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw colours of any hue: float32 `[count, 3]`, RGB 0..255."""
    hsv = np.stack([rng.uniform(0, 360, count), rng.uniform(0.6, 1, count), rng.uniform(0.5, 1, count)], axis=1)
    return cv2.cvtColor(hsv[None].astype(np.float32), cv2.COLOR_HSV2RGB)[0] * 255


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
