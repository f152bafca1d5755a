"""Find the images that annotations name."""

import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product
from pathlib import Path, PureWindowsPath
from typing import NamedTuple
from unicodedata import normalize

from ssd_lightning.data.annotation_checks import whole_number
from ssd_lightning.data.formats.files import FileError, is_within, list_files
from ssd_lightning.data.image_suffixes import KNOWN_SUFFIXES


def portable_path(stated: str) -> str:
    """Convert a path from any system to one with `/` as separator."""
    return stated.replace("\\", "/").removeprefix("./")


def without_parents(path: str) -> str:
    """Return a path without the `../` that it begins with."""
    return re.sub(r"^(\.\./)+", "", path)


def folder_with(candidates: Sequence[Path], samples: Sequence[str], *, root: Path) -> Path | None:
    """Find the first folder that contains one of some images; None if there is none.

    Folders inside the root come before those outside, and whole paths before shortened ones. Single images may be
    missing; if all samples are missing, it is another folder.
    """
    for outside, keep in product((False, True), (sys.maxsize, 1)):
        for folder in candidates:
            found = (find_image(folder, name, root=root, keep=keep) for name in samples)
            if any(path is not None and (outside or is_within(root, path)) for path in found):
                return folder
    return None


def parts_to_keep(names: Iterable[str]) -> dict[str, int]:
    """Return how many trailing parts of a path must stay, so that no two become equal; none for those that need one."""
    left = {name: portable_path(name).split("/") for name in names}
    needed, keep = {}, 1
    while left:
        counts = Counter(tuple(parts[-keep:]) for parts in left.values())
        left = {name: parts for name, parts in left.items() if counts[tuple(parts[-keep:])] > 1 and len(parts) > keep}
        keep += 1
        needed.update(dict.fromkeys(left, keep))
    return needed


def path_tails(stated: str, *, keep: int = 1) -> Iterator[str]:
    """Yield a path of any system, which may be another machine's, with its first parts removed one by one.

    `keep` is the number of trailing parts that must stay; 1 keeps only the file name.
    """
    parts = portable_path(stated).split("/")
    for start in range(max(1, len(parts) - keep + 1)):
        yield "/".join(parts[start:])


def find_image(folder: Path, stated: str, *, root: Path, keep: int = 1) -> Path | None:
    """Find an image by the `path_tails` of its path in the annotation, with or without suffix, below the root first."""
    outside = None
    for tail in path_tails(stated, keep=keep):
        path = folder / tail
        found = path if os.path.isfile(path) else image_with_suffix(path)
        if found is not None and is_within(root, found):
            return found
        outside = outside or found
    return outside


def image_with_suffix(path: Path) -> Path | None:
    """Find the image of a path without suffix, or with one in another case; one in a supported format first.

    An accent may be a character of its own, as macOS writes file names, or not.
    """
    images = images_in(str(path.parent))
    found = _of_name(images, path) or _of_name(images, path.parent / normalize("NFC", path.name))
    return path.parent / found[0] if found else None


def _of_name(images: Mapping[str, Sequence[str]], path: Path) -> Sequence[str]:
    number = whole_number(path.name) if path.name.endswith(".0") else None  # tables of numbers write 17 like this
    same_suffix = [name for name in images.get(path.stem, ()) if _suffix(name) == path.suffix.lower()]
    return same_suffix or images.get(path.name) or images.get("" if number is None else str(number)) or ()


def is_comment(line: str, folders: Iterable[Path]) -> bool:
    """Tell whether a line of a list is a comment: it starts with `#`, and no image in the folders has that name."""
    name = portable_path(line.strip())
    paths = (folder / name for folder in folders)
    return name.startswith("#") and not any(os.path.isfile(path) or image_with_suffix(path) for path in paths)


def note_skipped(folder: str | Path, images: Sequence[object], what: str) -> list[str]:
    """Say that images of a folder are skipped, since they have none of `what`; nothing if there are no such images."""
    if not images:
        return []
    return [f"{folder}: {len(images)} images have no {what} and are skipped; the first is {images[0]}"]


def note_unlabelled(
    folder: Path, used: Collection[str], names: Iterable[str], what: str, *, skipped: Sequence[str]
) -> list[str]:
    """Say how many images of a folder are not `used`, apart from those called like annotation files, by `names`."""
    known = set(names)  # those of damaged files are reported already
    images = list_files(folder, KNOWN_SUFFIXES, skipped=skipped)
    left = [path for path in images if str(folder / path) not in used]
    left = [path for path in left if path.with_suffix("").as_posix() not in known]
    return note_skipped(folder, left, what)


class ImageDir(NamedTuple):
    """The folder of the images that an annotation file names."""

    path: Path
    hint: str = ""
    """What to do if they are not there."""


class ImageFinder:
    """Finds the images that an annotation file names as `find_image` does, but lists each of the `folders` once.

    `names` are all paths in the file `stated_by`, and start at `image_dir`.
    """

    def __init__(self, image_dir: ImageDir, names: Collection[str], *, root: Path, stated_by: Path) -> None:
        self.folders: dict[str, Mapping[str, Sequence[str]]] = {}
        self._folder, self._hint = image_dir
        self._root = root
        self._stated_by = stated_by
        self._keep = parts_to_keep(names)

    def __call__(self, name: str) -> str:
        """Return the path of an image. Raises `FileError` if there is none."""
        parent, _, file = portable_path(name).rpartition("/")
        folder = f"{self._folder}/{parent}" if parent else str(self._folder)
        if folder not in self.folders:
            self.folders[folder] = images_in(folder) if is_within(self._root, Path(folder)) else {}
        same_stem = self.folders[folder].get(os.path.splitext(file)[0], ())
        if file in same_stem or (same_stem and "." not in file):
            return f"{folder}/{file if file in same_stem else same_stem[0]}"
        path = find_image(self._folder, name, root=self._root, keep=self._keep.get(name, 1))
        if path is None and not parent:
            path = self._in_a_stated_folder(file)
        if path is None:  # C:\a is below no folder
            place = name if PureWindowsPath(name).anchor else self._folder / portable_path(name)
            text = f"the image is missing (stated by {self._stated_by}){self._hint}"
            raise FileError(place, text, kind="missing")
        return str(path)

    def _in_a_stated_folder(self, file: str) -> Path | None:
        """Find an image without a stated folder in those of other names, if only one of them has it."""
        found = {find_image(Path(folder), file, root=self._root) for folder in self.folders} - {None}
        return found.pop() if len(found) == 1 else None


def images_in(folder: str) -> Mapping[str, Sequence[str]]:
    """Return the images of a folder by their names without suffix, as they are and in NFC, the usual suffix first."""
    try:
        return _list_images(folder, os.stat(folder).st_mtime_ns)
    except (OSError, ValueError):
        return {}


@lru_cache(maxsize=16)
def _list_images(folder: str, changed_ns: int) -> Mapping[str, Sequence[str]]:
    by_stem = defaultdict(list)
    with os.scandir(folder) as entries:
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() in KNOWN_SUFFIXES and entry.is_file():
                by_stem[stem].append(entry.name)
    for names in by_stem.values():
        if len(names) > 1:
            names.sort(key=lambda name: (KNOWN_SUFFIXES.index(_suffix(name)), name))
    return {normalize("NFC", stem): names for stem, names in by_stem.items()} | dict(by_stem)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
