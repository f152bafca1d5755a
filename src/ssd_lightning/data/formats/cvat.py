"""The format "CVAT for images 1.1": one XML file of all images."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from xml.etree.ElementTree import Element

from ssd_lightning.data.annotation_checks import number_of, numbers_of, stated_size_px
from ssd_lightning.data.formats.builder import TableBuilder
from ssd_lightning.data.formats.files import FileError, MissingSplitError, read_xml
from ssd_lightning.data.formats.found import FoundObject, read_object
from ssd_lightning.data.formats.image_files import ImageDir, ImageFinder, folder_with
from ssd_lightning.data.formats.shapes import bounds, ellipse_bounds, points_of, rotated_bounds
from ssd_lightning.data.formats.single_file import SingleFileFormat
from ssd_lightning.data.split_annotations import Annotations
from ssd_lightning.errors import DataError

POINTS = ("polygon", "polyline", "points")
SHAPES = ("box", "ellipse", "mask", "cuboid", *POINTS)


@dataclass(frozen=True, kw_only=True)
class CVAT(SingleFileFormat):
    """Reads CVAT's XML for images.

    A split is a subset in `annotations.xml`; or a folder with an `annotations.xml` of its own, `.` for the root itself;
    or the path of an XML file below the root. Polygons, ellipses, masks and rotated boxes are read as their bounding
    boxes. An object with the attribute `difficult` is difficult. Tags of whole images and skeletons are not read.
    """

    choice = "cvat_folder"
    locations = ("{split}/annotations.xml", "annotations/{split}.xml", "{split}.xml")

    def read(self, root: Path, split: str) -> Annotations:
        """Read a split. Raises `DataError` if there is no such split, or it cannot be read."""
        path, content, listed = self._find_split(root, split)
        names = _class_names(content)
        builder = TableBuilder(
            class_names=names, is_listed=bool(names), item_format="object {item} '{name}' of {image}"
        )
        for subset, group in groupby(sorted(listed, key=_subset), key=_subset):
            images = list(group)
            finder = self._finder(root, path, subset, [image.get("name", "") for image in images])
            for image in images:
                _add_image(builder, image, finder, path)
            builder.sources += finder.folders
        builder.sources.append(str(path))
        return builder.finish(root)

    def files(self, root: Path, split: str) -> Iterable[str]:
        """List the images of a split, below the XML file. Raises `DataError` if there is no such split."""
        path, _, images = self._find_split(root, split)
        return (f"{os.path.realpath(path)}/{_subset(image)}/{image.get('name')}" for image in images)

    def _find_split(self, root: Path, split: str) -> tuple[Path, Element, list[Element]]:
        whole = root / "annotations.xml"
        try:
            content = _parse(path := self.path(root, split))
            return path, content, content.findall("image")
        except MissingSplitError:
            if not os.path.isfile(whole):
                raise
        content = _parse(whole)
        images = [image for image in content.iterfind("image") if _subset(image).lower() == split.lower()]
        if not images:
            raise MissingSplitError(whole, split, {_subset(image) or "." for image in content.iterfind("image")})
        return whole, content, images

    def _finder(self, root: Path, path: Path, subset: str, names: Sequence[str]) -> ImageFinder:
        of_subset = [path.parent / "images" / subset, path.parent / subset] if subset and self.images is None else []
        folder = folder_with(of_subset, names[:10], root=root)
        image_dir = ImageDir(folder) if folder else self.image_dir(root, path, names[:10])
        return ImageFinder(image_dir, names, root=root, stated_by=path)


def _subset(image: Element) -> str:
    return image.get("subset", "")


def _parse(path: Path) -> Element:
    content = read_xml(path)
    if content.tag != "annotations":
        raise DataError(f"{path}: the XML begins with <{content.tag}>, not with <annotations>")
    if content.find("track") is not None:
        raise DataError(
            f"{path}: this is 'CVAT for video', with tracks instead of images; export the task as 'CVAT for images 1.1'"
        )
    return content


def _class_names(content: Element) -> list[str]:
    """List the labels of the task or project, without those of whole images and those of a skeleton's points."""
    labels = [label for of_task in content.iterfind("meta//labels") for label in of_task.iterfind("label")]
    used = (label for label in labels if label.find("parent") is None and label.findtext("type") != "tag")
    return list(dict.fromkeys(name for label in used if (name := (label.findtext("name") or "").strip())))


def _add_image(builder: TableBuilder, image: Element, finder: ImageFinder, path: Path) -> None:
    name = image.get("name", "")

    def find() -> str:
        if not name:
            raise FileError(path, f"image {image.get('id')} has no name")
        return finder(name)

    size_px = stated_size_px(image.get("height"), image.get("width"))
    elements = [element for element in image if element.tag != "tag"]
    objects = [_read_object(item, element) for item, element in enumerate(elements, start=1)]
    builder.add_named_image(name or f"image {image.get('id')}", find, size_px=size_px, file=path, objects=objects)


def _read_object(item: int, element: Element) -> FoundObject:
    attributes = element.iterfind("attribute")
    flags = (("difficult", one.text) for one in attributes if one.get("name", "").strip().lower() == "difficult")
    return read_object(element.get("label", "").strip(), item, partial(_read_box, element), flags=flags)


def _read_box(element: Element) -> tuple[list[float], bool]:
    degrees = number_of(element.get("rotation", 0), "rotation") % 360
    return _read_shape(element, degrees), element.tag != "box" or degrees != 0


def _read_shape(element: Element, degrees: float) -> list[float]:
    numbers = partial(numbers_of, element.attrib)
    if element.tag not in SHAPES:
        raise DataError(f"is a <{element.tag}>, which is not read")
    if element.tag == "ellipse":
        cx, cy, rx, ry = numbers("cx", "cy", "rx", "ry")
        return ellipse_bounds((cx, cy), (rx, ry), degrees)
    if element.tag == "mask":
        left, top, width, height = numbers("left", "top", "width", "height")
        return [left, top, left + width, top + height]
    if element.tag in POINTS:
        return bounds(*points_of([point.split(",") for point in element.get("points", "").split(";")]))
    if element.tag == "box":
        box = numbers("xtl", "ytl", "xbr", "ybr")
        pivot = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        return rotated_bounds(box, degrees, pivot) if degrees and box[0] <= box[2] and box[1] <= box[3] else box
    corners = [f"{corner}{face}" for corner in ("tl", "tr", "bl", "br") for face in "12"]
    return bounds(numbers(*(f"x{corner}" for corner in corners)), numbers(*(f"y{corner}" for corner in corners)))
