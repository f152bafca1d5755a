"""What formats with one annotation file for each split have in common: that file, and the folder of its images."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ssd_lightning.data.formats.files import MissingSplitError, files_near, is_within
from ssd_lightning.data.formats.image_files import ImageDir, find_image, folder_with
from ssd_lightning.data.formats.survey import walk
from ssd_lightning.data.split_names import KIND_OF_WORD, kind_of
from ssd_lightning.errors import DataError, listed

IMAGE_FOLDERS = ("{name}", "images/{name}", "{name}/images", "{name}/data")
"""Usual image folders below the root; `name` is that of the annotation file, of its folder or of its split."""


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
        """Find the file of a split, by its path or its name. Raises `MissingSplitError` if there is none."""
        suffixes = tuple({Path(location).suffix for location in self.locations})
        names = [split] if split.endswith(suffixes) else [pattern.format(split=split) for pattern in self.locations]
        for name in names:
            if os.path.isfile(root / name):
                return root / name
        others = {path.relative_to(root).as_posix() for path in files_near(root, suffixes)}
        raise MissingSplitError(root / names[0], split, others)

    def files(self, root: Path, split: str) -> Iterable[str]:
        """Return the file of a split, with links resolved. Raises `DataError` if there is no such split."""
        return [os.path.realpath(self.path(root, split))]

    def image_dir(self, root: Path, path: Path, samples: Sequence[str], *, split: str | None = None) -> ImageDir:
        """Find the folder of the images that a file names, by some of these names.

        It is the first usual folder that contains one of the samples; else another one below the root that does and is
        not named as another split (`split` is `train`, `val` or `test`; None means what the path of the file says);
        else the first usual one that exists. Raises `DataError` if it may be one of several folders.
        """
        if self.images is not None:
            return ImageDir(root / self.images)
        stem = path.stem.removeprefix("instances_")
        split = split or kind_of(os.path.relpath(path, root))
        of_split = [split, *(name for name, meant in KIND_OF_WORD.items() if meant == split)] if split else []
        names = dict.fromkeys((stem, path.parent.name, stem.removesuffix("_labels"), *of_split))  # TensorFlow's
        usual = [root / pattern.format(name=name) for name in names for pattern in IMAGE_FOLDERS]
        beside = path.parent
        usual += [beside / "images", beside / "data", beside, root / "images"]
        # Images of one name may be in several splits, and those of another split are the wrong ones.
        folders = (folder for folder in sorted(root.iterdir()) if folder.is_dir())
        others = [root, *(folder for folder in folders if not folder.name.lower().startswith(tuple(KIND_OF_WORD)))]
        found = folder_with(usual, samples, root=root) or folder_with(others, samples, root=root)
        if found is not None:
            return ImageDir(found)
        holders = _holders(root, samples)
        of_others = [folder for folder in holders if {kind_of(os.path.relpath(folder, root))} - {None, split}]
        left = [folder for folder in holders if folder not in of_others]
        left = [folder for folder in left if kind_of(os.path.relpath(folder, root)) is not None] or left
        advice = f"data={self.choice} data.images=FOLDER states their folder"
        if len(left) > 1:
            names_of = ", ".join(repr(name) for name in samples[:1])
            raise DataError(f"{path}: {names_of} is in several folders: {_shown(root, left)}; {advice}")
        if left:
            return ImageDir(left[0])
        there = [folder for folder in dict.fromkeys(usual) if folder.is_dir()]
        hint = f"; neither {_shown(root, there)} nor another folder of the data has the images"
        hint += f", but {_shown(root, of_others)} of another split has such names" if of_others else ""
        return ImageDir(there[0], f"{hint}; {advice}")


def _holders(root: Path, samples: Sequence[str]) -> list[Path]:
    """Return the folders below a root that have most of some images; one folder for the same files."""
    longest = max((name.replace("\\", "/").count("/") + 1 for name in samples), default=0)
    folders = [folder for folder, _, _ in walk(root)] if samples else []
    for keep in range(longest, 0, -1):
        found: dict[frozenset[str], Path] = {}
        for folder in folders:
            paths = [
                path
                for name in samples
                if (path := find_image(folder, name, root=root, keep=keep)) and is_within(root, path)
            ]
            found.setdefault(frozenset(map(os.path.realpath, paths)), folder)
        most = max(map(len, found))
        if most:
            return [folder for paths, folder in found.items() if len(paths) == most]
    return []


def _shown(root: Path, folders: Iterable[Path]) -> str:
    return listed((Path(os.path.relpath(folder, root)).as_posix() for folder in folders), 5)
