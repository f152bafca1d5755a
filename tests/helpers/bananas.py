"""A stand-in for d2l.ai's bananas, which need a network: one yellow crescent an image, in the same layout."""

import csv
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIDE_PX = 256


def write_bananas(root: Path, *, num_train: int, num_val: int, seed: int = 0) -> None:
    """Write `bananas_train` and `bananas_val` with `label.csv` and `images/`, as d2l's archive has them."""
    rng = np.random.default_rng(seed)
    for split, count in (("bananas_train", num_train), ("bananas_val", num_val)):
        folder = root / split / "images"
        folder.mkdir(parents=True)
        with (root / split / "label.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["img_name", "label", "xmin", "ymin", "xmax", "ymax"])
            for index in range(count):
                image, box = draw_banana(rng)
                Image.fromarray(image).save(folder / f"{index}.png")
                writer.writerow([f"{index}.png", 0, *box])


def draw_banana(rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Draw one image `[256, 256, 3]` and the box of its banana in pixels."""
    coarse = rng.integers(0, 256, (rng.integers(2, 9),) * 2 + (3,), dtype=np.uint8)
    image = cv2.resize(coarse, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)
    image = np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
    length = int(rng.integers(24, 56))
    mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    centre = tuple(int(value) for value in rng.integers(length + 8, SIDE_PX - length - 8, 2))
    angle = float(rng.uniform(0, 360))
    bend, width = float(rng.uniform(0.35, 0.6)), float(rng.uniform(0.28, 0.4))
    cv2.ellipse(mask, centre, (length, int(length * bend) + 4), angle, 0, 180, 255, int(length * width))
    rows, columns = np.where(mask > 0)
    shade = np.linspace(0.75, 1.0, SIDE_PX)[:, None, None]
    banana = np.array([235, 205, 60]) * shade + rng.normal(0, 6, (SIDE_PX, SIDE_PX, 3))
    image = np.where(mask[..., None] > 0, np.clip(banana, 0, 255), image).astype(np.uint8)
    return image, (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
