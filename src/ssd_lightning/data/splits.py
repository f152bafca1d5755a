"""Where the splits that a data set names have their files: roots, annotations, pictures and their names."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from ssd_lightning.data.images import IMAGE_SUFFIXES
from ssd_lightning.data.special_files import is_file, refuse_special_file
from ssd_lightning.errors import DataError

IMAGE_FOLDERS = ("{name}", "images/{name}", "{name}/images")
"""Where pictures usually lie below the root; `name` is that of the annotation file or of its folder."""


class MissingSplitError(DataError):
    """The root is there, but not the split."""

    def __init__(self, path: Path, split: str, others: Iterable[str]) -> None:
        names = sorted(others)
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        super().__init__(f"{path}: there is no split '{split}'; there is {shown or 'none at all'}")


def absolute_roots(splits: Sequence[Mapping[str, str]]) -> list[Path]:
    """Give the root of every split as an absolute path, links unresolved."""
    return [Path(os.path.abspath(Path(split["root"]).expanduser())) for split in splits]


def root_prefixes(roots: Sequence[Path]) -> dict[Path, str]:
    """Give every root what the ids of its pictures begin with: nothing for one root, else its folder's name."""
    distinct = set(roots)
    if len(distinct) <= 1:
        return dict.fromkeys(distinct, "")
    # One folder name is enough for VOC2007 and VOC2012; a/VOC2007 and b/VOC2007 need two.
    for depth in range(1, max(len(root.parts) for root in distinct) + 1):
        prefixes = {root: "/".join(root.parts[-depth:]) + "/" for root in distinct}
        if len(set(prefixes.values())) == len(distinct):
            break
    return prefixes


def check_root(root: Path) -> None:
    """Refuse a root that does not exist.

    Raises:
        DataError: it is no folder.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; data.root= says where the data lie")


def open_splits(splits: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, Path, str]]:
    """List (prefix of the ids, root, split), for formats in which pictures of two splits may have one name.

    Raises:
        DataError: a root is missing.
    """
    roots = absolute_roots(splits)
    prefixes = root_prefixes(roots)
    for root, split in zip(roots, splits, strict=True):
        check_root(root)
        inner = f"{split['split']}/" if roots.count(root) > 1 else ""
        yield f"{prefixes[root]}{inner}", root, split["split"]


def picture_id(name: str, seen: set[str]) -> str:
    """Name a picture by its file without suffix; by its whole name where `seen` has that id. Adds it to `seen`."""
    path = PurePosixPath(name)
    image_id = str(path.with_suffix("")) if path.suffix.lower() in IMAGE_SUFFIXES else name
    image_id = name if image_id in seen else image_id
    seen.add(image_id)
    return image_id


def find_file(root: Path, split: str, patterns: Sequence[str], suffix: str) -> Path:
    """Find the annotation file of a split.

    Args:
        root: folder of the data set.
        split: a name that fills `{split}` in the patterns, or the path of the file below the root.
        patterns: the usual places below the root.
        suffix: of the file.

    Raises:
        MissingSplitError: it is in none of these places.
    """
    candidates = [root / (split if split.endswith(suffix) else pattern.format(split=split)) for pattern in patterns]
    for path in candidates:
        if is_file(path):
            return path
    folders = (root, root / "annotations", *(folder for folder in root.iterdir() if folder.is_dir()))
    others = {path.relative_to(root).as_posix() for folder in folders for path in folder.glob(f"*{suffix}")}
    raise MissingSplitError(candidates[0], split, others)


def find_image_dir(root: Path, annotation_path: Path, images: str | None, samples: Sequence[str]) -> Path:
    """Find the folder of the pictures that an annotation file names.

    Args:
        root: folder of the data set.
        annotation_path: the annotation file.
        images: the folder below the root, if it is known.
        samples: names of some pictures.

    Returns:
        The first usual place that has one of them; the first that exists if none has.
    """
    if images is not None:
        return root / images
    stem = annotation_path.stem.removeprefix("instances_")
    names = (stem, annotation_path.parent.name, stem.removeprefix("oidv6-").removesuffix("-annotations-bbox"))
    candidates = [root / pattern.format(name=name) for name in names for pattern in IMAGE_FOLDERS]
    candidates += [annotation_path.parent / "images", annotation_path.parent, root / "images"]
    # One picture may be missing; that all of the samples are tells that this is another folder.
    for folder in candidates:
        if any(find_picture(folder, name, root=root) for name in samples):
            return folder
    return next(folder for folder in candidates if folder.is_dir())


def is_within(root: Path, path: Path) -> bool:
    """Say whether a path lies below a root, links unresolved."""
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root))


def find_picture(folder: Path, name: str, *, root: Path) -> Path | None:
    """Find a picture by the name that its annotation states, with or without suffix; below the root first."""
    found = []
    # Some tools state a path of their own machine; only the last part can help.
    for stated in (name, PureWindowsPath(name).name):
        path: Path | None = folder / stated
        if Path(stated).suffix.lower() not in IMAGE_SUFFIXES:
            path = picture_with_suffix(folder, stated)
        elif not is_file(folder / stated):
            path = None
        if path is not None and is_within(root, path):
            return path
        found += [path] if path is not None else []
    return next(iter(found), None)


def picture_with_suffix(folder: Path, name: str) -> Path | None:
    """Find the picture of a name without suffix, None if there is none."""
    for suffix in (*IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES)):
        path = folder / f"{name}{suffix}"
        if is_file(path):
            return path
    return None


def read_lines(path: Path) -> list[str]:
    """Read a text file line by line, whatever the system that wrote it: without byte order mark and line ends.

    Unlike `str.splitlines`, only line feeds and carriage returns end a line: a name may have other separators in it.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is no UTF-8.
        DataError: it is no file.
    """
    refuse_special_file(path)
    return path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
