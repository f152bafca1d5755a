"""Where the files of a VOC split are: in the lists of `ImageSets`, or in a folder for each split."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path, PurePath

from ssd_lightning.data.formats.files import MissingSplitError, is_within, list_files, read_lines
from ssd_lightning.data.formats.image_files import image_with_suffix, images_in, is_comment, path_tails, portable_path
from ssd_lightning.data.image_suffixes import KNOWN_SUFFIXES
from ssd_lightning.data.split_names import kind_of, other_splits
from ssd_lightning.errors import DataError, listed


@dataclass(frozen=True)
class Place:
    """Paths of a split."""

    root: Path
    annotations: Path
    images: Path
    listed_in: Path | None = None
    """The list that defines the split; None: it has all XML files."""
    skipped_folders: tuple[str, ...] = ()
    """Subfolders that are other splits."""
    shares_images: bool = False
    """Whether other splits have their images in the same folder."""

    def xml_path(self, name: str) -> str:
        """Return the XML file of an image."""
        return os.path.join(self.annotations, f"{name}.xml")

    def xml_names(self) -> list[str]:
        """List the XML files of the split, without suffix."""
        found = list_files(self.annotations, (".xml",), skipped=self.skipped_folders)
        return [path.as_posix().removesuffix(".xml") for path in found]

    @cached_property
    def images_by_name(self) -> Mapping[str, Sequence[Path]]:
        """All images below the root by their names without suffix, but for those in folders of other splits."""
        kind = kind_of(self.annotations.relative_to(self.root).as_posix())
        by_name = defaultdict(list)
        for path in list_files(self.root, KNOWN_SUFFIXES, skipped=()):
            if kind_of(path.parent.as_posix()) in (kind, None):
                by_name[path.stem].append(self.root / path)
        return by_name

    def image_elsewhere(self, name: str) -> Path | None:
        """Find an image by its name alone if there are none at all where it belongs, and only one has that name."""
        expected = self.images / name
        is_prescribed = self.listed_in is not None and self.listed_in.parent not in (self.root, self.annotations)
        if is_prescribed or images_in(str(expected.parent)):
            return None
        found = self.images_by_name.get(expected.name, ())
        inside = [path for path in found if is_within(self.images, path)]  # not masks beside the XML files
        return next(iter(inside or found)) if len(inside or found) == 1 else None


def lists_in(root: Path) -> dict[str, Path] | None:
    """Return the lists of `ImageSets` by split, or those that name XML files and are beside them or in the root.

    None if there are none.
    """
    folder = list_folder(root)
    if folder != root:
        return {path.stem: path for path in _visible_texts(folder)}
    place = _place_in(root, ".")
    texts = [path for of in (place.annotations, root) for path in _visible_texts(of) if kind_of(path.stem)]
    paths = {path.stem.removesuffix("_list"): path for path in texts}
    return {split: path for split, path in paths.items() if _names_xml(path, place)} or None


def list_folder(root: Path) -> Path:
    """Return the folder of lists: `ImageSets/Main` or `ImageSets` if it has any, else the root."""
    folders = (root / "ImageSets" / "Main", root / "ImageSets")
    return next((path for path in folders if _visible_texts(path)), root)


def _visible_texts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.txt") if not path.name.startswith("."))


def _names_xml(path: Path, place: Place) -> bool:
    try:
        lines = [line for line in read_lines(path, "split") if line.strip()][:5]
    except DataError:
        return False  # a file for something else
    return any(os.path.isfile(place.xml_path(_name_in(line, place))) for line in lines)


def read_split(root: Path, split: str) -> tuple[Place, list[str]]:
    """Find a split, and the names of its XML files, without suffix. Raises `DataError` if there is no such split."""
    lists = lists_in(root)
    if lists is None:
        return _read_folder(root, split)
    if split not in lists:
        if list_folder(root) == root and (root / split).is_dir():
            return _read_folder(root, split)
        raise MissingSplitError(list_folder(root) / f"{split}.txt", split, lists)
    path = lists[split]
    if list_folder(root) == root:
        place = replace(_place_in(root, "."), listed_in=path)
    else:
        place = Place(root, root / "Annotations", root / "JPEGImages", listed_in=path)
    names = [_name_in(line, place) for line in read_lines(path, "split") if line.strip()]
    names = [name for name in names if not is_comment(name, [place.images]) or os.path.isfile(place.xml_path(name))]
    return place, list(dict.fromkeys(names))


def _read_folder(root: Path, split: str) -> tuple[Place, list[str]]:
    place, whole = _place_in(root, split), _place_in(root, ".")
    names = place.xml_names()
    _refuse_lists_below(root / split if names else root)
    if names:
        return place, names
    folders = (path for path in root.iterdir() if path.is_dir() and path != whole.annotations)
    others = [folder.name for folder in folders if _place_in(root, folder.name).xml_names()]
    others += ["."] * bool(whole.xml_names())
    if not others:
        raise DataError(f"{root}: this is not a VOC folder: it has neither ImageSets/Main nor XML files")
    raise MissingSplitError(root / split, split, others)


def _refuse_lists_below(folder: Path) -> None:
    """Raise `DataError` if a folder without lists has data sets with lists: it would have their test images too."""
    patterns = ("ImageSets", "*/ImageSets", "*/*/ImageSets")  # VOCdevkit/VOC2007
    roots = sorted(path.parent for pattern in patterns for path in folder.glob(pattern))
    roots = [root for root in roots if list_folder(root) != root]
    if roots:
        advice = "set data.root= to the folder around ImageSets; data.train= uses several together"
        raise DataError(f"{folder}: there are lists of splits in ImageSets of {listed(map(str, roots))}; {advice}")


def has_xml(root: Path, split: str) -> bool:
    """Tell whether a split of a root without lists has XML files."""
    return bool(_place_in(root, split).xml_names())


def _place_in(root: Path, split: str) -> Place:
    """Find the XML files and images of a split: side by side, or in two folders."""
    image_kinds = ("JPEGImages", "images")
    kinds = list(product(("Annotations", "annotations", "labels"), image_kinds))
    for pair, pattern in product(kinds, ("{split}/{kind}", "{kind}/{split}")):
        annotations, images = (root / pattern.format(split=split, kind=kind) for kind in pair)
        if annotations.is_dir() and images.is_dir():
            return Place(root, annotations, images)
    for annotations, images in ((root / of_xml / split, root / of_images) for of_xml, of_images in kinds):
        if annotations.is_dir() and images.is_dir():
            return Place(root, annotations, images, shares_images=True)
    sides = (root / split, *(root / kind / split for kind in image_kinds))
    folder = next((side for side in sides if side.is_dir()), root / split)
    return Place(root, folder, folder, skipped_folders=other_splits(split))


def _name_in(line: str, place: Place) -> str:
    """Return the image name of a line: `name`, in lists of one class `name flag`, or `image xml`.

    The name may have a suffix, and begin with the folder of the images.
    """
    whole = portable_path(line.strip())
    name, *flag = whole.rsplit(maxsplit=1)
    if not flag or os.path.isfile(place.xml_path(whole)):
        return _without_suffix(whole, place)
    if flag[0].lower().endswith(".xml"):  # as PaddleDetection writes it
        tails = (tail[: -len(".xml")] for tail in path_tails(flag[0]))
        return next((tail for tail in tails if os.path.isfile(place.xml_path(tail))), PurePath(flag[0]).stem)
    is_flagged = flag[0] in ("-1", "0", "1") and image_with_suffix(place.images / whole) is None
    return _without_suffix(name if is_flagged else whole, place)


def _without_suffix(name: str, place: Place) -> str:
    stem, suffix = os.path.splitext(name)
    bare = stem if suffix.lower() in KNOWN_SUFFIXES and not os.path.isfile(place.xml_path(name)) else name
    inner = bare.removeprefix(f"{place.images.name}/")
    return inner if inner != bare and not os.path.isfile(place.xml_path(bare)) else bare
