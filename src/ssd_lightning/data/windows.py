"""The part of an image that a sample shows: expansion, crop and warp in one step.

A window is the part of the plane that becomes the sample: a crop is inside the image, an expansion around it. The plane
outside the image has one colour. The window, cut at whole pixels of the image, is scaled to the network's input.
Windows and boxes are xyxy, and normalised to the image unless their name ends in `_px`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple

import numpy as np

Window = tuple[int, int, int, int]
"""xyxy in pixels; right and bottom edges are exclusive."""
CropRule = Literal["any", "all", "center"]


class CropWindow(NamedTuple):
    """The visible part of an image in a window. Both fields are empty if the window is outside the image."""

    part_px: Window
    """The part of the image, in its own pixels."""
    place_px: Window
    """Its position in the sample, in the sample's pixels."""


def normalise_windows(windows_px: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """Divide windows `[..., 4]` in pixels by the image's size (height, width)."""
    height, width = size_px
    return windows_px / np.array([width, height, width, height], dtype=np.float64)


def boxes_in_window(boxes: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Express boxes `[N, 4]` in the coordinates of a window `[4]`, without clipping."""
    corner, size = window[:2], window[2:] - window[:2]
    return ((boxes.reshape(-1, 2, 2) - corner) / size).reshape(boxes.shape)


def centres_inside(boxes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Tell which boxes `[N, 4]` have their centre in or on the edge of windows `[..., 4]`: bool `[..., N]`."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    windows = windows[..., None, :]  # [..., 1, 4]
    return ((centres >= windows[..., :2]) & (centres <= windows[..., 2:])).all(-1)


def window_iou(boxes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Intersection over union of every window `[..., 4]` with every box `[N, 4]`: `[..., N]`."""
    windows = windows[..., None, :]  # [..., 1, 4]
    sides = np.minimum(boxes[:, 2:], windows[..., 2:]) - np.maximum(boxes[:, :2], windows[..., :2])
    sides = np.maximum(sides, 0)
    intersection = sides[..., 0] * sides[..., 1]
    return intersection / (areas(boxes) + areas(windows) - intersection)


def areas(boxes: np.ndarray) -> np.ndarray:
    """Return the areas of boxes `[..., 4]`: `[...]`."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def random_zoom_out(random: Random, size_px: tuple[int, int], max_ratio: float) -> Window:
    """Draw a canvas of U(1, max_ratio) times the image's sides around it, at a uniform position (section 3.6).

    It is in pixels of the image, of (height, width), and starts at or before 0.
    """
    height, width = size_px
    ratio = random.uniform(1.0, max_ratio)
    more_height, more_width = int(height * (ratio - 1)), int(width * (ratio - 1))
    top, left = random.randint(0, more_height), random.randint(0, more_width)
    return -left, -top, width + more_width - left, height + more_height - top


def view_through(window_px: Window, size_px: tuple[int, int], image_size: tuple[int, int]) -> CropWindow:
    """Find the visible part of a window, which may extend beyond the image, in a sample of `image_size`.

    The position is rounded to whole pixels. This stretches the part by at most half a pixel at each side, and boxes are
    rounded in the same way. `cv2.warpAffine` needs no rounding, but is slower and has no area interpolation.
    """
    left, top, right, bottom = window_px
    columns = _seen(left, right, size_px[1], image_size[1])
    rows = _seen(top, bottom, size_px[0], image_size[0])
    if columns is None or rows is None:
        return CropWindow((0, 0, 0, 0), (0, 0, 0, 0))
    part_px, place_px = ((x[0], y[0], x[1], y[1]) for x, y in zip(columns, rows, strict=True))
    return CropWindow(part_px, place_px)


def _seen(start: int, end: int, side: int, shown: int) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Handle one axis: the part of 0..side within start..end, and its position in 0..shown, at least a pixel."""
    first, last = max(start, 0), min(end, side)
    if first >= last:
        return None
    scale = shown / (end - start)
    place = min(round((first - start) * scale), shown - 1)
    return (first, last), (place, max(round((last - start) * scale), place + 1))


def boxes_in_view(
    boxes: np.ndarray, view: CropWindow, size_px: tuple[int, int], image_size: tuple[int, int]
) -> np.ndarray:
    """Move boxes `[N, 4]` with the pixels of a view of their image, and clip them to its visible part.

    Returns:
        `[N, 4]`, normalised to the sample of `image_size`.
    """
    if len(boxes) == 0:  # the view may be empty
        return boxes
    part, place = normalise_windows(np.array(view.part_px), size_px), view.place_px
    x, y = place[0] / image_size[1], place[1] / image_size[0]
    width, height = (place[2] - place[0]) / image_size[1], (place[3] - place[1]) / image_size[0]
    return boxes_in_window(boxes, part).clip(0, 1) * np.array([width, height] * 2) + np.array([x, y] * 2)


@dataclass(frozen=True)
class RandomIoUCrop:
    """Choose a crop that overlaps the objects enough, or no crop (SSD paper, section 2.2; Caffe's batch sampler).

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
        self, random: Random, rng: np.random.Generator, boxes: np.ndarray, canvas_px: Window, size_px: tuple[int, int]
    ) -> Window:
        """Choose a window of the canvas, which is the image of `size_px` with boxes `[N, 4]`, or a larger area.

        `random` chooses among the candidates, `rng` draws the crops.
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
    """Draw crops of an image of (height, width) as Caffe's batch sampler does, on whole pixels.

    A crop has the relative width s * sqrt(a) and height s / sqrt(a). s is uniform in `scale`, in (0, 1]; a is uniform
    in the part of `aspect_ratio`, around 1, that keeps both sides within the image, [s^2, 1 / s^2]; the position is
    uniform.

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
