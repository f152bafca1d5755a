"""Draw boxes, classes and scores on images."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from ssd_lightning.data.image_io import as_rgb
from ssd_lightning.visualization.boxes import (
    TaggedBox,
    cut_at_border,
    draw_boxes,
    draw_outline,
    fitting_size,
    line_width,
)
from ssd_lightning.visualization.colours import BLACK, WHITE, class_colour
from ssd_lightning.visualization.fonts import drawable_names


def draw_detections(
    image: np.ndarray,
    *,
    boxes_xyxy_px: ArrayLike,
    labels: ArrayLike,
    class_names: Sequence[str],
    scores: ArrayLike | None = None,
) -> np.ndarray:
    """Draw boxes in the colours of their classes, each with a tag of class and score.

    Boxes are clipped to the image; those without an area inside it are skipped. Tags stay inside the image, where they
    cover as little as possible of the boxes and of each other.

    Args:
        image: uint8 `[H, W, 3]` RGB, or `[H, W]` or `[H, W, 1]` grey; it is not changed.
        boxes_xyxy_px: `[N, 4]`, pixels of the image; right and bottom edges exclusive.
        labels: `[N]`, 1..C.
        class_names: names of the classes 1..C.
        scores: `[N]`, 0..1; without scores the tags only have the class.

    Returns:
        A new image, uint8 `[H, W, 3]`.

    Raises:
        ValueError: the image is not uint8, the lengths differ, or a label has no name.
    """
    canvas = Image.fromarray(as_rgb(image))
    boxes = np.asarray(boxes_xyxy_px, dtype=np.float64).reshape(-1, 4)
    classes = [int(label) for label in np.asarray(labels).reshape(-1)]
    if len(boxes) != len(classes):
        raise ValueError(f"{len(classes)} labels for {len(boxes)} boxes")
    for label in classes:
        if not 1 <= label <= len(class_names):
            raise ValueError(f"label {label} has no name among {len(class_names)} class names")
    names = drawable_names(class_names)
    texts = [names[label - 1] for label in classes]
    order = np.arange(len(classes))
    if scores is not None:
        values = np.asarray(scores, dtype=np.float64).reshape(-1)
        if len(values) != len(classes):
            raise ValueError(f"{len(values)} scores for {len(classes)} boxes")
        texts = [f"{text} {value:.2f}" for text, value in zip(texts, values, strict=True)]
        order = np.argsort(-values, kind="stable")
    tagged = [
        TaggedBox(rectangle, class_colour(classes[i]), texts[i])
        for i in order
        if (rectangle := cut_at_border(boxes[i], canvas.size))
    ]
    draw_boxes(canvas, tagged, width=line_width(canvas))
    return np.array(canvas)


def draw_ground_truth(image: np.ndarray, *, boxes_xyxy_px: ArrayLike, difficult: ArrayLike) -> np.ndarray:
    """Draw boxes as thin dashed white lines, difficult ones dotted: uint8 `[H, W, 3]`, a new image."""
    canvas = Image.fromarray(as_rgb(image))
    draw = ImageDraw.Draw(canvas)
    width = line_width(canvas)
    boxes = np.asarray(boxes_xyxy_px, dtype=np.float64).reshape(-1, 4)
    for box, is_difficult in zip(boxes, np.asarray(difficult, dtype=bool), strict=True):
        if rectangle := cut_at_border(box, canvas.size):
            draw_outline(draw, rectangle, BLACK, width)
            draw_outline(draw, rectangle, WHITE, width, dash=width * (2 if is_difficult else 5))
    return np.array(canvas)


def draw_comparison(
    image: np.ndarray,
    *,
    true_boxes_xyxy: ArrayLike,
    difficult: ArrayLike,
    boxes_xyxy: ArrayLike,
    labels: ArrayLike,
    scores: ArrayLike,
    class_names: Sequence[str],
    longer_side_px: int = 480,
) -> np.ndarray:
    """Draw detections in colour over the ground truth in dashed white. All boxes are normalised.

    The image is first scaled to `longer_side_px`, so that lines and tags stay thin on a small image.
    """
    rgb = as_rgb(image)
    size = fitting_size(rgb, longer_side_px, longer_side_px)
    resized = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))
    to_px = np.array([*size, *size])
    true_boxes, boxes = (np.asarray(some).reshape(-1, 4) * to_px for some in (true_boxes_xyxy, boxes_xyxy))
    # The ground truth is below the detections: where it is hidden, the detection is correct.
    marked = draw_ground_truth(resized, boxes_xyxy_px=true_boxes, difficult=difficult)
    return draw_detections(marked, boxes_xyxy_px=boxes, labels=labels, class_names=class_names, scores=scores)
