"""Pascal VOC annotations, listed in `ImageSets/Main`, or in one folder per split with images next to their XML."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

from ssd_lightning.checks import require_number
from ssd_lightning.data.annotation_checks import BOX_KEYS, BoxNotation, numbers_of, stated_size_px
from ssd_lightning.data.formats.builder import TableBuilder
from ssd_lightning.data.formats.files import FileError, folders_in, in_threads, inside_first, read_xml
from ssd_lightning.data.formats.found import FoundImage, FoundObject, read_object
from ssd_lightning.data.formats.image_files import (
    find_image,
    image_with_suffix,
    images_in,
    note_unlabelled,
    portable_path,
)
from ssd_lightning.data.formats.voc_places import Place, read_split
from ssd_lightning.data.split_annotations import Annotations
from ssd_lightning.data.split_names import note_merged
from ssd_lightning.errors import DataError


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

    Raises:
        ConfigurationError: `xml_offset` is neither 0 nor 1.
    """

    xml_offset: int = 1

    def __post_init__(self) -> None:
        require_number("data.xml_offset", self.xml_offset, 0, 1, whole=True)

    def read(self, root: Path, split: str) -> Annotations:
        """Read a split. Raises `DataError` if there is no such split, or it cannot be read."""
        place, names = read_split(root, split)
        builder = TableBuilder(notation=BoxNotation(first_pixel=self.xml_offset))
        listed, used = images_in(str(place.images)), set()
        for name, found in in_threads(lambda name: _read_image(place, listed, name), names):
            used.add(os.path.normpath(found.file if isinstance(found, FileError) else found.path))
            builder.add_image(name, found)
        builder.sources += map(place.xml_path, names)
        if place.listed_in is None:
            builder.notes += note_merged(place.annotations, names, split=split)
            if not place.shares_images:
                builder.notes += note_unlabelled(place.images, used, names, "XML file", skipped=place.skipped_folders)
            builder.sources += sorted(map(str, {*folders_in(place.annotations), *folders_in(place.images)}))
        else:
            builder.sources += [str(place.listed_in), str(place.images)]
        return builder.finish(root, ids_are_shared=place.listed_in is not None)

    def files(self, root: Path, split: str) -> Iterable[str]:
        """List the XML files of a split. Raises `DataError` if there is no such split."""
        place, names = read_split(root, split)
        return map(place.xml_path, names)


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
    else:
        image = _find_image(place, name, portable_path((annotation.findtext("filename") or "").strip()))
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
    return read_object(texts.get("name", "").strip(), item, partial(_read_box, element), flags=_flags(element, texts))


def _read_box(element: Element) -> tuple[list[float], bool]:
    bndbox = element.find("bndbox")
    if bndbox is None:
        raise DataError("has no <bndbox>")
    edges = _texts(bndbox)
    for tag in BOX_KEYS["xyxy"]:
        if tag not in edges:
            raise DataError(f"has a <bndbox> without <{tag}>")
    return numbers_of(edges, *BOX_KEYS["xyxy"]), False


def _flags(element: Element, texts: Mapping[str, str]) -> list[tuple[str, str]]:
    """Collect the flags for a difficult object. CVAT writes them among user-defined attributes."""
    flags = [(tag, texts[tag]) for tag in ("difficult", "isdifficult") if texts.get(tag, "0") != "0"]
    if "attributes" in texts:
        attributes = map(_texts, element.iterfind("attributes/attribute"))
        named = ((one.get("name", "").strip().lower(), one.get("value", "")) for one in attributes)
        flags += [flag for flag in named if flag[0] == "difficult"]
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
    return path
