"""The formats of the VGG Image Annotator (VIA), versions 1 and 2: a JSON or CSV file of all images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import degrees
from pathlib import Path
from typing import Any, NamedTuple

from ssd_lightning.data.annotation_checks import number_of, numbers_of
from ssd_lightning.data.formats.builder import TableBuilder
from ssd_lightning.data.formats.csv_columns import open_rows
from ssd_lightning.data.formats.files import read_json
from ssd_lightning.data.formats.found import ONLY_CLASS, FoundObject, read_object
from ssd_lightning.data.formats.image_files import ImageFinder
from ssd_lightning.data.formats.shapes import bounds, ellipse_bounds, points_of
from ssd_lightning.data.formats.single_file import SingleFileFormat
from ssd_lightning.data.split_annotations import Annotations
from ssd_lightning.errors import DataError

CLASS_ATTRIBUTES = ("class", "label", "name", "category", "type", "object", "class_name")
"""What the attribute with the class is called, in any case."""


class _Region(NamedTuple):
    shape: Mapping[str, Any]
    attributes: Mapping[str, Any]

    @classmethod
    def of(cls, shape: object, attributes: object) -> "_Region":
        """Keep mappings alone: an object without a shape or class is reported."""
        return cls(*(value if isinstance(value, dict) else {} for value in (shape, attributes)))


@dataclass(frozen=True, kw_only=True)
class VIA(SingleFileFormat):
    """Reads VIA's annotations, exported as JSON or CSV, or a saved project.

    A split is the name in `NAME.json`, `NAME/via_region_data.json` or another entry of `locations`, or the path of the
    file below the root. The class is the value of the attribute that is called as in `CLASS_ATTRIBUTES`, or of the only
    one. A region with the attribute `difficult` is difficult. Polygons, circles and ellipses are read as their bounding
    boxes.
    """

    choice = "via_folder"
    locations = tuple(
        pattern + suffix
        for suffix in (".json", ".csv")
        for pattern in ("{split}", "{split}/via_region_data", "{split}/via_project", "annotations/{split}")
    )

    def read(self, root: Path, split: str) -> Annotations:
        """Read a split. Raises `DataError` if there is no such split, or it cannot be read."""
        path = self.path(root, split)
        images = _from_csv(path) if path.suffix == ".csv" else _from_json(path)
        attribute = _class_attribute(path, [region for regions in images.values() for region in regions])
        builder = TableBuilder(item_format="region {item} '{name}' of {image}")
        if attribute is None and any(images.values()):
            builder.notes.append(f"{path}: no region has an attribute; all objects are '{ONLY_CLASS}'")
        finder = ImageFinder(self.image_dir(root, path, list(images)[:10]), images, root=root, stated_by=path)
        for name, regions in images.items():
            objects = [_read_region(item, region, attribute) for item, region in enumerate(regions, start=1)]
            builder.add_named_image(name, partial(finder, name), size_px=None, file=path, objects=objects)
        builder.sources += [str(path), *finder.folders]
        return builder.finish(root)


def _from_json(path: Path) -> dict[str, list[_Region]]:
    content = read_json(path)
    content = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    images: dict[str, list[_Region]] = {}
    for key, entry in content.items() if isinstance(content, dict) else ():
        regions = entry.get("regions") if isinstance(entry, dict) and isinstance(entry.get("filename"), str) else None
        regions = list(regions.values()) if isinstance(regions, dict) else regions  # VIA 1 numbers them
        if not isinstance(regions, list) or not all(isinstance(region, dict) for region in regions):
            raise DataError(f"{path}: the entry {key!r} has no 'filename' or no 'regions'")
        found = [_Region.of(*map(region.get, ("shape_attributes", "region_attributes"))) for region in regions]
        images.setdefault(entry["filename"], []).extend(found)
    if not images:
        raise DataError(f"{path}: the JSON has no images as VIA writes them")
    return images


def _from_csv(path: Path) -> dict[str, list[_Region]]:
    images: dict[str, list[_Region]] = {}
    with open_rows(path) as rows:
        header = [name.strip("# ").lower() for name in next(rows, [])]
        names = ("filename", "region_shape_attributes", "region_attributes")
        if missing := [name for name in names if name not in header]:
            raise DataError(f"{path}: there is no column '{missing[0]}', as VIA writes it")
        for row in rows:
            try:
                name, shape, attributes = (row[header.index(name)] for name in names)
                shape, attributes = json.loads(shape), json.loads(attributes)
            except (IndexError, ValueError) as error:
                raise DataError(f"{path}: line {rows.line_num} is not one of VIA: {error}") from error
            images.setdefault(name, []).extend([_Region.of(shape, attributes)] if shape else [])
    return images


def _class_attribute(path: Path, regions: Sequence[_Region]) -> str | None:
    given = dict.fromkeys(name for region in regions for name in region.attributes)
    names = [name for known in CLASS_ATTRIBUTES for name in given if name.lower() == known]
    others = [name for name in given if name.lower() != "difficult"]
    if names or len(others) < 2:
        return next(iter(names or others), None)
    known = ", ".join(CLASS_ATTRIBUTES)
    raise DataError(f"{path}: the regions have the attributes {', '.join(others)}; none is called {known}; rename one")


def _read_region(item: int, region: _Region, attribute: str | None) -> FoundObject:
    shape, attributes = region
    value = ONLY_CLASS if attribute is None else attributes.get(attribute, "")
    chosen = [name for name, is_chosen in value.items() if is_chosen] if isinstance(value, dict) else [str(value)]
    if len(chosen) > 1:
        return FoundObject(chosen[0].strip(), f"has the classes {', '.join(chosen)}, not one", item)
    name = chosen[0].strip() if chosen else ""
    return read_object(name, item, partial(_read_box, shape), flags=[("difficult", attributes.get("difficult"))])


def _read_box(shape: Mapping[str, Any]) -> tuple[list[float], bool]:
    kind, numbers = shape.get("name"), partial(numbers_of, shape)
    if kind == "rect":
        x, y, width, height = numbers("x", "y", "width", "height")
        return [x, y, x + width, y + height], False
    if kind in ("polygon", "polyline"):
        xs, ys = (shape.get(key) for key in ("all_points_x", "all_points_y"))
        if not (isinstance(xs, list) and isinstance(ys, list) and len(xs) == len(ys)):
            raise DataError(f"has the points {xs!r:.80} and {ys!r:.80}")
        return bounds(*points_of([*zip(xs, ys, strict=True)])), True
    if kind in ("circle", "ellipse"):
        cx, cy, rx, ry = numbers("cx", "cy", *(("r", "r") if kind == "circle" else ("rx", "ry")))
        return ellipse_bounds((cx, cy), (rx, ry), degrees(number_of(shape.get("theta") or 0, "theta"))), True
    raise DataError(f"is a shape {kind!r}, which has no box")
