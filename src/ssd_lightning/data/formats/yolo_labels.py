"""The label files of YOLO: boxes, outlines, and boxes with keypoints."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ssd_lightning.data.annotation_checks import LARGEST_FRACTION, BoxNotation, box_numbers, number_of, whole_number
from ssd_lightning.data.formats.builder import TableBuilder
from ssd_lightning.data.formats.files import FileError, in_threads, read_lines
from ssd_lightning.data.formats.found import FoundImage, FoundObject, read_object
from ssd_lightning.data.formats.shapes import bounds
from ssd_lightning.data.formats.yolo_settings import Settings
from ssd_lightning.errors import DataError


class ListedImage(NamedTuple):
    """An image of a split."""

    name: str
    """Path below the folder that all images share."""
    path: Path
    label: Path
    """Its label file, which may be missing."""
    stated: str
    """Source for error messages: the path, or file, line and text of a list."""


class _KeypointsError(Exception):
    """A line can only be a box with keypoints, though the settings state none."""


def label_folder(image_folder: Path) -> Path:
    """Return the folder of labels of a folder of images: the last `images` becomes `labels`, else it is the same.

    Instead of `Images`, with another case, it is `Labels` or `labels` if there is one.
    """
    parts = image_folder.parts
    last = max((number for number, part in enumerate(parts) if part == "images"), default=-1)
    if last >= 0:
        return Path(*parts[:last], "labels", *parts[last + 1 :])
    last = max((number for number, part in enumerate(parts) if part.lower() == "images"), default=-1)
    places = (Path(*parts[:last], labels) for labels in ("Labels", "labels", "LABELS") if last >= 0)
    place = next(filter(Path.is_dir, places), None)
    return image_folder if place is None else Path(place, *parts[last + 1 :])


def label_path(image_path: Path) -> Path:
    """Return the label file of an image: in `label_folder`, or next to the image if it is only there."""
    name = f"{image_path.stem}.txt"
    usual, beside = label_folder(image_path.parent) / name, image_path.parent / name
    return beside if not os.path.isfile(usual) and os.path.isfile(beside) else usual


def read_labels(settings: Settings, images: Sequence[ListedImage], names: Mapping[int, str]) -> TableBuilder:
    """Read the labels of images. `names` has the name of each class number."""
    try:
        return _read_all(settings, images, names, has_keypoints=settings.get("kpt_shape") is not None)
    except _KeypointsError as line:
        builder = _read_all(settings, images, names, has_keypoints=True)
        text = "has a box with keypoints or scores, so all longer lines are read like this; state kpt_shape in"
        builder.notes.append(f"{line} {text} {settings.path}")
        return builder


def _read_all(
    settings: Settings, images: Sequence[ListedImage], names: Mapping[int, str], *, has_keypoints: bool
) -> TableBuilder:
    builder = TableBuilder(
        class_names=list(dict.fromkeys(names.values())),
        is_listed=True,
        is_numbered=not names,
        item_format="line {item} '{name}'",
        notation=BoxNotation(box_format="cxcywh", unit="fractions"),
    )
    lengths = set()
    repeated: list[str] = []
    are_boxes, no_outline = True, ""
    for image, lines in in_threads(partial(_read_image, names=names, has_keypoints=has_keypoints), images):
        image_id = builder.new_id(image.name)
        if isinstance(lines, FileError):
            builder.add_image(image_id, lines)
            continue
        distinct: dict[tuple[str, ...], FoundObject] = {}
        for fields, found in lines:
            if distinct.setdefault(fields, found) is not found:
                repeated.append(f"{image.label}: line {found.item}")
        builder.add_image(image_id, FoundImage(image.path, None, image.label, list(distinct.values())))
        for fields, found in distinct.items():
            if found.is_outline:
                lengths.add(len(fields))
                are_boxes = are_boxes and len(fields) <= 9 and _is_box_inside(fields[1:5])
                if are_boxes and not no_outline and not _is_near(fields[1:]):
                    no_outline = f"{image.label}: line {found.item} '{found.name}' of {len(fields)} values"
    if are_boxes and no_outline and len(lengths) == 1:
        raise _KeypointsError(no_outline)
    if repeated:
        text = "skipped as repetitions of another line of the same label file"
        builder.notes.append(f"{text}: {len(repeated)}; the first: {repeated[0]}")
    if builder.num_outlines > 1 and len(lengths) == 1 and (max(lengths) > 9 or are_boxes):  # 9: a rotated box
        text = f"all lines longer than a box have {max(lengths)} values and are read as outlines"
        builder.notes.append(f"{settings.path}: {text}; if they are boxes with keypoints or scores, state kpt_shape")
    return builder


def _is_box_inside(values: Sequence[str]) -> bool:
    cx, cy, width, height = map(float, values)
    return all(0 < side <= 1.02 - 2 * abs(centre - 0.5) for centre, side in ((cx, width), (cy, height)))


def _is_near(values: Sequence[str]) -> bool:
    """Tell whether numbers may be points that are at most half an image outside of it."""
    return all(1 - LARGEST_FRACTION <= float(text) <= LARGEST_FRACTION for text in values)


def _read_image(
    image: ListedImage, names: Mapping[int, str], has_keypoints: bool
) -> list[tuple[tuple[str, ...], FoundObject]]:
    if not os.path.isfile(image.path):
        raise FileError(image.stated, "the image is missing", kind="missing")
    try:
        texts = read_lines(image.label, "labels")
    except FileError as error:
        if error.kind == "missing":
            return []
        raise
    lines = []
    for number, text in enumerate(texts, start=1):
        if fields := tuple(text.split()):
            code = whole_number(fields[0])
            name = fields[0] if code is None else names.get(code, str(code))
            try:
                lines.append((fields, read_object(name, number, partial(_read_box, fields[1:], has_keypoints))))
            except _KeypointsError:
                raise _KeypointsError(f"{image.label}: line {number} '{name}' of {len(fields)} values") from None
    return lines


def _read_box(values: Sequence[str], has_keypoints: bool) -> tuple[list[float], bool]:
    """Return cx, cy, w, h, and whether it is the box of an outline."""
    if len(values) == 4 or (has_keypoints and len(values) > 4):
        return box_numbers(values[:4], "cxcywh"), False
    if _are_keypoints(values):
        raise _KeypointsError
    if len(values) < 6 or len(values) % 2:
        raise DataError(
            f"has {len(values) + 1} values, not the 5 of a box (class cx cy w h) or the points of an outline; scores "
            "are not read, and keypoints need kpt_shape in data.yaml"
        )
    numbers = [number_of(text, "xy"[index % 2]) for index, text in enumerate(values)]
    left, top, right, bottom = bounds(numbers[0::2], numbers[1::2])
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], True


def _are_keypoints(values: Sequence[str]) -> bool:
    """Tell whether values can only be a box with keypoints.

    Keypoints are x, y or x, y, visibility. A visibility of 2 is no fraction, and one that is not visible is at 0, 0;
    an outline is at one place but once. An outline has an even number of values.
    """
    try:
        numbers = [float(text) for text in values[4:]]
    except ValueError:
        return False
    visibility = set(numbers[2::3]) if len(numbers) % 3 == 0 else set()
    if visibility and visibility <= {0, 1, 2} and (len(values) % 2 or 2 in visibility):
        return True
    return len(values) % 2 == 0 and list(zip(numbers[0::2], numbers[1::2], strict=True)).count((0, 0)) > 1
