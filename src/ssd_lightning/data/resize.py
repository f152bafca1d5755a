"""Warping pictures to the network's input: what evaluation and prediction do to a picture."""

from collections.abc import Sequence

import cv2
import numpy as np

from ssd_lightning.errors import ConfigurationError

# A DataLoader's workers are processes already: threads inside them only fight for the same cores.
cv2.setNumThreads(0)


def resize_image(image: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Warp a picture `[H, W, 3]` to `image_size` (height, width), bilinearly, whatever its aspect ratio."""
    height, width = image_size
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def checked_size(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Read a size given as (height, width) or, for a square, as one number.

    Raises:
        ConfigurationError: it is no pair of positive whole numbers.
    """
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    if len(image_size) != 2 or any(side < 1 or side != int(side) for side in image_size):
        raise ConfigurationError(f"image_size is (height, width) in whole pixels, got {image_size}")
    return int(image_size[0]), int(image_size[1])


class Resize:
    """Warp pictures to the network's input and leave the boxes alone; the `Transform` of evaluation.

    Args:
        image_size: of the result in pixels, (height, width) or one number.

    Raises:
        ConfigurationError: the size is not a pair of positive whole numbers.
    """

    def __init__(self, *, image_size: int | Sequence[int]) -> None:
        self.image_size = checked_size(image_size)

    def __call__(
        self, image: np.ndarray, boxes_xyxy: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Resize one sample; the seed has no influence."""
        return resize_image(image, self.image_size), boxes_xyxy, np.arange(len(boxes_xyxy))
