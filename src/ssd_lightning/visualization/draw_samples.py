"""Draw the effect of augmentation: each annotated image next to the samples that the network sees."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ssd_lightning.visualization.boxes import TaggedBox, cut_at_border, draw_boxes, fitting_size, line_width
from ssd_lightning.visualization.colours import class_colour
from ssd_lightning.visualization.fonts import drawable_names
from ssd_lightning.visualization.sheet import Key, Panel, frame, lay_out, shortened

CELL_PX = 224
MOST_TAGS = 8
"""Number of objects up to which class names are drawn; more would cover the objects."""
MOST_LETTERS = 24
"""Maximum letters of a class name at an object; the legend has more."""
MOST_KEYS = 24
"""Maximum classes in the legend."""


@dataclass(frozen=True)
class Sample:
    """An image with its objects, and a text below it.

    Attributes:
        image: uint8 `[H, W, 3]`.
        boxes_xyxy: float `[N, 4]`, normalised.
        labels: int `[N]`, 1..C.
        difficult: bool `[N]`.
        caption: the text.
    """

    image: np.ndarray
    boxes_xyxy: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    caption: str = ""


def draw_sample(sample: Sample, class_names: Sequence[str], *, within_px: tuple[int, int]) -> np.ndarray:
    """Draw the objects of an image in the colours of their classes, difficult ones dashed.

    It is scaled to the largest size within `within_px`, (height, width), with its proportions kept.
    """
    size = fitting_size(sample.image, within_px[1], within_px[0])
    canvas = Image.fromarray(sample.image).resize(size, Image.Resampling.BICUBIC)
    thickness, names = max(2, line_width(canvas)), drawable_names(class_names)
    boxes = sample.boxes_xyxy.reshape(-1, 4) * np.array([*size, *size])
    visible = [(index, place) for index, box in enumerate(boxes) if (place := cut_at_border(box, size)) is not None]
    tagged = [
        TaggedBox(
            place,
            class_colour(int(sample.labels[index])),
            shortened(names[sample.labels[index] - 1], MOST_LETTERS) if len(visible) <= MOST_TAGS else "",
            dash=4 * thickness if sample.difficult[index] else 0,
        )
        for index, place in visible
    ]
    draw_boxes(canvas, tagged, width=thickness)
    return frame(canvas)


def draw_augmentation(
    rows: Sequence[Sequence[Sample]],
    class_names: Sequence[str],
    *,
    image_size: tuple[int, int],
    title: str,
    lines: Sequence[str] = (),
    header: Sequence[str] = (),
) -> np.ndarray:
    """Draw a row for each image: the original, then the samples that the network sees.

    All cells have the proportions of `image_size`, the (height, width) of the network's input.
    """
    scale = CELL_PX / max(image_size)
    cell = max(1, round(image_size[0] * scale)), max(1, round(image_size[1] * scale))
    samples = [sample for row in rows for sample in row]
    panels = [
        Panel(draw_sample(sample, class_names, within_px=cell), lines=(sample.caption,) if sample.caption else ())
        for sample in samples
    ]
    keys = class_keys(samples, class_names)
    return lay_out(panels, columns=len(rows[0]), title=title, lines=lines, keys=keys, header=header)


def class_keys(samples: Sequence[Sample], class_names: Sequence[str]) -> list[Key]:
    """Make a legend of the occurring classes, and of the dashes if there are any."""
    labels = sorted({int(label) for sample in samples for label in sample.labels})
    names = drawable_names(class_names)
    keys = [Key(names[label - 1], class_colour(label)) for label in labels[:MOST_KEYS]]
    if len(labels) > MOST_KEYS:
        keys.append(Key(f"and {len(labels) - MOST_KEYS} more classes", (160, 160, 160)))
    if any(sample.difficult.any() for sample in samples):
        keys.append(Key("difficult", (110, 110, 110), is_dashed=True))
    return keys
