"""Search for a crop with enough overlap with an object (section 2.2, Caffe's batch sampler)."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from ssd_lightning.data.geometry import CropRule, normalise_windows, sample_windows, satisfying_windows
from ssd_lightning.data.view import Window


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
    """Whose IoU counts: `any` needs at least one box, as in the paper; `all` every box, as in some ports; `center` at
    least one of those with their centre in the crop, as in torchvision."""
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
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        largest_px = float(areas.max()) * size_px[0] * size_px[1]
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
            rng, (self.trials,), (bottom - top, right - left), scale=self.scale, aspect_ratio=self.aspect_ratio
        ) + np.array([left, top, left, top])
        fits = satisfying_windows(
            normalise_windows(drawn_px, size_px),
            boxes,
            min_iou=min_iou,
            rule=self.rule,
            allow_empty=self.allow_empty,
        )
        first = int(fits.argmax())
        if not fits[first]:
            return None
        x1, y1, x2, y2 = drawn_px[first].tolist()
        return x1, y1, x2, y2
