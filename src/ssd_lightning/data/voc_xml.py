"""One XML file of the Pascal VOC format: its objects and their problems."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError  # types only: defusedxml parses

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse as parse_defused

from ssd_lightning.data.annotation import (
    Box,
    Objects,
    checked_box,
    flag_of,
    label_of,
    number_classes,
    number_of,
    refuse_fractions,
)
from ssd_lightning.data.dataset import ImageAnnotation
from ssd_lightning.data.images import image_size_px
from ssd_lightning.data.special_files import refuse_special_file
from ssd_lightning.data.splits import find_image, image_with_suffix, inside_first, portable_path, refuse_unreadable
from ssd_lightning.errors import DataError


def read_voc_annotation(
    path: Path,
    class_names: Sequence[str],
    *,
    image_dir: Path,
    image_id: str,
    name: str | None = None,
    keep_difficult: bool = True,
    xml_offset: int = 1,
) -> tuple[ImageAnnotation, list[str]]:
    """Read one XML file. The image is opened only if the XML has no size.

    Args:
        path: the XML file.
        class_names: names of the classes 1..C.
        image_dir: folder of the images. The image has the same name as the XML file, as in VOC's own tools;
            otherwise the name in `filename`.
        image_id: id of the record.
        name: path of the image below its folder, without suffix; by default the XML file's name.
        keep_difficult: False skips objects flagged difficult.
        xml_offset: subtracted from all four coordinates.

    Returns:
        The record of all valid objects, and a sentence for each invalid object, which is skipped.

    Raises:
        DataError: the file is missing or is not an annotation, or its image is missing.
    """
    annotation = parse_annotation(path)
    image_path = _find_image(image_dir, name or path.stem, annotation.findtext("filename"))
    size_px = _stated_size_px(annotation) or image_size_px(image_path)
    labels = number_classes(class_names)
    objects = Objects(keep_difficult=keep_difficult)
    for number, element in enumerate(annotation.iterfind("object"), start=1):
        name = object_name(element)
        with objects.judging(f"{path}: object {number} '{name}'"):
            difficult = any(flag_of(text, "<difficult>") for text in _difficult_texts(element))
            if objects.wants(difficult=difficult):
                label = label_of(name, labels)
                objects.add(label=label, box_xyxy_px=_read_box(element, size_px, xml_offset), difficult=difficult)
    return objects.record(image_id=image_id, image_path=image_path, size_px=size_px), objects.problems


def parse_annotation(path: Path) -> Element:
    """Parse the `<annotation>` of an XML file. Entities are rejected, since they can expand without limit.

    Raises:
        DataError: the file is missing, is not XML, has entities, or is not an annotation.
    """
    refuse_special_file(path)
    try:
        root = parse_defused(path).getroot()
    except FileNotFoundError:
        raise DataError(f"{path}: the annotation is missing") from None
    except OSError as error:
        raise DataError(f"{path}: cannot read the annotation: {error.strerror}") from error
    except DefusedXmlException as error:
        raise DataError(f"{path}: the XML declares entities, which is refused: {error}") from error
    except (ParseError, ValueError, LookupError) as error:  # ValueError, LookupError: wrong or unknown encodings
        raise DataError(f"{path}: this is not well-formed XML: {error}") from error
    if root is None or root.tag.lower() != "annotation":
        raise DataError(f"{path}: the XML begins with <{getattr(root, 'tag', '')}>, not with <annotation>")
    for element in root.iter():  # tools differ in case: <Difficult>, <xMin>
        element.tag = element.tag.lower()
    return root


def object_name(element: Element) -> str:
    """Return the class name of an `<object>` element, empty if missing."""
    return (element.findtext("name") or "").strip()


def _difficult_texts(element: Element) -> list[str]:
    """Collect the flags for a difficult object. CVAT writes them among user-defined attributes."""
    texts = [element.findtext(tag, "") for tag in ("difficult", "isdifficult")]
    attributes = element.iterfind("attributes/attribute")
    named = (one for one in attributes if (one.findtext("name") or "").strip().lower() == "difficult")
    return texts + [one.findtext("value", "") for one in named]


def _find_image(image_dir: Path, name: str, stated_filename: str | None) -> Path:
    stated_filename = portable_path((stated_filename or "").strip())
    path = image_with_suffix((image_dir / name).parent, Path(name).name)
    if path is None and stated_filename:
        # Other tools write whole paths here, from other machines and systems. An image in a subfolder keeps that
        # folder, since the same name in another folder is another image.
        root = image_dir.parent
        found = [find_image((image_dir / name).parent, stated_filename, root=root)]
        if "/" in stated_filename:
            found.append(find_image(image_dir, stated_filename, root=root, keep=2))
        path = next(iter(inside_first(filter(None, found), root)), None)
    if path is None:
        stated = f", nor the {stated_filename!r} that its annotation states" if stated_filename else ""
        raise DataError(f"{image_dir / name}.jpg: the image is missing; there is none with another suffix{stated}")
    refuse_unreadable(path)
    return path


def _stated_size_px(annotation: Element) -> tuple[int, int] | None:
    try:
        height, width = (int(float(annotation.findtext(f"size/{side}") or 0)) for side in ("height", "width"))
    except (ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _read_box(element: Element, size_px: tuple[int, int], xml_offset: int) -> Box:
    """Read `<bndbox>` as 0-based (x1, y1, x2, y2), clipped to the image."""
    bndbox = element.find("bndbox")
    if bndbox is None:
        raise DataError("has no <bndbox>")
    corners = [_read_coordinate(bndbox, tag) for tag in ("xmin", "ymin", "xmax", "ymax")]
    refuse_fractions(corners, size_px)
    return checked_box(corners, size_px, offset=xml_offset)


def _read_coordinate(bndbox: Element, tag: str) -> float:
    text = bndbox.findtext(tag)
    if text is None:
        raise DataError(f"has a <bndbox> without <{tag}>")
    return number_of(text, tag)
