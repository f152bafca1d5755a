"""What formats with one annotation file for each split have in common."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ssd_lightning.data.formats.files import find_file
from ssd_lightning.data.formats.image_dirs import find_image_dir
from ssd_lightning.data.formats.image_files import ImageDir


@dataclass(frozen=True, kw_only=True)
class SingleFileFormat:
    """A format whose file of a split names images in a folder.

    Args:
        images: folder of the images below the root; None searches the usual folders.
    """

    images: str | None = None
    locations: ClassVar[Sequence[str]]
    """Usual places of the file, below the root."""
    choice: ClassVar[str]
    """The value of `data=` for this format."""

    def path(self, root: Path, split: str) -> Path:
        """Find the file of a split. Raises `MissingSplitError` if there is none."""
        return find_file(root, split, self.locations)

    def files(self, root: Path, split: str) -> Iterable[str]:
        """Return the file of a split, with links resolved. Raises `DataError` if there is no such split."""
        return [os.path.realpath(self.path(root, split))]

    def image_dir(self, root: Path, path: Path, samples: Sequence[str], *, split: str | None = None) -> ImageDir:
        """Find the folder of the images by some of their names in the file, or in one split of it."""
        if self.images is not None:
            return ImageDir(root / self.images)
        return find_image_dir(root, path, samples, choice=self.choice, split=split)
