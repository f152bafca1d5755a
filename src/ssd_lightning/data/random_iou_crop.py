"""Crops that overlap the objects enough (SSD paper, section 2.2; Caffe's batch sampler)."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np

from ssd_lightning.data.windows import Window, areas, centres_inside, normalise_windows, window_iou

CropRule = Literal["any", "all", "center"]


@dataclass(frozen=True)
class RandomIoUCrop:
    """Choose a crop, or no crop.

    For each value of `min_ious`, and once without a condition, up to `trials` crops are drawn until one overlaps at
    least one box by that IoU. Then one is chosen at random among those found and the whole image.
    A crop may overlap a box without containing a centre, and the one without a condition may miss all objects. Such a
    sample has no boxes, which is valid, as in Caffe; `allow_empty=False` also requires a centre.
    Images without objects have two candidates: the whole image and the crop without a condition.
    """

    min_ious: Sequence[float]
    """The conditions."""
    rule: CropRule
    """Whose IoU counts: `any` needs at least one box, as in the paper; `all` every box, as in mmdet and gluon; `center`
    at least one of those with their centre in the crop, as in torchvision. With `center`, every crop has a centre."""
    scale: tuple[float, float]
    """Range of the square root of a crop's relative area."""
    aspect_ratio: tuple[float, float]
    """Range of width over height, relative to the whole."""
    trials: int
    """Number of crops drawn for each condition."""
    allow_empty: bool
    """Accept crops without the centre of any object; `center` never does."""

    def choose(
        self,
        random: Random,
        rng: np.random.Generator,
        boxes: np.ndarray,
        canvas_px: Window,
        size_px: tuple[int, int],
    ) -> Window:
        """Choose a window of the canvas.

        Args:
            random: chooses among the candidates.
            rng: draws the crops.
            boxes: `[N, 4]` xyxy, normalised to the image.
            canvas_px: the area to crop, in pixels of the image: the image or a larger area.
            size_px: (height, width) of the image.
        """
        # The first feasible condition of a shuffled list is a uniform choice among all feasible ones. The conditions
        # after it need no search.
        whole = 0.0  # every window overlaps the boxes by that IoU
        candidates = [whole, None, *self.min_ious]
        random.shuffle(candidates)
        within_reach = self.largest_iou(boxes, canvas_px, size_px)
        for min_iou in candidates[: candidates.index(whole)]:
            if min_iou is None or min_iou <= within_reach:
                window_px = self.find(rng, boxes, canvas_px, size_px, min_iou=min_iou)
                if window_px is not None:
                    return window_px
        return canvas_px

    def largest_iou(self, boxes: np.ndarray, canvas_px: Window, size_px: tuple[int, int]) -> float:
        """Return an upper bound for the IoU of any crop with any box: no crop is as small as the smallest objects.

        The IoU of two boxes is at most the ratio of their areas. The area of a crop is at least (s W)(s H), less the
        rounding of its sides by half a pixel each. The bound saves searches on a large canvas with small objects.
        """
        if len(boxes) == 0:
            return 0.0
        left, top, right, bottom = canvas_px
        width, height = right - left, bottom - top
        s = self.scale[0]
        least_px = s * s * width * height - s * (width + height) * self.aspect_ratio[1] ** 0.5 / 2
        largest_px = float(areas(boxes).max()) * size_px[0] * size_px[1]
        return largest_px / least_px if least_px > largest_px else 1.0

    def find(
        self,
        rng: np.random.Generator,
        boxes: np.ndarray,
        canvas_px: Window,
        size_px: tuple[int, int],
        *,
        min_iou: float | None,
    ) -> Window | None:
        """Draw crops for one condition (None: no condition), and return the first that meets it."""
        left, top, right, bottom = canvas_px
        drawn_px = sample_windows(
            rng, self.trials, (bottom - top, right - left), scale=self.scale, aspect_ratio=self.aspect_ratio
        ) + np.array([left, top, left, top])
        fits = self.fits(normalise_windows(drawn_px, size_px), boxes, min_iou=min_iou)
        first = int(fits.argmax())
        if not fits[first]:
            return None
        x1, y1, x2, y2 = drawn_px[first].tolist()
        return x1, y1, x2, y2

    def fits(self, windows: np.ndarray, boxes: np.ndarray, *, min_iou: float | None) -> np.ndarray:
        """Tell which crops `[T, 4]` satisfy a condition (None: no condition): bool `[T]`.

        Without boxes, crops only satisfy None.
        """
        if len(boxes) == 0:
            return np.full(len(windows), min_iou is None)
        fits = np.ones(len(windows), dtype=bool)
        if min_iou is not None:
            enough = window_iou(boxes, windows) >= min_iou  # [T, N]
            if self.rule == "center":
                enough &= centres_inside(boxes, windows)
            fits &= enough.all(-1) if self.rule == "all" else enough.any(-1)
        if self.allow_empty and self.rule != "center":
            return fits
        return fits & centres_inside(boxes, windows).any(-1)


def sample_windows(
    rng: np.random.Generator,
    count: int,
    size_px: tuple[int, int],
    *,
    scale: tuple[float, float],
    aspect_ratio: tuple[float, float],
) -> np.ndarray:
    """Draw crops as Caffe's batch sampler does, on whole pixels.

    A crop has the relative width s * sqrt(a) and height s / sqrt(a). s is uniform in `scale`; a is uniform in
    the part of `aspect_ratio` that keeps both sides within the image, [s^2, 1 / s^2]; the position is uniform.

    Args:
        rng: random number generator.
        count: number of crops.
        size_px: (height, width) of the image.
        scale: range of the square root of a crop's relative area, in (0, 1].
        aspect_ratio: range of width over height, relative to the image; must contain 1.

    Returns:
        int64 `[count, 4]`, xyxy in pixels; the right and bottom edges are exclusive.
    """
    height, width = size_px
    size = np.array([width, height])
    s = rng.uniform(*scale, count)
    lowest = np.maximum(aspect_ratio[0], s * s)
    root = np.sqrt(lowest + (np.minimum(aspect_ratio[1], 1 / (s * s)) - lowest) * rng.random(count))
    sides = np.stack([s * root * width, s / root * height], axis=-1)
    sides_px = np.minimum(np.maximum(np.rint(sides), 1), size)
    corners_px = np.floor(rng.random(sides.shape) * (size - sides_px + 1))
    return np.concatenate([corners_px, corners_px + sides_px], axis=-1).astype(np.int64)
