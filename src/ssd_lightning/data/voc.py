"""Pascal VOC annotations, listed in `ImageSets/Main`, or in one folder per split with images next to their XML."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path, PurePath

from ssd_lightning.data.annotation import check_class_names
from ssd_lightning.data.dataset import OnError, Subset, Transform
from ssd_lightning.data.image_suffixes import KNOWN_SUFFIXES
from ssd_lightning.data.special_files import is_file
from ssd_lightning.data.split_dataset import SplitDataset
from ssd_lightning.data.splits import (
    MissingSplitError,
    absolute_roots,
    check_root,
    image_with_suffix,
    is_comment,
    portable_path,
    read_lines,
    root_prefixes,
)
from ssd_lightning.data.voc_xml import object_name, parse_annotation, read_voc_annotation
from ssd_lightning.errors import DataError

log = logging.getLogger(__name__)

# fmt: off
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
SPLIT_FOLDERS = ("train", "training", "trainval", "val", "valid", "validation", "test", "testing")
"""Folder names, in any case, that are separate splits and not part of their parent folder."""


class VOCDataset(SplitDataset):
    """Images with VOC annotations, from one or more splits.

    Args:
        splits: each a `root` and a `split`. VOC 07+12 has two. If the root has `ImageSets`, a split is the name of
            a list in it. Otherwise it is a folder below the root (`.` for the root itself), with images next to their
            XML files, as labelImg and Roboflow write them, or in `JPEGImages` or `images` next to `Annotations`.
            Images without an XML file are then skipped, counted and logged.
        class_names: names of the classes 1..C; None takes all names that occur in the splits, sorted.
        keep_difficult: False drops objects flagged difficult, as ssd.pytorch does for training.
        xml_offset: subtracted from all four coordinates: 1 like most ports, since VOC counts pixels from 1;
            0 like the Caffe reference, and for tools that count from 0.
        on_error: `raise` stops at the first bad object or file; `skip` drops the object, or the image where
            the whole file is unusable, and lists them in `dropped` and in a warning.
        transform, seed, part, val_fraction, max_images: see `SplitDataset`.

    Raises:
        DataError: a root, split, image or annotation is missing or unusable; class names are empty or
            repeated; no image is left.
    """

    def __init__(
        self,
        *,
        splits: Sequence[Mapping[str, str]],
        class_names: Sequence[str] | None = None,
        transform: Transform | None = None,
        seed: int = 0,
        keep_difficult: bool = True,
        xml_offset: int = 1,
        on_error: OnError = "raise",
        part: Subset = "all",
        val_fraction: float = 0.0,
        max_images: int | None = None,
    ) -> None:
        if class_names is None:
            class_names = discover_class_names(splits, on_error=on_error)
        check_class_names(class_names)
        listed = list(list_images(splits))
        images = (
            (
                image_id,
                partial(
                    read_voc_annotation,
                    place.xml_path(name),
                    class_names,
                    image_dir=place.images,
                    image_id=image_id,
                    name=name,
                    keep_difficult=keep_difficult,
                    xml_offset=xml_offset,
                ),
            )
            for image_id, place, name in listed
        )
        for place in dict.fromkeys(place for _, place, _ in listed):
            _log_unlabelled(place)
        super().__init__(
            roots=absolute_roots(splits),
            images=images,
            class_names=class_names,
            transform=transform,
            seed=seed,
            on_error=on_error,
            part=part,
            val_fraction=val_fraction,
            max_images=max_images,
        )

    @staticmethod
    def split_sources(root: Path, split: str) -> Iterable[str]:
        """List the XML files of a split. Raises `DataError` if there is no such split."""
        place, names = _read_split(root, split)
        return (str(place.xml_path(name)) for name in names)


@dataclass(frozen=True)
class Place:
    """Paths of a split."""

    annotations: Path
    images: Path
    is_listed: bool = False
    """True if a list in `ImageSets` defines the split; otherwise it has all XML files."""
    skipped_folders: tuple[str, ...] = ()
    """Subfolders that are other splits."""

    def xml_path(self, name: str) -> Path:
        """Return the XML file of an image."""
        return self.annotations / f"{name}.xml"

    def files(self, folder: Path, suffixes: Sequence[str]) -> Iterator[PurePath]:
        """List the files of the split below one of its folders, relative to it, without hidden files."""
        for path in sorted(folder.rglob("*")):
            inner = path.relative_to(folder)
            is_elsewhere = inner.parts[0].lower() in self.skipped_folders
            is_hidden = any(part.startswith(".") for part in inner.parts)
            if inner.suffix.lower() in suffixes and not is_elsewhere and not is_hidden:
                yield inner

    def xml_names(self) -> list[str]:
        """List the XML files of the split, without suffix."""
        return [path.as_posix().removesuffix(".xml") for path in self.files(self.annotations, (".xml",))]


def discover_class_names(splits: Sequence[Mapping[str, str]], *, on_error: OnError = "raise") -> tuple[str, ...]:
    """Collect the class names of all objects in the splits, sorted.

    Raises:
        DataError: no object has a name; or an annotation cannot be parsed and `on_error` is `raise`.
    """
    names: set[str] = set()
    for _, place, name in list_images(splits):
        try:
            annotation = parse_annotation(place.xml_path(name))
        except DataError:
            if on_error == "raise":
                raise
            continue  # the data set reads this file again and lists it
        names.update(object_name(element) for element in annotation.iterfind("object"))
    names.discard("")
    if not names:
        where = ", ".join(f"{split['root']} '{split['split']}'" for split in splits)
        raise DataError(f"no object in {where or 'no split at all'} has a class name; give class_names")
    return tuple(sorted(names))


def list_images(splits: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, Place, str]]:
    """List (image id, place, name) of all images. An image in several splits of one root comes once.

    With several roots, the id starts with the root's folder: VOC2007/000005. If several splits of a root are
    folders, it starts with the split's.

    Raises:
        DataError: a root or a split is missing.
    """
    roots = absolute_roots(splits)
    prefixes = root_prefixes(roots)
    seen: set[str] = set()
    for root, split in zip(roots, splits, strict=True):
        place, names = _read_split(root, split["split"])
        inner = "" if place.is_listed or roots.count(root) == 1 else f"{split['split']}/"
        for name in names:
            image_id = f"{prefixes[root]}{inner}{name}"
            if image_id not in seen:
                seen.add(image_id)
                yield image_id, place, name


def find_list(root: Path, split: str) -> Path | None:
    """Return the list of a split in `ImageSets`, even if it does not exist; None if the root has no `ImageSets`."""
    folders = (root / "ImageSets" / "Main", root / "ImageSets")
    return next((folder / f"{split}.txt" for folder in folders if folder.is_dir()), None)


def _read_split(root: Path, split: str) -> tuple[Place, list[str]]:
    check_root(root)
    path = find_list(root, split)
    if path is None:
        return _read_folder(root, split)
    if not path.is_file():
        raise MissingSplitError(path, split, (other.stem for other in path.parent.glob("*.txt")))
    try:
        lines = read_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the split: {error}") from error
    place = Place(root / "Annotations", root / "JPEGImages", is_listed=True)
    names = [_name_in(line, root) for line in lines if line.strip()]
    return place, [name for name in names if not is_comment(name, [place.images]) or is_file(place.xml_path(name))]


def _read_folder(root: Path, split: str) -> tuple[Place, list[str]]:
    place, whole = _place_in(root / split), _place_in(root)
    names = place.xml_names()
    if names:
        return place, names
    folders = (path for path in root.iterdir() if path.is_dir() and path != whole.annotations)
    others = [folder.name for folder in folders if _place_in(folder).xml_names()]
    others += ["."] * bool(whole.xml_names())
    if not others:
        raise DataError(f"{root}: this is not a VOC folder: it has neither ImageSets/Main nor XML files")
    raise MissingSplitError(root / split, split, others)


def _place_in(folder: Path) -> Place:
    """Find the XML files and images of a folder: side by side, or each in a subfolder."""
    for annotations, images in product(("Annotations", "annotations"), ("JPEGImages", "images")):
        if (folder / annotations).is_dir() and (folder / images).is_dir():
            return Place(folder / annotations, folder / images)
    return Place(folder, folder, skipped_folders=SPLIT_FOLDERS)


def _log_unlabelled(place: Place) -> None:
    """Log how many images of a folder have no XML file. labelImg writes none for an image without objects."""
    if place.is_listed:
        return
    known = set(place.xml_names())
    images = {path: path.with_suffix("").as_posix() for path in place.files(place.images, KNOWN_SUFFIXES)}
    alone = known.difference(images.values())  # the XML files state images with other names
    stated = {PurePath(_stated_name(place.xml_path(name))).stem for name in alone}
    left = [path for path, name in images.items() if name not in known and path.stem not in stated]
    if left:
        log.warning("%s: %d images have no XML file and are skipped; the first is %s", place.images, len(left), left[0])


def _stated_name(path: Path) -> str:
    try:
        return portable_path((parse_annotation(path).findtext("filename") or "").strip())
    except DataError:
        return ""  # the reader reports the error


def _name_in(line: str, root: Path) -> str:
    """Return the image name of a line `name` or, in lists of one class, `name flag`."""
    whole = portable_path(line.strip())
    name, *flag = whole.rsplit(maxsplit=1)
    if not flag or flag[0] not in ("-1", "0", "1") or is_file(root / "Annotations" / f"{whole}.xml"):
        return whole
    image = root / "JPEGImages" / whole
    return name if image_with_suffix(image.parent, image.name) is None else whole
