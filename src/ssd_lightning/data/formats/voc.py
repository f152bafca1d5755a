"""Pascal VOC annotations, listed in `ImageSets/Main`, or in one folder per split with images next to their XML."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path, PurePath
from xml.etree.ElementTree import Element

from ssd_lightning.data.annotation_checks import BOX_KEYS, flag_of, number_of, stated_size_px
from ssd_lightning.data.annotations import Annotations
from ssd_lightning.data.formats.builder import TableBuilder
from ssd_lightning.data.formats.files import (
    FileError,
    MissingSplitError,
    in_threads,
    inside_first,
    is_within,
    list_files,
    read_lines,
    read_xml,
)
from ssd_lightning.data.formats.found import FoundImage, FoundObject
from ssd_lightning.data.formats.image_files import (
    find_image,
    image_with_suffix,
    images_in,
    is_comment,
    path_tails,
    portable_path,
    refuse_unreadable,
)
from ssd_lightning.data.image_suffixes import KNOWN_SUFFIXES
from ssd_lightning.data.split_names import kind_of, note_merged, other_splits
from ssd_lightning.errors import DataError

# fmt: off
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on


@dataclass(frozen=True, kw_only=True)
class VOC:
    """Reads VOC annotations.

    If the root has `ImageSets`, a split is the name of a list in it; so is `NAME.txt` or `NAME_list.txt` in the root,
    if it names XML files. Otherwise it is a folder below the root (`.` for the root itself), with images next to their
    XML files, as labelImg and Roboflow write them, or in `JPEGImages` or `images` next to `Annotations`; the split may
    also be a folder in both of these, or in one. Images without an XML file are then skipped, counted and logged. If
    there are no images in these places, they are found by their names alone.

    Args:
        xml_offset: subtracted from all four coordinates: 1 like most ports, since VOC counts pixels from 1; 0 like the
            Caffe reference, and for tools that count from 0.
    """

    xml_offset: int = 1

    def read(self, root: Path, split: str) -> Annotations:
        """Read a split. Raises `DataError` if there is no such split, or it cannot be read."""
        place, names = _read_split(root, split)
        builder = TableBuilder(first_pixel=self.xml_offset)
        listed = images_in(str(place.images))
        for name, found in in_threads(lambda name: _read_image(place, listed, name), names):
            builder.add_image(name, found)
        builder.sources += map(place.xml_path, names)
        if place.listed_in is None:
            builder.notes += note_merged(place.annotations, names, split=split)
            builder.notes += [] if place.shares_images else _unlabelled(place)
            folders = {folder for folder in (place.annotations, place.images) if folder.is_dir()}
            folders |= {path for folder in folders for path in folder.rglob("*") if path.is_dir()}
            builder.sources += sorted(map(str, folders))
        else:
            builder.sources += [str(place.listed_in), str(place.images)]
        return builder.finish(root, ids_are_shared=place.listed_in is not None)

    def files(self, root: Path, split: str) -> Iterable[str]:
        """List the XML files of a split. Raises `DataError` if there is no such split."""
        place, names = _read_split(root, split)
        return map(place.xml_path, names)


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
    """List the text files of a folder that are not hidden."""
    return sorted(path for path in folder.glob("*.txt") if not path.name.startswith("."))


def _names_xml(path: Path, place: Place) -> bool:
    """Tell whether one of the first lines of a list names an XML file."""
    try:
        lines = [line for line in read_lines(path, "split") if line.strip()][:5]
    except DataError:
        return False  # a file for something else
    return any(os.path.isfile(place.xml_path(_name_in(line, place))) for line in lines)


def _read_split(root: Path, split: str) -> tuple[Place, list[str]]:
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
    if names:
        return place, names
    folders = (path for path in root.iterdir() if path.is_dir() and path != whole.annotations)
    others = [folder.name for folder in folders if _place_in(root, folder.name).xml_names()]
    others += ["."] * bool(whole.xml_names())
    if not others:
        raise DataError(f"{root}: this is not a VOC folder: it has neither ImageSets/Main nor XML files")
    raise MissingSplitError(root / split, split, others)


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


def _unlabelled(place: Place) -> list[str]:
    """Say how many images of a folder have no XML file. labelImg writes none for an image without objects."""
    known = set(place.xml_names())
    listed = list_files(place.images, KNOWN_SUFFIXES, skipped=place.skipped_folders)
    images = {path: path.with_suffix("").as_posix() for path in listed}
    alone = known.difference(images.values())  # the XML files state images with other names
    stated = {PurePath(_stated_name(place.xml_path(name))).stem for name in alone}
    left = [path for path, name in images.items() if name not in known and path.stem not in stated]
    if not left:
        return []
    return [f"{place.images}: {len(left)} images have no XML file and are skipped; the first is {left[0]}"]


def _stated_name(path: str) -> str:
    try:
        return _filename_in(parse_annotation(path))
    except DataError:
        return ""  # the reader reports the error


def _filename_in(annotation: Element) -> str:
    return portable_path((annotation.findtext("filename") or "").strip())


def parse_annotation(path: str | Path) -> Element:
    """Parse the `<annotation>` of an XML file. Raises `FileError` if it cannot be read, or begins with another tag."""
    root = read_xml(path)
    if root.tag != "annotation":
        raise FileError(path, f"the XML begins with <{root.tag}>, not with <annotation>")
    return root


def _read_image(place: Place, listed: Mapping[str, Sequence[str]], name: str) -> FoundImage:
    """Read an XML file. The images that are `listed` in the folder need no search."""
    path = place.xml_path(name)
    annotation = parse_annotation(path)
    if name in listed and "." not in name:
        image: str | Path = f"{place.images}/{listed[name][0]}"
        refuse_unreadable(image)
    else:
        image = _find_image(place, name, _filename_in(annotation))
    size_of = annotation.find("size")
    size = {} if size_of is None else _texts(size_of)
    return FoundImage(
        path=image,
        size_px=stated_size_px(size.get("height"), size.get("width")),
        file=path,
        objects=[_read_object(item, element) for item, element in enumerate(annotation.findall("object"), start=1)],
    )


def _texts(element: Element) -> dict[str, str]:
    """Return the texts of the inner elements by tag; of the first with a tag. Paths for `find` take twice as long."""
    return {inner.tag: inner.text or "" for inner in reversed(list(element))}


def _read_object(item: int, element: Element) -> FoundObject:
    texts = _texts(element)
    name, difficult = texts.get("name", "").strip(), False
    try:
        difficult = any(flag_of(text, "<difficult>") for text in _difficult_texts(element, texts))
        bndbox = element.find("bndbox")
        if bndbox is None:
            raise DataError("has no <bndbox>")
        edges = _texts(bndbox)
        for tag in BOX_KEYS["xyxy"]:
            if tag not in edges:
                raise DataError(f"has a <bndbox> without <{tag}>")
        return FoundObject(name, [number_of(edges[tag], tag) for tag in BOX_KEYS["xyxy"]], item, difficult)
    except DataError as error:
        return FoundObject(name, str(error), item, difficult)


def _difficult_texts(element: Element, texts: Mapping[str, str]) -> list[str]:
    """Collect the flags for a difficult object. CVAT writes them among user-defined attributes."""
    flags = [texts[tag] for tag in ("difficult", "isdifficult") if texts.get(tag, "0") != "0"]
    if "attributes" in texts:
        attributes = map(_texts, element.iterfind("attributes/attribute"))
        flags += [one.get("value", "") for one in attributes if one.get("name", "").strip().lower() == "difficult"]
    return flags


def _find_image(place: Place, name: str, stated: str) -> Path:
    image_dir = place.images
    path = image_with_suffix(image_dir / name)
    if path is None and stated:
        # Other tools write whole paths here, from other machines and systems. An image in a subfolder keeps that
        # folder, since the same name in another folder is another image.
        root = image_dir.parent
        found = [find_image((image_dir / name).parent, stated, root=root)]
        if "/" in stated:
            found.append(find_image(image_dir, stated, root=root, keep=2))
        path = next(iter(inside_first(filter(None, found), root)), None)
    path = path or place.image_elsewhere(name)
    if path is None:
        text = f", nor the {stated!r} that its annotation states" if stated else ""
        raise FileError(
            f"{image_dir / name}.jpg", f"the image is missing; there is none with another suffix{text}", kind="missing"
        )
    refuse_unreadable(path)
    return path
