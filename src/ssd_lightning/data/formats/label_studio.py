"""Label Studio's exports JSON and JSON-MIN: one file with a list of tasks."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from ssd_lightning.data.annotation_checks import number_of, stated_size_px
from ssd_lightning.data.annotations import Annotations
from ssd_lightning.data.formats.builder import TableBuilder
from ssd_lightning.data.formats.files import (
    FileError,
    ImageFinder,
    find_file,
    find_image_dir,
    parts_to_keep,
    portable_path,
    read_json,
    unique_image_id,
)
from ssd_lightning.data.formats.shapes import OutlineCount, bounds, ellipse_bounds, points_of, rotated_bounds
from ssd_lightning.data.image_suffixes import KNOWN_SUFFIXES
from ssd_lightning.errors import DataError

ANNOTATION_FILES = ("{split}.json", "{split}/annotations.json", "{split}/result.json", "annotations/{split}.json")
UPLOAD = re.compile(r"(?<![^/])[0-9a-f]{6,}-(?=[^/]+$)")
"""What Label Studio puts before the name of an uploaded file."""
NO_SHAPES = ("keypointlabels", "keypoint", "choices", "textarea", "rating", "number", "taxonomy", "relation", "labels")
"""Results that are no objects with an area."""


@dataclass(frozen=True, kw_only=True)
class LabelStudio:
    """Reads Label Studio's JSON.

    A split is the name in `NAME.json` or another entry of `ANNOTATION_FILES`, or the path of the JSON file below the
    root. The first annotation of a task that is not cancelled is read. Tasks without one are skipped. Polygons,
    ellipses and rotated rectangles are read as their bounding boxes. Keypoints and predictions are not read.

    Args:
        images: folder of the images below the root; None searches the usual folders.
    """

    images: str | None = None

    def read(self, root: Path, split: str) -> Annotations:
        """Read a split.

        Raises:
            DataError: there is no such split, or it cannot be read.
        """
        path = find_file(root, split, ANNOTATION_FILES, ".json")
        content = read_json(path)
        if not isinstance(content, list) or not all(isinstance(task, dict) for task in content):
            raise DataError(f"{path}: the JSON is a {type(content).__name__}, not a list of tasks")
        builder = TableBuilder(unit="fractions", item_format="object {item} '{name}' of {image}")
        outlines = OutlineCount()
        tasks = _read_tasks(path, content, builder)
        spellings = _spellings(task.image for task in tasks)
        samples = {spelling[task.image]: None for task in tasks[:10] for spelling in spellings}
        image_dir = find_image_dir(root, path, self.images, samples=list(samples))
        finders = [ImageFinder(image_dir, {*names.values()}, root=root, stated_by=path) for names in spellings]
        keep = parts_to_keep(spellings[0])
        seen: set[str] = set()
        for task in tasks:
            image_id = unique_image_id("/".join(task.image.split("/")[-keep.get(task.image, 1) :]), seen)
            try:
                found = _find_image(task.image, spellings, finders)
            except FileError as error:
                builder.fail_image(error, image_id=image_id)
                continue
            image = builder.add_image(image_id=image_id, path=found, size_px=task.size_px, file=path)
            for item, region in enumerate(task.regions, start=1):
                name = ""
                try:
                    name = region.name
                    numbers, is_outline = region.box()
                except DataError as error:
                    builder.fail_object(image, name=name, item=item, text=str(error))
                    continue
                builder.add_object(image, name=name, numbers=numbers, item=item)
                if is_outline:
                    outlines.add(f"{path}: object {item} of {task.image}")
        builder.notes += outlines.notes()
        builder.sources += [str(path), *chain.from_iterable(finder.folders for finder in finders)]
        return builder.finish(roots=[root])

    def files(self, root: Path, split: str) -> Iterable[str]:
        """Return the JSON file of a split. Raises `DataError` if there is no such split."""
        return [str(find_file(root, split, ANNOTATION_FILES, ".json"))]


@dataclass
class _Region:
    """One drawn shape. Label Studio may write shape and label as two results of the same id."""

    kinds: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def is_object(self) -> bool:
        return any(kind not in NO_SHAPES for kind in self.kinds)

    @property
    def size_px(self) -> tuple[int, int] | None:
        return stated_size_px(self.values.get("original_height"), self.values.get("original_width"))

    @property
    def name(self) -> str:
        """The only label. Raises `DataError` if there is another number of them."""
        lists = [value for key, value in self.values.items() if key.endswith("labels") and isinstance(value, list)]
        names = list(dict.fromkeys(str(name).strip() for labels in lists for name in labels))
        if len(names) != 1:
            raise DataError(f"has the labels {names}, not one")
        return names[0]

    def box(self) -> tuple[list[float], bool]:
        """Return xmin, ymin, xmax, ymax as fractions of the image, and whether it is the box of another shape.

        Raises:
            DataError: the shape cannot be read.
        """
        if "rle" in self.values:
            raise DataError("is a brush mask, which is not read")
        if "points" in self.values:
            xs, ys = points_of(self.values["points"])
            return bounds([x / 100 for x in xs], [y / 100 for y in ys]), True
        is_ellipse = "radiusX" in self.values
        sides = ("radiusX", "radiusY") if is_ellipse else ("width", "height")
        x, y, width, height = (number_of(self.values.get(key), key) / 100 for key in ("x", "y", *sides))
        degrees = number_of(self.values.get("rotation") or 0, "rotation") % 360
        if not degrees and not is_ellipse:
            return [x, y, x + width, y + height], False
        if degrees and self.size_px is None:
            raise DataError(f"is rotated by {degrees:g} degrees, but has no original_width and original_height")
        rows, columns = self.size_px or (1, 1)
        x, y, width, height = x * columns, y * rows, width * columns, height * rows  # angles are those of pixels
        turned = rotated_bounds([x, y, x + width, y + height], degrees, (x, y))
        if is_ellipse:
            turned = ellipse_bounds((x, y), (width, height), degrees)
        return [turned[0] / columns, turned[1] / rows, turned[2] / columns, turned[3] / rows], True


@dataclass
class _Task:
    image: str
    regions: list[_Region]

    @property
    def size_px(self) -> tuple[int, int] | None:
        return next((size_px for region in self.regions if (size_px := region.size_px)), None)


def _read_tasks(path: Path, content: Sequence[dict[str, Any]], builder: TableBuilder) -> list[_Task]:
    """Read all tasks that have an annotation."""
    tasks: dict[tuple[str, str], _Task] = {}
    unfinished, repeated = [], []
    for number, entry in enumerate(content, start=1):
        identity, is_full = str(entry.get("id", number)), isinstance(entry.get("data"), dict)
        results = _results(entry) if is_full else [list(_small_results(entry))]
        if not results:
            unfinished.append(identity)
            continue
        image = _image_name(entry["data"] if is_full else entry, results[0])
        if image is None:
            builder.fail_file(path, f"task {identity} names no image")
            continue
        if len(results) > 1 or (identity, image) in tasks:  # joined projects have ids twice
            repeated.append(identity)
        tasks.setdefault(
            (identity, image), _Task(image, [region for region in _regions(results[0]) if region.is_object])
        )
    if repeated:
        text = "have more than one annotation, of which the first is read; the first such task is"
        builder.notes.append(f"{path}: {len(set(repeated))} tasks {text} {repeated[0]}")
    if unfinished:
        text = "have no annotation and are skipped; the first is"
        builder.notes.append(f"{path}: {len(unfinished)} tasks {text} {unfinished[0]}")
    return list(tasks.values())


def _results(entry: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """Return the results of each annotation that is not cancelled."""
    annotations = entry.get("annotations") or entry.get("completions")
    finished = [one for one in _dicts(annotations) if not one.get("was_cancelled")]
    return [_dicts(one.get("result")) for one in finished]


def _dicts(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _small_results(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the values of JSON-MIN in the form of JSON's results."""
    for values in entry.values():
        for value in _dicts(values):
            plain = "rectangle" if value.keys() & {"width", "points"} else "labels"
            yield {"type": next((key for key in value if key.endswith("labels")), plain), "value": value}


def _regions(results: Iterable[Mapping[str, Any]]) -> Iterator[_Region]:
    by_id: dict[str, _Region] = defaultdict(_Region)
    for number, result in enumerate(results):
        value = result.get("value")
        if isinstance(value, dict):
            region = by_id[str(result.get("id") or f"result {number}")]
            region.kinds.append(str(result.get("type")))
            sizes = {key: result[key] for key in ("original_width", "original_height") if key in result}
            region.values |= {**sizes, **value}
    yield from by_id.values()


def _image_name(data: Mapping[str, Any], results: Iterable[Mapping[str, Any]]) -> str | None:
    """Find the image among the values of a task."""
    texts = {key: _clean(value) for key, value in data.items() if isinstance(value, str) and value[:5] != "data:"}
    keys = [str(result.get("to_name")) for result in results if result.get("type") not in NO_SHAPES]
    paths = (text for text in texts.values() if PurePosixPath(unquote(text)).suffix.lower() in KNOWN_SUFFIXES)
    return next(chain((texts[key] for key in (*keys, "image", "img") if texts.get(key)), paths), None)


def _clean(stated: str) -> str:
    """Return the path in a link: of /data/local-files/?d=a/b.jpg, s3://bucket/b.jpg or https://host/b.jpg?key=1."""
    path = stated.partition("?d=")[2] or stated
    if "://" in path:
        path = path.partition("://")[2]
        path = path.partition("?")[0] if stated.startswith("http") else path
    return portable_path(path)


def _spellings(images: Iterable[str]) -> list[dict[str, str]]:
    """Return the names that the files of images may have: as stated, without escapes, without an upload's prefix."""
    stated = {image: image for image in images}
    bare = {image: UPLOAD.sub("", image) for image in stated}
    counts = Counter(name.rpartition("/")[2] for name in bare.values())
    bare = {image: name if counts[name.rpartition("/")[2]] == 1 else image for image, name in bare.items()}
    return [{image: read(name) for image, name in of.items()} for of in (stated, bare) for read in (str, unquote)]


def _find_image(image: str, spellings: Sequence[Mapping[str, str]], finders: Sequence[ImageFinder]) -> str:
    errors = []
    for spelling, finder in zip(spellings, finders, strict=True):
        try:
            return finder(spelling[image])
        except FileError as error:
            if error.kind != "missing":
                raise
            errors.append(error)
    raise errors[0]
