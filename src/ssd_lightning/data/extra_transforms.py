"""The user's albumentations transforms. No other module imports this library, which takes a second."""

from collections.abc import Sequence
from random import Random

import albumentations as A
import numpy as np

from ssd_lightning.errors import ConfigurationError


class ExtraTransforms:
    """Applies albumentations transforms to an image and its boxes.

    Raises:
        ConfigurationError: it is not a list of transforms; or, for a sample, they change the type or size of the
            image.
    """

    def __init__(self, transforms: Sequence[A.BasicTransform | A.BaseCompose]) -> None:
        is_list = isinstance(transforms, Sequence) and not isinstance(transforms, str)
        items = transforms if is_list else [transforms]
        wrong = [item for item in items if not isinstance(item, A.BasicTransform | A.BaseCompose)]
        if wrong or not is_list:
            raise ConfigurationError(
                f"augmentation.extra_transforms has {(wrong or items)[0]!r}; it is a list of transforms of "
                "albumentations, such as [{_target_: albumentations.ToGray, p: 0.1}]"
            )
        self._names = ", ".join(type(item).__name__ for item in items)
        # The library warns about boxes if no step handles them, for example if all steps only change colours.
        knows_boxes = A.NoOp(p=1.0)
        self._compose = A.Compose([knows_boxes, *items], bbox_params=A.BboxParams("albumentations", clip=True))

    def __call__(
        self, image: np.ndarray, bboxes: np.ndarray, rng: np.random.Generator, random: Random
    ) -> tuple[np.ndarray, np.ndarray]:
        """Transform an image, uint8 `[H, W, 3]`, and `[N, 4 + ...]`: boxes, normalised xyxy, and extra columns."""
        self._compose.set_random_state(rng, random)
        sample = self._compose(image=image, bboxes=bboxes)
        given = sample["image"]
        if not isinstance(given, np.ndarray) or given.dtype != np.uint8 or given.shape != image.shape:
            raise ConfigurationError(
                f"augmentation.extra_transforms ({self._names}) gives an image of {given.dtype} {list(given.shape)}; "
                f"it must leave uint8 {list(image.shape)}, which the network's preprocessing expects"
            )
        return given, sample["bboxes"].reshape(-1, bboxes.shape[1])
