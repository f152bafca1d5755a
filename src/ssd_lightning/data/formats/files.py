"""Find the files of named splits: roots, annotations, images and their names."""

import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import product
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any
from xml.etree.ElementTree import Element, ParseError, fromstring

from ssd_lightning.data.annotation_checks import whole_number
from ssd_lightning.data.annotations import ProblemKind
from ssd_lightning.data.image_suffixes import (
    IMAGE_SUFFIXES,
    KNOWN_SUFFIXES,
    is_unreadable_image_name,
)
from ssd_lightning.data.special_files import is_file, refuse_special_file
from ssd_lightning.errors import DataError

IMAGE_FOLDERS = ("{name}", "images/{name}", "{name}/images")
"""Usual image folders below the root; `name` is that of the annotation file or of its folder."""

SPLIT_FOLDERS = ("train", "training", "trainval", "val", "valid", "validation", "test", "testing")
"""Folder names, in any case, that are separate splits and not part of their parent folder."""

SPLIT_STARTS = ("train", "val", "test", "dev", "eval")


class FileError(DataError):
    """A file of a data set is missing or cannot be used."""

    def __init__(self, file: str | Path, text: str, *, kind: ProblemKind) -> None:
        super().__init__(f"{file}: {text}")
        self.file = str(file)
        self.text = text
        self.kind: ProblemKind = kind


class MissingSplitError(DataError):
    """The root exists, but not the split."""

    def __init__(self, path: Path, split: str, others: Iterable[str]) -> None:
        names = sorted(others)
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        super().__init__(f"{path}: there is no split '{split}'; there is {shown or 'none at all'}")


def check_root(root: Path) -> None:
    """Raise if a root does not exist.

    Raises:
        DataError: it is not a folder.
    """
    if not root.is_dir():
        if root.exists():
            raise DataError(
                f"{root}: this is a file, not a folder; unpack an archive, and set data.root= to its folder"
            )
        raise DataError(f"{root}: there is no such folder; set data.root= to the folder of the data")


def portable_path(stated: str) -> str:
    """Convert a path from any system to one with `/` as separator."""
    return stated.replace("\\", "/").removeprefix("./")


def unique_image_id(name: str, seen: set[str]) -> str:
    """Return an image's path without suffix as its id, or the whole path if `seen` has that id. Adds it to `seen`."""
    name = portable_path(name)
    while name.startswith("../"):
        name = name.removeprefix("../")
    if "//" in name or "/./" in name:
        name = str(PurePosixPath(name))
    image_id = os.path.splitext(name)[0] if _suffix(name) in IMAGE_SUFFIXES else name
    number = 1
    while image_id in seen:
        image_id = name if number == 1 else f"{name} ({number})"
        number += 1
    seen.add(image_id)
    return image_id


def find_file(root: Path, split: str, patterns: Sequence[str], suffix: str) -> Path:
    """Find the annotation file of a split.

    Args:
        root: folder of the data set.
        split: a name that replaces `{split}` in the patterns, or the path of the file below the root.
        patterns: usual locations below the root.
        suffix: suffix of the file.

    Raises:
        MissingSplitError: no location has the file.
    """
    candidates = [root / (split if split.endswith(suffix) else pattern.format(split=split)) for pattern in patterns]
    for path in candidates:
        if is_file(path):
            return path
    folders = (root, root / "annotations", *(folder for folder in root.iterdir() if folder.is_dir()))
    others = {path.relative_to(root).as_posix() for folder in folders for path in folder.glob(f"*{suffix}")}
    raise MissingSplitError(candidates[0], split, others)


def list_files(folder: Path, suffixes: Sequence[str], *, skipped: Sequence[str] = SPLIT_FOLDERS) -> Iterator[PurePath]:
    """List the files below a folder, relative to it, without hidden files and without those of some subfolders."""
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        is_hidden = any(part.startswith(".") for part in inner.parts)
        if inner.suffix.lower() in suffixes and inner.parts[0].lower() not in skipped and not is_hidden:
            yield inner


def find_image_dir(root: Path, annotation_path: Path, images: str | None, samples: Sequence[str]) -> Path:
    """Find the folder of the images that an annotation file names.

    Args:
        root: folder of the data set.
        annotation_path: the annotation file.
        images: the folder below the root, if known.
        samples: names of some images.

    Returns:
        The first usual folder that contains one of the samples; else another one below the root that does and is not
        named as a split; else the first usual one that exists.
    """
    if images is not None:
        return root / images
    stem = annotation_path.stem.removeprefix("instances_")
    split = stem.removeprefix("oidv6-").removesuffix("-annotations-bbox").removesuffix("_labels")  # TensorFlow's
    names = (stem, annotation_path.parent.name, split)
    candidates = [root / pattern.format(name=name) for name in names for pattern in IMAGE_FOLDERS]
    candidates += [annotation_path.parent / "images", annotation_path.parent, root / "images"]
    # Images of one name may be in several splits, and those of another split are the wrong ones.
    others = [
        path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.lower().startswith(SPLIT_STARTS)
    ]
    found = (folder_with(places, samples, root=root) for places in (candidates, [root, *others]))
    return next(filter(None, found), None) or next(folder for folder in candidates if folder.is_dir())


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


def is_within(root: Path, path: Path) -> bool:
    """Tell whether a path is below a root, with links unresolved."""
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))


def inside_first(paths: Iterable[Path], root: Path) -> list[Path]:
    """Sort the paths below a root before the others; both keep their order."""
    return sorted(paths, key=lambda path: not is_within(root, path))


def parts_to_keep(names: Collection[str]) -> dict[str, int]:
    """Return how many trailing parts of each path must stay, so that no two paths become equal.

    Args:
        names: paths as written in the annotations.

    Returns:
        The number for each path that needs more than its last part.
    """
    files = Counter(portable_path(name).rpartition("/")[2] for name in names)
    left = {name: parts for name in names if files[(parts := portable_path(name).split("/"))[-1]] > 1}
    needed, keep = {}, 1
    while left:
        counts = Counter(tuple(parts[-keep:]) for parts in left.values())
        left = {name: parts for name, parts in left.items() if counts[tuple(parts[-keep:])] > 1 and len(parts) > keep}
        keep += 1
        needed.update(dict.fromkeys(left, keep))
    return needed


def path_tails(stated: str, *, keep: int = 1) -> Iterator[str]:
    """Yield a path without its first parts, removed one by one, since it may come from another machine.

    Args:
        stated: the path, in the notation of any system.
        keep: number of trailing parts that must stay; 1 keeps only the file name.
    """
    parts = portable_path(stated).split("/")
    for start in range(max(1, len(parts) - keep + 1)):
        yield "/".join(parts[start:])


def find_image(folder: Path, stated: str, *, root: Path, keep: int = 1) -> Path | None:
    """Find an image by the path in its annotation, with or without suffix, below the root first.

    Some tools write a path of their own machine. Its first parts are removed one by one.

    Args:
        folder: base folder of the path.
        stated: the path in the annotation.
        root: root of the data set.
        keep: number of trailing parts that must stay; 1 keeps only the file name.
    """
    outside = None
    for tail in path_tails(stated, keep=keep):
        path = folder / tail
        found = path if is_file(path) else image_with_suffix(path.parent, path.name)
        if found is not None and is_within(root, found):
            return found
        outside = outside or found
    return outside


def require_image(folder: Path, stated: str, *, root: Path, keep: int = 1, stated_by: Path) -> Path:
    """Find an image as `find_image` does.

    Raises:
        DataError: there is no image, or only one in an unsupported format.
    """
    path = find_image(folder, stated, root=root, keep=keep)
    if path is None:
        place = stated if PureWindowsPath(stated).anchor else folder / portable_path(stated)  # C:\\a is below no folder
        raise FileError(place, f"the image is missing (stated by {stated_by})", kind="missing")
    refuse_unreadable(path)
    return path


class ImageFinder:
    """Finds the images that an annotation file names, as `require_image` does, but lists each folder once.

    Args:
        folder: base folder of the paths.
        names: all paths in the annotations.
        root: root of the data set.
        stated_by: the annotation file.

    Attributes:
        folders: the listed folders.
    """

    def __init__(self, folder: Path, names: Collection[str], *, root: Path, stated_by: Path) -> None:
        self.folders: dict[str, dict[str, str]] = {}
        self._folder = folder
        self._root = root
        self._stated_by = stated_by
        self._keep = parts_to_keep(names)

    def __call__(self, name: str) -> str:
        """Return the path of an image.

        Raises:
            FileError: there is no image, or only one in an unsupported format.
        """
        parent, _, file = portable_path(name).rpartition("/")
        folder = f"{self._folder}/{parent}" if parent else str(self._folder)
        if folder not in self.folders:
            self.folders[folder] = _list_images(folder) if is_within(self._root, Path(folder)) else {}
        found = self.folders[folder].get(file)
        if found is not None:
            return f"{folder}/{found}"
        keep = self._keep.get(name, 1)
        return str(require_image(self._folder, name, root=self._root, keep=keep, stated_by=self._stated_by))


def _list_images(folder: str) -> dict[str, str]:
    """Return the images of a folder by name, and by the name without suffix if that has no dot."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _suffix(entry.name) in IMAGE_SUFFIXES and entry.is_file()]
    except (OSError, ValueError):
        return {}
    names.sort(key=lambda name: (-IMAGE_SUFFIXES.index(_suffix(name)), name), reverse=True)
    by_stem = {stem: name for name in names for stem in [os.path.splitext(name)[0]] if "." not in stem}
    return {**by_stem, **{name: name for name in names}}


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def refuse_unreadable(path: Path) -> None:
    """Raise if an image has an unsupported format.

    Raises:
        DataError: its suffix is that of an unsupported format.
    """
    if is_unreadable_image_name(path):
        text = f"cannot read the image: {path.suffix} is not read; convert it to .jpg or .png"
        raise FileError(path, text, kind="image")


def image_with_suffix(folder: Path, name: str) -> Path | None:
    """Find the image of a name without suffix, or with one in another case; None if there is none.

    An image of an unsupported format is found only if there is no other.
    """
    for suffix in IMAGE_SUFFIXES[:3]:  # faster than listing the folder
        path = folder / f"{name}{suffix}"
        if is_file(path):
            return path
    try:
        by_stem = _images_by_stem(folder, folder.stat().st_mtime_ns)
    except (OSError, ValueError):
        return None
    suffix = Path(name).suffix.lower()
    same_suffix = [path for path in by_stem.get(Path(name).stem, ()) if path.suffix.lower() == suffix]
    number = whole_number(name) if name.endswith(".0") else None  # tables of numbers write 17 like this
    found = same_suffix or by_stem.get(name) or by_stem.get(str(number))
    return found[0] if found else None


@lru_cache(maxsize=16)
def _images_by_stem(folder: Path, changed_ns: int) -> dict[str, list[Path]]:
    by_stem = defaultdict(list)
    for path in folder.iterdir():
        if path.suffix.lower() in KNOWN_SUFFIXES and is_file(path):
            by_stem[path.stem].append(path)
    for paths in by_stem.values():
        paths.sort(key=lambda path: (KNOWN_SUFFIXES.index(path.suffix.lower()), path.name))
    return dict(by_stem)


def is_comment(line: str, folders: Iterable[Path]) -> bool:
    """Tell whether a line of a list is a comment: it starts with `#`, and no image in the folders has that name."""
    name = portable_path(line.strip())
    return name.startswith("#") and not any(
        is_file(folder / name) or image_with_suffix((folder / name).parent, Path(name).name) for folder in folders
    )


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file from any system, without byte order mark and line ends.

    Unlike `str.splitlines`, only line feeds and carriage returns end a line, since names may contain other separators.

    Raises:
        OSError: the file cannot be read.
        UnicodeDecodeError: the file is not UTF-8.
        DataError: it is not a file.
    """
    refuse_special_file(path)
    return path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")


def read_json(path: Path, *, edit: Callable[[bytes], bytes] | None = None) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        edit: changes the text before it is parsed.

    Raises:
        FileError: the file cannot be read, or is not JSON.
    """
    content = _read_annotation(path)
    try:
        return json.loads((content if edit is None else edit(content)).removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        if edit is not None:
            return read_json(path)  # its error has the right place
        raise FileError(path, f"this is not readable JSON: {error}", kind="annotation") from error


def read_xml(path: Path) -> Element:
    """Read an XML file, with all tags in lower case, since tools differ: <Difficult>, <xMin>.

    Entities are rejected, since they can expand without limit. The standard parser does not load external ones, and
    Expat limits what others expand to.

    Raises:
        FileError: the file cannot be read, is not XML, or has entities.
    """
    content = _read_annotation(path)
    if b"<!ENTITY" in content.replace(b"\0", b""):  # without the zeros of UTF-16 and UTF-32
        raise FileError(path, "the XML declares entities, which is refused", kind="annotation")
    try:
        root = fromstring(content)  # noqa: S314 - see above
    except (ParseError, ValueError, LookupError) as error:  # ValueError, LookupError: wrong or unknown encodings
        raise FileError(path, f"this is not well-formed XML: {error}", kind="annotation") from error
    for element in root.iter():
        element.tag = element.tag.lower()
    return root


def _read_annotation(path: Path) -> bytes:
    try:
        refuse_special_file(path)
        return path.read_bytes()
    except DataError as error:
        raise FileError(path, str(error).removeprefix(f"{path}: "), kind="annotation") from error
    except FileNotFoundError:
        raise FileError(path, "the annotation is missing", kind="missing") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise FileError(path, f"cannot read the annotation: {error}", kind="annotation") from error
