"""Draw boxes, classes and scores on images, and arrange images on one sheet."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from ssd_lightning.visualization.colours import BLACK, SHEET, WHITE, class_colour
from ssd_lightning.visualization.fonts import drawable_names
from ssd_lightning.visualization.outlines import cut_at_border, draw_outline, line_width
from ssd_lightning.visualization.tags import draw_tag, fitting_font, text_size, write_text


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
    canvas = Image.fromarray(_as_rgb(image))
    boxes, classes = _checked_boxes(boxes_xyxy_px, labels, class_names)
    names = drawable_names(class_names)
    texts = [names[label - 1] for label in classes]
    order = np.arange(len(classes))
    if scores is not None:
        values = np.asarray(scores, dtype=np.float64).reshape(-1)
        if len(values) != len(classes):
            raise ValueError(f"{len(values)} scores for {len(classes)} boxes")
        texts = [f"{text} {value:.2f}" for text, value in zip(texts, values, strict=True)]
        order = np.argsort(-values, kind="stable")
    visible = [(i, rectangle) for i in order if (rectangle := cut_at_border(boxes[i], canvas.size))]
    draw = ImageDraw.Draw(canvas)
    width = line_width(canvas)
    for i, rectangle in reversed(visible):
        draw_outline(draw, rectangle, BLACK, width + 2, inset=-1)
        draw_outline(draw, rectangle, class_colour(classes[i]), width)
    obstacles = [rectangle for _, rectangle in visible]
    for i, rectangle in visible:
        obstacles.append(draw_tag(draw, canvas.size, rectangle, texts[i], class_colour(classes[i]), obstacles))
    return np.asarray(canvas).copy()


def draw_ground_truth(image: np.ndarray, *, boxes_xyxy_px: ArrayLike, difficult: ArrayLike | None = None) -> np.ndarray:
    """Draw boxes as thin dashed white lines, difficult ones dotted: uint8 `[H, W, 3]`, a new image."""
    canvas = Image.fromarray(_as_rgb(image))
    boxes = np.asarray(boxes_xyxy_px, dtype=np.float64).reshape(-1, 4)
    dotted = np.zeros(len(boxes), dtype=bool) if difficult is None else np.asarray(difficult, dtype=bool)
    draw = ImageDraw.Draw(canvas)
    width = line_width(canvas)
    for box, is_dotted in zip(boxes, dotted, strict=True):
        if rectangle := cut_at_border(box, canvas.size):
            draw_outline(draw, rectangle, BLACK, width)
            draw_outline(draw, rectangle, WHITE, width, dash=width * (2 if is_dotted else 5))
    return np.asarray(canvas).copy()


def draw_comparison(
    image: np.ndarray,
    *,
    true_boxes_xyxy_px: ArrayLike,
    difficult: ArrayLike | None = None,
    boxes_xyxy_px: ArrayLike,
    labels: ArrayLike,
    class_names: Sequence[str],
    scores: ArrayLike | None = None,
    longer_side_px: int | None = 480,
) -> np.ndarray:
    """Draw detections in colour over the ground truth in dashed white.

    The image is first scaled to `longer_side_px`, so that lines and tags stay thin on a small image; None keeps its
    size. For the other arguments see `draw_detections` and `draw_ground_truth`.
    """
    rgb = _as_rgb(image)
    height, width = rgb.shape[:2]
    factor = 1.0 if longer_side_px is None else longer_side_px / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    scale = np.array([size[0] / width, size[1] / height] * 2)
    resized = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))
    true_boxes = np.asarray(true_boxes_xyxy_px, dtype=np.float64).reshape(-1, 4) * scale
    # The ground truth is below the detections: where it is hidden, the detection is correct.
    marked = draw_ground_truth(resized, boxes_xyxy_px=true_boxes, difficult=difficult)
    boxes = np.asarray(boxes_xyxy_px, dtype=np.float64).reshape(-1, 4) * scale
    return draw_detections(marked, boxes_xyxy_px=boxes, labels=labels, class_names=class_names, scores=scores)


def image_grid(images: Sequence[np.ndarray], *, columns: int, title: str | None = None, gap_px: int = 8) -> np.ndarray:
    """Arrange images on one dark sheet, row by row: uint8 `[H, W, 3]`.

    Args:
        images: uint8 `[H, W, 3]` or grey, of any sizes; each is centred in a cell of the largest size.
        columns: number of images in a row.
        title: a line above them.
        gap_px: gap between the images and around them.

    Raises:
        ValueError: `columns` is less than one.
    """
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    cells = [_as_rgb(image) for image in images]
    columns = max(1, min(columns, len(cells)))
    rows = -(-len(cells) // columns)
    cell_height = max((cell.shape[0] for cell in cells), default=0)
    cell_width = max((cell.shape[1] for cell in cells), default=0)
    sheet_width = columns * (cell_width + gap_px) + gap_px
    font, header = None, 0
    if title is not None:
        font = fitting_font(title, size=max(12, min(28, sheet_width // 50)), max_width=sheet_width - 2 * gap_px)
        header = text_size(title, font)[1] + gap_px
    sheet = Image.new("RGB", (sheet_width, header + rows * (cell_height + gap_px) + gap_px), SHEET)
    if title is not None and font is not None:
        write_text(ImageDraw.Draw(sheet), (gap_px, gap_px), title, font, WHITE)
    for i, cell in enumerate(cells):
        row, column = divmod(i, columns)
        x = gap_px + column * (cell_width + gap_px) + (cell_width - cell.shape[1]) // 2
        y = gap_px + header + row * (cell_height + gap_px) + (cell_height - cell.shape[0]) // 2
        sheet.paste(Image.fromarray(cell), (x, y))
    return np.asarray(sheet).copy()


def _as_rgb(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., None]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise ValueError(f"an image is uint8 [H, W, 3] or grey, got {image.dtype} {list(image.shape)}")
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def _checked_boxes(
    boxes_xyxy_px: ArrayLike, labels: ArrayLike, class_names: Sequence[str]
) -> tuple[np.ndarray, list[int]]:
    boxes = np.asarray(boxes_xyxy_px, dtype=np.float64).reshape(-1, 4)
    classes = [int(label) for label in np.asarray(labels).reshape(-1)]
    if len(boxes) != len(classes):
        raise ValueError(f"{len(classes)} labels for {len(boxes)} boxes")
    for label in classes:
        if not 1 <= label <= len(class_names):
            raise ValueError(f"label {label} has no name among {len(class_names)} class names")
    return boxes, classes
