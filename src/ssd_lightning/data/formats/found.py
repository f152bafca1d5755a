"""What readers find in the files, before it is checked."""

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np


class FoundObject(NamedTuple):
    """An object as its file has it."""

    name: str
    """Its class."""
    numbers: Sequence[float] | str
    """The four finite numbers of its box, or what is wrong with it."""
    item: int | str
    """Its number in the file."""
    difficult: bool = False
    is_outline: bool = False
    """The box is the bounding box of another shape."""


class FoundImage(NamedTuple):
    """An image as its annotation has it."""

    path: str | Path
    size_px: tuple[int, int] | None
    """(height, width); None if it is not stated: then the image is asked."""
    file: str | Path
    """The annotation file."""
    objects: Sequence[FoundObject] = ()


class ObjectColumns:
    """The numbers of objects: their image, label, number in the file, flag and box."""

    def __init__(self) -> None:
        self.image = array("q")
        self.label = array("i")
        self.item = array("q")
        self.difficult = array("b")
        self.box = array("d")

    def append(self, image: int, label: int, item: int, difficult: bool, box: Sequence[float]) -> None:
        """Add an object."""
        self.image.append(image)
        self.label.append(label)
        self.item.append(item)
        self.difficult.append(difficult)
        self.box.extend(box)

    def extend(self, other: "ObjectColumns", *, images: np.ndarray, labels: np.ndarray) -> None:
        """Add other objects under new numbers of their images and labels, but none of the images -1."""
        image = images[np.frombuffer(other.image, np.int64)]
        kept = image >= 0
        self.image.frombytes(image[kept].astype(np.int64).tobytes())
        self.label.frombytes(labels[np.frombuffer(other.label, np.int32)][kept].astype(np.int32).tobytes())
        self.item.frombytes(np.frombuffer(other.item, np.int64)[kept].tobytes())
        self.difficult.frombytes(np.frombuffer(other.difficult, np.int8)[kept].tobytes())
        self.box.frombytes(np.frombuffer(other.box, np.float64).reshape(-1, 4)[kept].tobytes())
