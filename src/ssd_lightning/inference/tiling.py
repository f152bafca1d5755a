"""Detection in overlapping tiles of an image, and how the boxes of the tiles are joined."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch

from ssd_lightning.data.tiles import check_tiles, tile_windows
from ssd_lightning.data.windows import Window
from ssd_lightning.inference.results import ImageDetections
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.ops.nms import batched_nms

EDGE_TOLERANCE = 0.02
"""A box this close to an edge of its tile touches it, as a part of the tile's side: boxes are not exact."""
COVERED = 0.5
"""A fragment is dropped if a box of another tile covers more than this part of it."""
SCORE_SHARE = 0.5
"""This other box needs at least this part of the fragment's score. A box of nothing must not remove an object."""
CANDIDATES = 50
"""Times `max_detections`: the best boxes of an image that are compared. An object is found in a few tiles only."""


@dataclass(frozen=True)
class Tiling:
    """How images are cut.

    Args:
        tiles: side of the square tiles in pixels of the image.
        overlap: smallest overlap of neighbours, as a part of the side. Objects up to this size are whole in some tile.
        whole_image: also detect in the whole image, which has the objects that are larger than a tile.

    Raises:
        ConfigurationError: the side or the overlap cannot be used.
    """

    tiles: int
    overlap: float = 0.2
    whole_image: bool = True

    def __post_init__(self) -> None:
        check_tiles(self.tiles, self.overlap)

    def views(self, size_px: tuple[int, int]) -> list[Window]:
        """Return the parts of an image of `size_px` (height, width) to detect in. A small image is one part."""
        height, width = size_px
        windows = tile_windows(size_px, self.tiles, self.overlap)
        return [*windows, (0, 0, width, height)] if self.whole_image and len(windows) > 1 else windows


def detect_in_tiles(
    images: Sequence[np.ndarray],
    tiling: Tiling,
    detect: Callable[[Sequence[np.ndarray]], list[ImageDetections]],
    postprocess: PostProcess,
    batch_size: int,
) -> list[ImageDetections]:
    """Detect in the tiles of images, uint8 `[H, W, 3]` RGB, `batch_size` tiles at once, and join what is found."""
    views = [tiling.views((image.shape[0], image.shape[1])) for image in images]
    pairs = list(zip(images, views, strict=True))
    tiles = [image[y1:y2, x1:x2] for image, windows in pairs for x1, y1, x2, y2 in windows]
    starts = range(0, len(tiles), batch_size)
    found = iter([one for start in starts for one in detect(tiles[start : start + batch_size])])
    return [join_views(image, windows, list(islice(found, len(windows))), postprocess) for image, windows in pairs]


def join_views(
    image: np.ndarray, views: Sequence[Window], found: Sequence[ImageDetections], postprocess: PostProcess
) -> ImageDetections:
    """Join the detections in parts of an image.

    First, fragments are dropped, see `covered_fragments`. NMS drops the weaker of two boxes of the same object, with
    the `iou_threshold`, `class_agnostic` and `max_detections` of `postprocess`.

    The detections `found` in each of the `views` are in pixels of that window.
    """
    if len(found) == 1:
        return found[0]
    view = np.repeat(np.arange(len(views)), [len(part) for part in found])
    windows = np.array(views, dtype=np.float32)[view]
    boxes = np.concatenate([part.boxes_xyxy_px for part in found]) + windows[:, [0, 1, 0, 1]]
    scores, labels = (np.concatenate([getattr(part, name) for part in found]) for name in ("scores", "labels"))
    best = np.argsort(-scores, kind="stable")[: CANDIDATES * postprocess.max_detections]
    view, windows, boxes, scores, labels = view[best], windows[best], boxes[best], scores[best], labels[best]
    group = np.zeros_like(labels) if postprocess.class_agnostic else labels
    touches = touches_inner_edge(boxes, windows, (image.shape[0], image.shape[1]))
    kept = np.flatnonzero(~covered_fragments(boxes, scores, group, view, touches))
    kept = kept[np.argsort(group[kept], kind="stable")]
    by_group = [torch.from_numpy(column[kept]) for column in (boxes, scores, group)]
    after_nms = batched_nms(by_group[0], by_group[1], by_group[2], postprocess.iou_threshold).numpy()
    kept = np.sort(kept[after_nms])[: postprocess.max_detections]
    return replace(found[0], image=image, boxes_xyxy_px=boxes[kept], scores=scores[kept], labels=labels[kept])


def touches_inner_edge(boxes_xyxy: np.ndarray, windows: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """Return which boxes touch an edge of their window that is not an edge of the image: bool `[M]`.

    Boxes and windows are `[M, 4]` in pixels of the image of `size_px` (height, width).
    """
    height, width = size_px
    is_inner = windows != np.array([0, 0, width, height])
    tolerance = EDGE_TOLERANCE * (windows[:, 2:] - windows[:, :2])
    is_near = np.abs(boxes_xyxy - windows) <= np.concatenate([tolerance, tolerance], axis=1)
    touches: np.ndarray = (is_inner & is_near).any(axis=1)
    return touches


def covered_fragments(
    boxes_xyxy: np.ndarray, scores: np.ndarray, group: np.ndarray, view: np.ndarray, touches: np.ndarray
) -> np.ndarray:
    """Return which boxes are only a part of an object that another view has more of: bool `[M]`.

    A box is dropped if it touches an inner edge of its tile, and a box of the same group in another view is at least as
    large, covers more than `COVERED` of it and has at least `SCORE_SHARE` of its score. A dropped box drops no other,
    so the largest part of an object that no view has as a whole stays.

    Boxes are `[M, 4]`, the others `[M]`: a `group` is such as the label, a `view` the number of the view of a box, and
    `touches` the result of `touches_inner_edge`.
    """
    area = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1)
    dropped = np.zeros(len(boxes_xyxy), dtype=bool)
    fragments = np.flatnonzero(touches)
    for one in fragments[np.argsort(-area[fragments], kind="stable")]:
        may_drop = (group == group[one]) & (view != view[one]) & (area >= area[one]) & ~dropped
        others = boxes_xyxy[may_drop & (scores >= SCORE_SHARE * scores[one])]
        low, high = np.maximum(others[:, :2], boxes_xyxy[one, :2]), np.minimum(others[:, 2:], boxes_xyxy[one, 2:])
        dropped[one] = ((high - low).clip(min=0).prod(axis=1) > COVERED * area[one]).any()
    return dropped
