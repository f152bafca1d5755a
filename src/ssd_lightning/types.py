"""Types that the packages exchange: ground truth, network output and detections.

Axis letters throughout the package: B batch, K priors, C object classes without background, N ground-truth
boxes of an image, M detections of an image, H and W height and width.
"""

from typing import NamedTuple, NotRequired, TypedDict

from torch import Tensor


class Placement(NamedTuple):
    """The part of the input that an image takes, from the top left corner, as fractions of the input's sides."""

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
    """Set in evaluation when a letterboxed image takes only part of the input. `boxes` are then normalised to the
    input, and this maps results back to the image."""


class Detections(TypedDict):
    """Detections of one image. M = 0 if there are none."""

    boxes: Tensor
    """float32 `[M, 4]`, xyxy, normalised to the image."""
    scores: Tensor
    """float32 `[M]`, descending."""
    labels: Tensor
    """int64 `[M]`, 1..C."""
    image_id: NotRequired[str]
    """Name of the image, if known. The metrics use it to drop duplicates."""


class SSDOutput(NamedTuple):
    """Raw network output for a batch, with the priors needed to decode it."""

    box_offsets: Tensor
    """`[B, K, 4]`: offsets (cx, cy, w, h) of the boxes, encoded against the priors."""
    class_logits: Tensor
    """`[B, K, C + 1]`: before softmax; class 0 is the background."""
    priors_cxcywh: Tensor
    """`[K, 4]`, normalised."""

    def check(self) -> "SSDOutput":
        """Return the output if its shapes fit together.

        Raises:
            ValueError: they do not. With other priors, all boxes would be wrong, and nothing would say so.
        """
        offsets, logits, priors = (tuple(tensor.shape) for tensor in self)
        if len(logits) != 3 or offsets != (*logits[:2], 4) or priors != (logits[1], 4):
            raise ValueError(
                f"the output has offsets {list(offsets)}, logits {list(logits)} and priors {list(priors)}; "
                "they must be [B, K, 4], [B, K, C + 1] and [K, 4]"
            )
        return self
