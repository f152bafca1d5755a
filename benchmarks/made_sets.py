"""Make three small data sets for `real_sets.py --own-set`, which nothing was tuned on.

    python benchmarks/made_sets.py --data-root DATA --out made
    python benchmarks/real_sets.py --data-root made --own-set fruit data=auto --own-set boards data=auto \\
        --own-set plates data=auto --split valid --out outputs/made --weights mobilenet_v2-b0353104.pth

- `fruit`: five kinds of drawn fruit before blurred backgrounds, as COCO; 160 images to train, 40 each to validate and
  test.
- `boards`: the photographs of Cards that only show nine, ten, jack and queen, as labelImg writes them. Training has six
  images of each class, 21 in all.
- `plates`: small number plates pasted on photographs of Aerial Maritime and Cards, as YOLO; 200, 50 and 50 images.

Every call makes the same sets.
"""

import argparse
import json
import math
import shutil
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

FRUIT = ("apple", "banana", "grape", "pear", "strawberry")
COLOURS = ((200, 40, 40), (235, 210, 60), (110, 50, 140), (150, 190, 60), (220, 30, 60))
BOARDS = {"nine", "ten", "jack", "queen"}
Point = tuple[float, float]


def main(command_line: Sequence[str] | None = None) -> None:
    """Make the sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="folder with the sets of real_sets.py")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    arguments = parser.parse_args(command_line)
    arguments.out.mkdir(parents=True)
    random = Random(7)  # noqa: S311
    for split, count in (("train", 160), ("valid", 40), ("test", 40)):
        make_fruit(arguments.out / "fruit" / split, count, random)
    make_boards(arguments.data_root / "cards", arguments.out / "boards", random)
    make_plates(arguments.data_root, arguments.out / "plates", random)


def make_fruit(folder: Path, count: int, random: Random) -> None:
    """Draw the images of a split, with the JSON of Roboflow's COCO."""
    folder.mkdir(parents=True)
    images, objects = [], []
    for number in range(count):
        width, height = random.choice([(640, 480), (480, 640), (512, 512)])
        image = background(width, height, random)
        draw = ImageDraw.Draw(image)
        for _ in range(10):
            line = [(random.randrange(width), random.randrange(height)) for _ in range(3)]
            draw.line(line, fill=tuple(random.randint(0, 255) for _ in range(3)), width=random.randint(1, 5))
        name = f"{folder.name}_{number:03d}.png"
        images.append({"id": number + 1, "file_name": name, "width": width, "height": height})
        placed: list[tuple[float, float, float]] = []
        for _ in range(random.randint(1, 7)):
            size = random.uniform(40, 200) * random.choice([0.6, 1, 1])
            x, y = random.uniform(0.7 * size, width - 0.7 * size), random.uniform(0.7 * size, height - 0.7 * size)
            if any(max(abs(x - u), abs(y - v)) < 0.6 * (size + other) for u, v, other in placed):
                continue
            placed.append((x, y, size))
            kind = random.randrange(len(FRUIT))
            xs, ys = zip(*draw_fruit(kind, draw, (x, y), size, random), strict=True)
            left, top, right, bottom = max(0, min(xs)), max(0, min(ys)), min(width, max(xs)), min(height, max(ys))
            box = {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
            objects.append(
                {"id": len(objects) + 1, "image_id": number + 1, "category_id": kind + 1, **box, "iscrowd": 0}
            )
        image.save(folder / name)
    categories = [{"id": number, "name": name} for number, name in enumerate(FRUIT, start=1)]
    content = {"images": images, "annotations": objects, "categories": categories}
    (folder / "_annotations.coco.json").write_text(json.dumps(content))


def background(width: int, height: int, random: Random) -> Image.Image:
    """Draw soft spots of any colour."""
    rng = np.random.default_rng(random.randrange(1 << 30))
    spots = Image.fromarray(rng.integers(0, 255, (height // 32, width // 32, 3), dtype=np.uint8))
    blurred = spots.resize((width, height), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(6))
    plain = Image.new("RGB", (width, height), tuple(random.randint(60, 255) for _ in range(3)))
    return Image.blend(blurred, plain, 0.6)


def draw_fruit(kind: int, draw: ImageDraw.ImageDraw, centre: Point, size: float, random: Random) -> list[Point]:
    """Draw one fruit, turned by up to .6 rad, and return the points of its outline."""
    angle, points = random.uniform(-0.6, 0.6), []
    turned = angle
    if FRUIT[kind] == "strawberry":
        colour = jittered(COLOURS[kind], random)
        corners = [(-0.4, -0.3), (0, -0.42), (0.4, -0.3), (0.3, 0.1), (0, 0.5), (-0.3, 0.1)]
        points = placed_at([(x * size, y * size) for x, y in corners], angle, centre)
        draw.polygon(points, fill=colour, outline=(60, 10, 10))
        for _ in range(12):
            seed = [(random.uniform(-0.25, 0.25) * size, random.uniform(-0.25, 0.2) * size)]
            draw.point(placed_at(seed, angle, centre), fill=(250, 240, 120))
        return points
    colour = jittered(COLOURS[kind], random)
    if FRUIT[kind] == "banana":
        turned += random.choice([0, math.pi])
        outer = [(math.cos(t / 24 * math.pi) * 0.6, math.sin(t / 24 * math.pi) * 0.6) for t in range(25)]
        inner = [(math.cos(t / 24 * math.pi) * 0.58, math.sin(t / 24 * math.pi) * 0.32) for t in range(24, -1, -1)]
        points = placed_at([(x * size, y * size) for x, y in outer + inner], turned, centre)
        draw.polygon(points, fill=colour, outline=(90, 70, 10))
        return points
    ellipses = {
        "apple": [(0, 0, 0.5, 0.45)],
        "grape": [
            ((k - (3 - row) / 2) * 0.24, (row - 1.5) * 0.22, 0.14, 0.14) for row in range(4) for k in range(4 - row)
        ],
        "pear": [(0, -0.22, 0.22, 0.3), (0, 0.15, 0.38, 0.36)],
    }[FRUIT[kind]]
    corners = 20 if FRUIT[kind] == "grape" else 40
    for x, y, rx, ry in ellipses:
        angles = [2 * math.pi * corner / corners for corner in range(corners)]
        outline = [((x + rx * math.cos(t)) * size, (y + ry * math.sin(t)) * size) for t in angles]
        points += placed_at(outline, angle, centre)
        draw.polygon(points[-corners:], fill=colour, outline=(40, 30, 20))
    if FRUIT[kind] == "apple":
        stalk = placed_at([(0, -0.4 * size), (0.08 * size, -0.62 * size)], angle, centre)
        draw.line(stalk, fill=(80, 50, 20), width=max(1, int(size * 0.05)))
        points += stalk
    return points


def placed_at(points: Sequence[Point], angle: float, centre: Point) -> list[Point]:
    """Turn points around the origin, and move them to a centre."""
    cos, sin = math.cos(angle), math.sin(angle)
    return [(centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos) for x, y in points]


def jittered(colour: tuple[int, int, int], random: Random) -> tuple[int, ...]:
    """Change a colour a little."""
    return tuple(max(0, min(255, value + random.randint(-30, 30))) for value in colour)


def make_boards(cards: Path, folder: Path, random: Random) -> None:
    """Copy the images and XML files that show no other classes."""
    found = []
    for path in sorted(cards.rglob("*.xml")):
        names = {one.findtext("name") or "" for one in ET.parse(path).getroot().findall("object")}  # noqa: S314
        if names <= BOARDS:
            found.append((path, names))
    random.shuffle(found)
    counts: Counter[str] = Counter()
    train = []
    for path, names in found:
        if all(counts[name] < 6 for name in names):
            train.append(path)
            counts.update(names)
    rest = [path for path, _ in found if path not in train]
    for split, paths in {"train": train, "valid": rest[:60], "test": rest[60:120]}.items():
        (folder / split).mkdir(parents=True)
        for path in paths:
            (image,) = (one for one in path.parent.glob(f"{path.stem}.*") if one.suffix.lower() in (".jpg", ".jpeg"))
            shutil.copy(path, folder / split / path.name)
            shutil.copy(image, folder / split / image.name)


def make_plates(data_root: Path, folder: Path, random: Random) -> None:
    """Paste plates on photographs."""
    photographs = sorted((data_root / "aerial_maritime").rglob("*.jpg")) + sorted((data_root / "cards").rglob("*.jp*g"))
    random.shuffle(photographs)
    font = ImageFont.load_default(size=40)
    for split, part in (("train", slice(0, 200)), ("valid", slice(200, 250)), ("test", slice(250, 300))):
        images, labels = folder / split / "images", folder / split / "labels"
        images.mkdir(parents=True)
        labels.mkdir()
        for number, path in enumerate(photographs[part]):
            image = Image.open(path).convert("RGB")
            image.thumbnail((800, 800))
            lines = [paste_plate(image, font, random) for _ in range(random.choice([0, 1, 1, 1, 2, 3]))]
            image.filter(ImageFilter.GaussianBlur(0.5)).save(images / f"{number:04d}.jpg", quality=88)
            (labels / f"{number:04d}.txt").write_text("".join(f"{line}\n" for line in lines))
    settings = "train: train/images\nval: valid/images\ntest: test/images\nnc: 1\nnames: [plate]\n"
    (folder / "data.yaml").write_text(settings)


def paste_plate(image: Image.Image, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, random: Random) -> str:
    """Paste one plate, and return its line of the label file."""
    text = "".join(random.choice("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(2)) + "-"
    text += "".join(random.choice("0123456789") for _ in range(4))
    plate = Image.new("RGBA", (220, 60), random.choice([(240, 240, 235, 255), (235, 200, 60, 255)]))
    draw = ImageDraw.Draw(plate)
    draw.text((12, 6), text, fill=(20, 20, 30, 255), font=font)
    draw.rectangle((0, 0, 219, 59), outline=(10, 10, 10, 255), width=3)
    width = int(image.width * random.uniform(0.04, 0.12))
    height = max(4, int(width * 60 / 220 * random.uniform(0.8, 1.1)))
    plate = plate.resize((width, height), Image.Resampling.LANCZOS)
    plate = plate.rotate(random.uniform(-15, 15), expand=True, resample=Image.Resampling.BICUBIC)
    x, y = random.randrange(0, image.width - plate.width), random.randrange(0, image.height - plate.height)
    light = random.uniform(0.4, 1)
    image.paste(plate.convert("RGB").point(lambda value: int(value * light)), (x, y), plate.getchannel("A"))
    centre_x, centre_y = (x + plate.width / 2) / image.width, (y + plate.height / 2) / image.height
    return f"0 {centre_x:.6f} {centre_y:.6f} {plate.width / image.width:.6f} {plate.height / image.height:.6f}"


if __name__ == "__main__":
    main()
