"""What passes between the packages: ground truth, network output and detections.

Axis letters throughout the package: B batch, K priors, C object classes without background, N ground-truth
boxes of an image, M detections of an image, H and W height and width.
"""

from typing import NamedTuple, NotRequired, TypedDict

from torch import Tensor


class Placement(NamedTuple):
    """The part of the network's input that an image takes, from the top left corner, as shares of the input's sides."""

    width: float
    height: float


class Target(TypedDict):
    """Ground truth of one image. An image without objects has N = 0."""

    boxes: Tensor
    """float32 `[N, 4]`, xyxy, normalised to the image: all values in [0, 1]."""
    labels: Tensor
    """int64 `[N]`, 1..C; 0 is the background and never occurs here."""
    difficult: Tensor
    """bool `[N]`: ignored by the VOC metric, neither hit nor miss."""
    image_id: str
    """Name of the image, unique within its data set."""
    size_px: tuple[int, int]
    """(height, width) of the original image in pixels."""
    placement: NotRequired[Placement]
    """In evaluation, where a letterboxed image takes less than the input: `boxes` are normalised to the input, and
    results go back to the image by it."""


class Detections(TypedDict):
    """What the detector says about one image. M = 0 where it sees nothing."""

    boxes: Tensor
    """float32 `[M, 4]`, xyxy, normalised to the image."""
    scores: Tensor
    """float32 `[M]`, descending."""
    labels: Tensor
    """int64 `[M]`, 1..C."""
    image_id: NotRequired[str]
    """Name of the image, where it is known; the metrics use it to drop duplicates."""


class SSDOutput(NamedTuple):
    """Raw output of the network for a batch, together with the priors needed to read it."""

    box_offsets: Tensor
    """`[B, K, 4]`: offsets (cx, cy, w, h) of the boxes, encoded against the priors."""
    class_logits: Tensor
    """`[B, K, C + 1]`: before softmax; class 0 is the background."""
    priors_cxcywh: Tensor
    """`[K, 4]`, normalised."""
