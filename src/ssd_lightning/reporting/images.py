"""The best and worst images of an evaluation with ground truth and detections, embedded in the page."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.matching import ImageScores
from ssd_lightning.data.images import read_image
from ssd_lightning.errors import DataError
from ssd_lightning.visualization.draw import draw_comparison

JPEG_QUALITY = 80
MOST_BYTES = 1_500_000
"""Limit for the images of one split, before base64 turns three bytes into four characters."""


def show_images(
    record: EvaluationRecord, scores: ImageScores, indices: Sequence[int], *, score_threshold: float
) -> list[dict[str, Any]]:
    """Draw images of an evaluation, true boxes dashed in white and detections in colour.

    Returns:
        `name`, `score`, `hits`, `false_positives` and `missed` of each image, and its `uri` or, if it cannot be shown,
        the `problem`; the other is empty.
    """
    shown, bytes_left = [], MOST_BYTES
    for index in indices:
        jpeg, problem = b"", ""
        try:
            buffer = io.BytesIO()
            drawn = draw_image(record, index, score_threshold)
            drawn.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
            jpeg = buffer.getvalue()
        except DataError as error:
            problem = str(error)
        if len(jpeg) > bytes_left:
            jpeg, problem = b"", "skipped, since the page would become too large"
        bytes_left -= len(jpeg)
        shown.append(
            {
                "name": record.image_ids[index],
                "score": scores.scores[index],
                "hits": scores.hits[index],
                "false_positives": scores.false_positives[index],
                "missed": scores.missed[index],
                "uri": f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" if jpeg else "",
                "problem": problem,
            }
        )
    return shown


def draw_image(record: EvaluationRecord, index: int, score_threshold: float) -> Image.Image:
    """Draw an image with its objects, and its detections with at least this score. Raises `DataError`."""
    height, width = record.sizes_px[index].tolist()
    found, objects = record.of_image(index, score_threshold)
    drawn = draw_comparison(
        read_image(Path(record.image_paths[index]), (height, width)),
        true_boxes_xyxy=objects.boxes,
        difficult=objects.difficult,
        boxes_xyxy=found.boxes,
        labels=found.labels,
        scores=found.scores,
        class_names=record.class_names,
    )
    return Image.fromarray(drawn)
