"""What a detector says about one image, in that image's own pixels: to select from, to draw, to hand on."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.visualization.draw import draw_detections

if TYPE_CHECKING:
    import supervision

SCORE_DECIMALS = 4
PIXEL_DECIMALS = 2


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """One image and what was found in it, best first. M = 0 where nothing is seen."""

    image: np.ndarray
    """uint8 `[H, W, 3]`, RGB, upright; of an array the caller gave, no copy."""
    boxes_xyxy_px: np.ndarray
    """float32 `[M, 4]`, pixels of `image`, within it; right and bottom edges exclusive."""
    scores: np.ndarray
    """float32 `[M]`, descending."""
    labels: np.ndarray
    """int64 `[M]`, 1..C."""
    class_names: tuple[str, ...]
    """Of the classes 1..C."""
    source: str | None = None
    """Path or address of the image, where it has one."""

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """Class of each detection, `[M]`."""
        return [self.class_names[label - 1] for label in self.labels]

    def select(self, score_threshold: float = 0.0, classes: Sequence[str] | None = None) -> "ImageDetections":
        """Keep the detections that reach a score and are of some classes.

        Args:
            score_threshold: least score that is kept.
            classes: names of classes; None keeps all.

        Raises:
            ConfigurationError: there is no such class.
        """
        keep = self.scores >= score_threshold
        if classes is not None:
            keep &= np.isin(self.labels, labels_of(classes, self.class_names))
        boxes_xyxy_px, scores, labels = self.boxes_xyxy_px[keep], self.scores[keep], self.labels[keep]
        return replace(self, boxes_xyxy_px=boxes_xyxy_px, scores=scores, labels=labels)

    def draw(self, score_threshold: float = 0.4) -> Image.Image:
        """Draw boxes into a copy of the image, in its size.

        Args:
            score_threshold: least score that is drawn. A detector gives hundreds of weak guesses, with which a drawing
                tells nothing; 0 draws them all.
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
        """Give size and detections in plain values, rounded, as `predictions.json` has them."""
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
        """Give `supervision.Detections`.

        As its own converters do, `class_id` counts from 0 (it is `labels - 1`, an index into `class_names`), and
        `data["class_name"]` has the names, which its annotators print.

        Raises:
            ConfigurationError: the package supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ConfigurationError("to_supervision() needs a package: pip install supervision") from error
        return supervision.Detections(
            xyxy=self.boxes_xyxy_px.copy(),
            confidence=self.scores.copy(),
            class_id=self.labels - 1,
            data={"class_name": np.array(self.names, dtype=str)},
        )


def labels_of(classes: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """Look classes up: labels 1..C.

    Raises:
        ConfigurationError: there is no such class; the sentence names the nearest.
    """
    for name in classes:
        if name not in class_names:
            by_lower = {known.lower(): known for known in reversed(class_names)}
            close = difflib.get_close_matches(name.lower(), by_lower, n=1)
            nearest = f"the nearest is '{by_lower[close[0]]}'" if close else f"there is {', '.join(class_names)}"
            raise ConfigurationError(f"classes: the detector knows no '{name}'; {nearest}")
    return [class_names.index(name) + 1 for name in classes]
