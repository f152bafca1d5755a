"""The format "CVAT for images 1.1": one XML file of all images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from xml.etree.ElementTree import Element

from ssd_lightning.data.annotation_checks import flag_of, number_of, stated_size_px
from ssd_lightning.data.annotations import Annotations
from ssd_lightning.data.formats.builder import TableBuilder
from ssd_lightning.data.formats.files import (
    FileError,
    ImageFinder,
    MissingSplitError,
    find_file,
    find_image_dir,
    folder_with,
    read_xml,
    unique_image_id,
)
from ssd_lightning.data.formats.shapes import OutlineCount, bounds, ellipse_bounds, rotated_bounds
from ssd_lightning.data.special_files import is_file
from ssd_lightning.errors import DataError

ANNOTATION_FILES = ("{split}/annotations.xml", "annotations/{split}.xml", "{split}.xml")
POINTS = ("polygon", "polyline", "points")
SHAPES = ("box", "ellipse", "mask", "cuboid", *POINTS)


@dataclass(frozen=True, kw_only=True)
class CVAT:
    """Reads CVAT's XML for images.

    A split is a subset in `annotations.xml`; or a folder with an `annotations.xml` of its own, `.` for the root itself;
    or the path of an XML file below the root. Polygons, ellipses, masks and rotated boxes are read as their bounding
    boxes. An object with the attribute `difficult` is difficult. Tags of whole images and skeletons are not read.

    Args:
        images: folder of the images below the root; None searches the usual folders.
    """

    images: str | None = None

    def read(self, root: Path, split: str) -> Annotations:
        """Read a split.

        Raises:
            DataError: there is no such split, or it cannot be read.
        """
        path, content, listed = _find_split(root, split)
        names = _class_names(content)
        builder = TableBuilder(
            class_names=names, is_listed=bool(names), item_format="object {item} '{name}' of {image}"
        )
        outlines = OutlineCount()
        seen: set[str] = set()
        for subset, group in groupby(sorted(listed, key=_subset), key=_subset):
            images = list(group)
            finder = self._finder(root, path, subset, [image.get("name", "") for image in images])
            for image in images:
                _add_image(builder, outlines, image, finder, path, seen)
            builder.sources += finder.folders
        builder.notes += outlines.notes()
        builder.sources.append(str(path))
        return builder.finish(roots=[root])

    def files(self, root: Path, split: str) -> Iterable[str]:
        """List the images of a split, below the XML file. Raises `DataError` if there is no such split."""
        path, _, images = _find_split(root, split)
        return (f"{path}/{_subset(image)}/{image.get('name')}" for image in images)

    def _finder(self, root: Path, path: Path, subset: str, names: Sequence[str]) -> ImageFinder:
        of_subset = [path.parent / "images" / subset, path.parent / subset] if subset and self.images is None else []
        folder = folder_with(of_subset, names[:10], root=root)
        folder = folder or find_image_dir(root, path, self.images, samples=names[:10])
        return ImageFinder(folder, names, root=root, stated_by=path)


def _subset(image: Element) -> str:
    return image.get("subset", "")


def _find_split(root: Path, split: str) -> tuple[Path, Element, list[Element]]:
    """Return the XML file of a split, its content, and the images of the split."""
    whole = root / "annotations.xml"
    try:
        path = find_file(root, split, ANNOTATION_FILES, ".xml")
    except MissingSplitError:
        if not is_file(whole):
            raise
    else:
        content = _parse(path)
        return path, content, content.findall("image")
    content = _parse(whole)
    images = [image for image in content.iterfind("image") if _subset(image).lower() == split.lower()]
    if not images:
        raise MissingSplitError(whole, split, {_subset(image) or "." for image in content.iterfind("image")})
    return whole, content, images


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


def _add_image(
    builder: TableBuilder, outlines: OutlineCount, image: Element, finder: ImageFinder, path: Path, seen: set[str]
) -> None:
    name = image.get("name", "")
    image_id = unique_image_id(name or f"image {image.get('id')}", seen)
    try:
        if not name:
            raise FileError(path, f"image {image.get('id')} has no name", kind="annotation")
        found = finder(name)
    except FileError as error:
        builder.fail_image(error, image_id=image_id)
        return
    size_px = stated_size_px(image.get("height"), image.get("width"))
    index = builder.add_image(image_id=image_id, path=found, size_px=size_px, file=path)
    for item, element in enumerate((element for element in image if element.tag != "tag"), start=1):
        label, difficult = element.get("label", "").strip(), False
        try:
            difficult = any(
                flag_of(attribute.text or "", "difficult")
                for attribute in element.iterfind("attribute")
                if attribute.get("name", "").strip().lower() == "difficult"
            )
            numbers = _read_shape(element)
        except DataError as error:
            builder.fail_object(index, name=label, item=item, text=str(error), difficult=difficult)
            continue
        builder.add_object(index, name=label, numbers=numbers, item=item, difficult=difficult)
        if element.tag != "box" or number_of(element.get("rotation", 0), "rotation") % 360:
            outlines.add(f"{path}: object {item} of {name}")


def _read_shape(element: Element) -> list[float]:
    """Return the bounding box of a shape."""

    def number(name: str) -> float:
        return number_of(element.get(name), name)

    if element.tag not in SHAPES:
        raise DataError(f"is a <{element.tag}>, which is not read")
    degrees = number_of(element.get("rotation", 0), "rotation")
    if element.tag == "ellipse":
        return ellipse_bounds((number("cx"), number("cy")), (number("rx"), number("ry")), degrees)
    if element.tag == "mask":
        left, top = number("left"), number("top")
        return [left, top, left + number("width"), top + number("height")]
    if element.tag in POINTS:
        points = [point.split(",") for point in element.get("points", "").split(";")]
        if any(len(point) != 2 for point in points):
            raise DataError(f"has the points {element.get('points')!r:.80}, not x,y;x,y")
        return bounds([number_of(x, "x") for x, _ in points], [number_of(y, "y") for _, y in points])
    if element.tag == "box":
        box = [number(name) for name in ("xtl", "ytl", "xbr", "ybr")]
        pivot = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        return rotated_bounds(box, degrees, pivot) if degrees % 360 and box[0] <= box[2] and box[1] <= box[3] else box
    corners = [f"{corner}{face}" for corner in ("tl", "tr", "bl", "br") for face in "12"]
    return bounds([number(f"x{corner}") for corner in corners], [number(f"y{corner}") for corner in corners])
