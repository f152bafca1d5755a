"""Draw the effect of augmentation: each annotated image next to the samples that the network sees."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ssd_lightning.visualization.colours import BLACK, class_colour
from ssd_lightning.visualization.fonts import drawable_names
from ssd_lightning.visualization.outlines import cut_at_border, draw_outline, line_width
from ssd_lightning.visualization.sheet import Key, Panel, frame, lay_out, shortened
from ssd_lightning.visualization.tags import draw_tag

MOST_TAGS = 8
"""Number of objects up to which class names are drawn; more would cover the objects."""
MOST_LETTERS = 24
"""Maximum letters of a class name at an object; the legend has more."""
MOST_KEYS = 24
"""Maximum classes in the legend."""


@dataclass(frozen=True)
class Sample:
    """An image with its objects.

    Attributes:
        image: uint8 `[H, W, 3]`.
        boxes_xyxy: float `[N, 4]`, normalised.
        labels: int `[N]`, 1..C.
        difficult: bool `[N]`.
        caption: text below the image.
    """

    image: np.ndarray
    boxes_xyxy: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    caption: str = ""


def draw_sample(sample: Sample, class_names: Sequence[str], *, within_px: tuple[int, int]) -> np.ndarray:
    """Draw the objects of an image in the colours of their classes, difficult ones dashed.

    Args:
        sample: the image; it is scaled to the largest size within `within_px` with its proportions kept.
        class_names: names of the classes 1..C.
        within_px: (height, width).

    Returns:
        A new image.
    """
    height, width = sample.image.shape[:2]
    scale = min(within_px[0] / height, within_px[1] / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = Image.fromarray(sample.image).resize(size, Image.Resampling.BICUBIC)
    draw, thickness = ImageDraw.Draw(canvas), max(2, line_width(canvas))
    boxes = np.asarray(sample.boxes_xyxy, dtype=np.float64).reshape(-1, 4) * np.array([*size, *size])
    rectangles = [cut_at_border(box, size) for box in boxes]
    visible = [(index, place) for index, place in enumerate(rectangles) if place is not None]
    for index, place in visible:
        colour = class_colour(int(sample.labels[index]))
        dash = 4 * thickness if sample.difficult[index] else 0
        draw_outline(draw, place, BLACK, thickness + 2, inset=-1, dash=dash)
        draw_outline(draw, place, colour, thickness, dash=dash)
    names = drawable_names(class_names)
    if len(visible) <= MOST_TAGS:
        obstacles = [place for _, place in visible]
        for index, place in visible:
            label = int(sample.labels[index])
            name = shortened(names[label - 1], MOST_LETTERS)
            obstacles.append(draw_tag(draw, size, place, name, class_colour(label), obstacles))
    return frame(np.asarray(canvas))


def draw_augmentation(
    rows: Sequence[Sequence[Sample]],
    class_names: Sequence[str],
    *,
    image_size: tuple[int, int],
    title: str,
    lines: Sequence[str] = (),
    header: Sequence[str] = (),
    cell_px: int = 224,
) -> np.ndarray:
    """Draw a row for each image: the original, then the samples that the network sees.

    Args:
        rows: samples of each row, with equal length.
        class_names: names of the classes 1..C.
        image_size: size of the network's input, (height, width): all cells have its proportions.
        title: title of the sheet.
        lines: text below the title.
        header: titles of the columns.
        cell_px: longer side of a cell.
    """
    scale = cell_px / max(image_size)
    cell = max(1, round(image_size[0] * scale)), max(1, round(image_size[1] * scale))
    panels = [
        Panel(draw_sample(sample, class_names, within_px=cell), lines=(sample.caption,) if sample.caption else ())
        for row in rows
        for sample in row
    ]
    samples = [sample for row in rows for sample in row]
    columns = max(len(row) for row in rows)
    return lay_out(
        panels, columns=columns, title=title, lines=lines, keys=class_keys(samples, class_names), header=header
    )


def class_keys(samples: Sequence[Sample], class_names: Sequence[str]) -> list[Key]:
    """Make a legend of the occurring classes, and of the dashes if there are any."""
    labels = sorted({int(label) for sample in samples for label in sample.labels})
    names = drawable_names(class_names)
    keys = [Key(names[label - 1], class_colour(label)) for label in labels[:MOST_KEYS]]
    if len(labels) > MOST_KEYS:
        keys.append(Key(f"and {len(labels) - MOST_KEYS} more classes", (160, 160, 160)))
    if any(bool(np.any(sample.difficult)) for sample in samples):
        keys.append(Key("difficult", (110, 110, 110), is_dashed=True))
    return keys
