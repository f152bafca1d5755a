"""Detections of one image in its own pixels: filter, draw, export."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ssd_lightning.checks import require_package
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.visualization.draw import draw_detections

if TYPE_CHECKING:
    import supervision

SCORE_DECIMALS = 4
PIXEL_DECIMALS = 2


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """One image and its detections, highest score first. M = 0 without detections."""

    image: np.ndarray
    """uint8 `[H, W, 3]`, RGB, upright. An array from the caller is not copied."""
    boxes_xyxy_px: np.ndarray
    """float32 `[M, 4]`, in pixels of `image` and inside it; right and bottom edges are exclusive."""
    scores: np.ndarray
    """float32 `[M]`, descending."""
    labels: np.ndarray
    """int64 `[M]`, 1..C."""
    class_names: tuple[str, ...]
    """Names of the classes 1..C."""
    source: str | None = None
    """Path or URL of the image, if known."""

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """Class of each detection, `[M]`."""
        return [self.class_names[label - 1] for label in self.labels]

    def select(self, score_threshold: float = 0.0, classes: Sequence[str] | str | None = None) -> "ImageDetections":
        """Keep the detections with a high enough score and of the given classes.

        Args:
            score_threshold: lowest score that is kept.
            classes: one or several class names; None keeps all.

        Raises:
            ConfigurationError: a class name is unknown.
        """
        keep = self.scores >= score_threshold
        if classes is not None:
            names = [classes] if isinstance(classes, str) else classes
            keep &= np.isin(self.labels, labels_of(names, self.class_names))
        boxes_xyxy_px, scores, labels = self.boxes_xyxy_px[keep], self.scores[keep], self.labels[keep]
        return replace(self, boxes_xyxy_px=boxes_xyxy_px, scores=scores, labels=labels)

    def draw(self, score_threshold: float = 0.4) -> Image.Image:
        """Draw the boxes on a copy of the image, at its original size.

        Args:
            score_threshold: lowest score that is drawn; 0 draws all. A detector returns hundreds of weak detections,
                which would hide the image.
        """
        drawn = self.select(score_threshold)
        image = draw_detections(
            self.image,
            boxes_xyxy_px=drawn.boxes_xyxy_px,
            labels=drawn.labels,
            scores=drawn.scores,
            class_names=self.class_names,
        )
        return Image.fromarray(image)

    def as_record(self) -> dict[str, Any]:
        """Return image size and detections as plain rounded values, as stored in `predictions.json`."""
        height, width = self.image.shape[:2]
        rows = zip(self.names, self.scores.tolist(), self.boxes_xyxy_px.tolist(), strict=True)
        found = [
            {
                "class": name,
                "score": round(score, SCORE_DECIMALS),
                "box_xyxy_px": [round(edge, PIXEL_DECIMALS) for edge in box],
            }
            for name, score, box in rows
        ]
        return {"width": width, "height": height, "detections": found}

    def to_supervision(self) -> "supervision.Detections":
        """Convert to `supervision.Detections`.

        As in its own converters, `class_id` starts at 0 (`labels - 1`, an index into `class_names`), and
        `data["class_name"]` has the names, which its annotators print.

        Raises:
            ConfigurationError: the package supervision is not installed.
        """
        supervision = require_package("supervision", "to_supervision()", "supervision")
        return supervision.Detections(
            xyxy=self.boxes_xyxy_px.copy(),
            confidence=self.scores.copy(),
            class_id=self.labels - 1,
            data={"class_name": np.array(self.names, dtype=str)},
        )


def labels_of(classes: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """Convert class names to labels 1..C.

    Raises:
        ConfigurationError: a class is unknown; the message suggests the nearest name.
    """
    for name in classes:
        if name not in class_names:
            by_lower = {known.lower(): known for known in reversed(class_names)}
            close = difflib.get_close_matches(str(name).lower(), by_lower, n=1)
            nearest = f"the nearest is '{by_lower[close[0]]}'" if close else f"the classes are {', '.join(class_names)}"
            raise ConfigurationError(f"classes: the detector does not know '{name}'; {nearest}")
    return [class_names.index(name) + 1 for name in classes]
