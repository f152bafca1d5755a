"""The best and worst images of an evaluation with ground truth and detections, embedded in the page."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.image_scores import ImageScores
from ssd_lightning.data.images import read_image
from ssd_lightning.errors import DataError
from ssd_lightning.visualization.draw import draw_comparison

LONGER_SIDE_PX = 480
JPEG_QUALITY = 80
MOST_BYTES = 1_500_000
"""Limit for the images of one split, before base64 turns three bytes into four characters."""


@dataclass(frozen=True)
class ShownImage:
    """An embedded image, or the reason why it is missing."""

    name: str
    score: float
    hits: int
    false_positives: int
    missed: int
    uri: str
    """`data:image/jpeg;...`; empty if the image cannot be shown."""
    problem: str
    """Reason why it cannot be shown; empty if it can."""


def show_images(
    record: EvaluationRecord,
    scores: ImageScores,
    indices: Sequence[int],
    *,
    score_threshold: float,
    ran_in: Path | None = None,
) -> list[ShownImage]:
    """Draw images of an evaluation, true boxes dashed in white and detections in colour.

    Args:
        record: record of the evaluation.
        scores: scores of its images.
        indices: indices of the images, in display order.
        score_threshold: detections below it are not drawn.
        ran_in: working directory of the run. Relative paths that do not exist here are resolved there.
    """
    shown, bytes_left = [], MOST_BYTES
    for index in indices:
        jpeg, problem = b"", ""
        try:
            jpeg = _draw(record, index, score_threshold, _find(Path(record.image_paths[index]), ran_in))
        except DataError as error:
            problem = str(error)
        if len(jpeg) > bytes_left:
            jpeg, problem = b"", "skipped, since the page would become too large"
        bytes_left -= len(jpeg)
        shown.append(
            ShownImage(
                name=record.image_ids[index],
                score=float(scores.scores[index]),
                hits=int(scores.hits[index]),
                false_positives=int(scores.false_positives[index]),
                missed=int(scores.missed[index]),
                uri=f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" if jpeg else "",
                problem=problem,
            )
        )
    return shown


def _find(path: Path, ran_in: Path | None) -> Path:
    if ran_in is None or path.is_absolute() or path.is_file():
        return path
    return ran_in / path


def _draw(record: EvaluationRecord, index: int, score_threshold: float, path: Path) -> bytes:
    height, width = record.sizes_px[index].tolist()
    image = read_image(path, (height, width))
    to_px = np.array([width, height, width, height])
    objects, found = record.objects, record.detections
    is_there = objects.image_index == index
    is_found = (found.image_index == index) & (found.scores >= score_threshold)
    drawn = draw_comparison(
        image,
        true_boxes_xyxy_px=objects.boxes[is_there].numpy() * to_px,
        difficult=objects.difficult[is_there].numpy(),
        boxes_xyxy_px=found.boxes[is_found].numpy() * to_px,
        labels=found.labels[is_found].numpy(),
        scores=found.scores[is_found].numpy(),
        class_names=record.class_names,
        longer_side_px=LONGER_SIDE_PX,
    )
    buffer = io.BytesIO()
    Image.fromarray(drawn).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue()
