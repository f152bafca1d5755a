"""A stand-in for d2l.ai's bananas, which need a network: one yellow crescent an image, in the same layout."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE_PX = 256


def write_bananas(root: Path, *, num_train: int, num_val: int) -> dict[Path, tuple[int, int, int, int]]:
    """Write `bananas_train` and `bananas_val` with `label.csv` and `images/`, as d2l's archive has them.

    Returns:
        The images of `bananas_val`, and the box of each in pixels.
    """
    rng, boxes = np.random.default_rng(0), {}
    for split, count in (("bananas_train", num_train), ("bananas_val", num_val)):
        folder = root / split / "images"
        folder.mkdir(parents=True)
        with (root / split / "label.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["img_name", "label", "xmin", "ymin", "xmax", "ymax"])
            for index in range(count):
                image, boxes[folder / f"{index}.png"] = draw_banana(rng)
                image.save(folder / f"{index}.png")
                writer.writerow([f"{index}.png", 0, *boxes[folder / f"{index}.png"]])
    return {path: box for path, box in boxes.items() if "bananas_val" in path.parts}


def draw_banana(rng: np.random.Generator) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """Draw one image of 256 x 256 pixels and give the box of its banana in pixels."""
    clouds = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    image = clouds.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    mask = Image.new("L", image.size)
    x, y, start = rng.integers(8, 140), rng.integers(8, 140), rng.integers(0, 360)
    width, height = rng.integers(50, 100, 2)
    ImageDraw.Draw(mask).arc((x, y, x + width, y + height), start, start + 150, fill=255, width=14)
    image.paste((235, 205, 60), mask=mask)
    return image, mask.getbbox()
