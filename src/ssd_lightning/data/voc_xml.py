"""One XML file of the Pascal VOC format: its objects, and what is wrong with them."""

import difflib
import math
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from xml.etree.ElementTree import Element, ParseError  # types only: defusedxml parses

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse as parse_defused

from ssd_lightning.data.dataset import Record
from ssd_lightning.data.images import IMAGE_SUFFIXES, image_size_px
from ssd_lightning.errors import DataError

RANGE_TOLERANCE_PX = 1
"""Annotation tools round: a box up to this far outside the picture is clipped, beyond it is an error."""


def read_voc_annotation(
    path: Path,
    class_names: Sequence[str],
    *,
    image_dir: Path,
    image_id: str,
    keep_difficult: bool = True,
    xml_offset: int = 1,
) -> tuple[Record, list[str]]:
    """Read one XML file; no picture is opened unless the XML leaves its size out.

    Args:
        path: the XML file.
        class_names: names of the classes 1..C.
        image_dir: folder of the pictures. The picture is the one named like the XML file, as VOC's own tools
            have it; where there is none, the one that its `filename` states.
        image_id: name of the record.
        keep_difficult: False leaves out objects flagged difficult.
        xml_offset: subtracted from all four coordinates.

    Returns:
        The record of all sound objects, and a sentence for each unsound one, which is left out.

    Raises:
        DataError: the file is missing or no annotation, or its picture is missing.
    """
    annotation = parse_annotation(path)
    image_path = _find_image(image_dir, path.stem, annotation.findtext("filename"))
    size_px = _stated_size_px(annotation) or image_size_px(image_path)
    boxes: list[tuple[float, ...]] = []
    labels: list[int] = []
    difficult: list[bool] = []
    problems: list[str] = []
    for number, element in enumerate(annotation.iterfind("object"), start=1):
        name = object_name(element)
        try:
            is_difficult = _read_flag(element, "difficult")
            if is_difficult and not keep_difficult:
                continue
            label = _label(name, class_names)
            box = _read_box(element, size_px, xml_offset)
        except DataError as error:
            problems.append(f"{path}: object {number} '{name}' {error}")
            continue
        boxes.append(box)
        labels.append(label)
        difficult.append(is_difficult)
    record = Record(
        image_id=image_id,
        image_path=image_path,
        size_px=size_px,
        boxes_xyxy_px=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        labels=np.array(labels, dtype=np.int64),
        difficult=np.array(difficult, dtype=bool),
    )
    return record, problems


def parse_annotation(path: Path) -> Element:
    """Parse an XML file into its `<annotation>`; entities are refused, since they can expand without end.

    Raises:
        DataError: the file is missing, no XML, with entities, or no annotation.
    """
    try:
        root = parse_defused(path).getroot()
    except FileNotFoundError:
        raise DataError(f"{path}: the annotation is missing") from None
    except OSError as error:
        raise DataError(f"{path}: cannot read the annotation: {error.strerror}") from error
    except DefusedXmlException as error:
        raise DataError(f"{path}: the XML declares entities, which is refused: {error}") from error
    except (ParseError, ValueError, LookupError) as error:  # the last two: encodings that do not exist or fit
        raise DataError(f"{path}: this is not well-formed XML: {error}") from error
    if root is None or root.tag != "annotation":
        raise DataError(f"{path}: the XML begins with <{getattr(root, 'tag', '')}>, not with <annotation>")
    return root


def object_name(element: Element) -> str:
    """Give the class name of an `<object>` element, empty where it has none."""
    return (element.findtext("name") or "").strip()


def _find_image(image_dir: Path, name: str, stated_filename: str | None) -> Path:
    for suffix in (*IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES)):
        path = image_dir / f"{name}{suffix}"
        if path.is_file():
            return path
    if stated_filename:
        # Other tools write whole paths here, of other machines and systems; only the last part can help.
        path = image_dir / PureWindowsPath(stated_filename.strip()).name
        if path.is_file():
            return path
    stated = f", nor the {stated_filename!r} that its annotation states" if stated_filename else ""
    raise DataError(f"{image_dir / name}.jpg: the picture is missing; there is none with another suffix{stated}")


def _stated_size_px(annotation: Element) -> tuple[int, int] | None:
    try:
        height, width = (int(float(annotation.findtext(f"size/{side}") or 0)) for side in ("height", "width"))
    except (ValueError, OverflowError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _read_flag(element: Element, tag: str) -> bool:
    text = (element.findtext(tag) or "0").strip()
    if text not in ("0", "1"):
        raise DataError(f"has <{tag}> {text!r}, which is neither 0 nor 1")
    return text == "1"


def _label(name: str, class_names: Sequence[str]) -> int:
    if name in class_names:
        return class_names.index(name) + 1
    close = difflib.get_close_matches(name, class_names, n=1)
    nearest = f"; the nearest is '{close[0]}'" if close else f": {', '.join(class_names)}"
    raise DataError(f"is of none of the {len(class_names)} classes{nearest}")


def _read_box(element: Element, size_px: tuple[int, int], xml_offset: int) -> tuple[float, ...]:
    """Read `<bndbox>` as 0-based (x1, y1, x2, y2), clipped to the picture."""
    bndbox = element.find("bndbox")
    if bndbox is None:
        raise DataError("has no <bndbox>")
    xmin, ymin, xmax, ymax = (_read_coordinate(bndbox, tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
    box = []
    for axis, low, high, side_px in (("x", xmin, xmax, size_px[1]), ("y", ymin, ymax, size_px[0])):
        if low > high:
            raise DataError(f"is inverted: {axis}min {low:g} is greater than {axis}max {high:g}")
        if low < xml_offset - RANGE_TOLERANCE_PX:
            raise DataError(f"reaches out of the picture: {axis}min is {low:g}")
        if high > side_px + RANGE_TOLERANCE_PX:
            raise DataError(f"reaches out of the picture: {axis}max is {high:g} of {side_px} px")
        start = min(max(low - xml_offset, 0.0), side_px)
        end = min(max(high - xml_offset, 0.0), side_px)
        if start >= end:
            raise DataError(f"has no area: {axis}min is {low:g} and {axis}max {high:g} of {side_px} px")
        box.append((start, end))
    (x1, x2), (y1, y2) = box
    return x1, y1, x2, y2


def _read_coordinate(bndbox: Element, tag: str) -> float:
    text = bndbox.findtext(tag)
    if text is None:
        raise DataError(f"has a <bndbox> without <{tag}>")
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"has {tag} {text!r}, which is no number") from None
    if not math.isfinite(value):
        raise DataError(f"has {tag} {text!r}, which is not finite")
    return value
