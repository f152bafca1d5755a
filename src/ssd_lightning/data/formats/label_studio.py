"""Label Studio's exports JSON and JSON-MIN: one file with a list of tasks."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

from ssd_lightning.data.annotation_checks import BoxNotation, number_of, numbers_of, stated_size_px
from ssd_lightning.data.formats.builder import TableBuilder
from ssd_lightning.data.formats.files import FileError, read_json
from ssd_lightning.data.formats.found import FoundObject, read_object
from ssd_lightning.data.formats.image_files import ImageDir, ImageFinder, parts_to_keep, portable_path
from ssd_lightning.data.formats.shapes import bounds, ellipse_bounds, points_of, rotated_bounds
from ssd_lightning.data.formats.single_file import SingleFileFormat
from ssd_lightning.data.image_suffixes import KNOWN_SUFFIXES
from ssd_lightning.data.split_annotations import Annotations
from ssd_lightning.errors import DataError

UPLOAD = re.compile(r"(?<![^/])[0-9a-f]{6,}-(?=[^/]+$)")
"""What Label Studio puts before the name of an uploaded file."""
NO_SHAPES = ("keypointlabels", "keypoint", "choices", "textarea", "rating", "number", "taxonomy", "relation", "labels")
"""Results that are no objects with an area."""


@dataclass(frozen=True, kw_only=True)
class LabelStudio(SingleFileFormat):
    """Reads Label Studio's JSON.

    A split is the name in `NAME.json` or another entry of `locations`, or the path of the JSON file below the root. The
    first annotation of a task that is not cancelled is read. Tasks without one are skipped. Polygons, ellipses and
    rotated rectangles are read as their bounding boxes. Keypoints and predictions are not read. An image that was
    rotated in the editor is a problem, since the files do not say which way up its numbers are.
    """

    choice = "label_studio_folder"
    locations = ("{split}.json", "{split}/annotations.json", "{split}/result.json", "annotations/{split}.json")

    def read(self, root: Path, split: str) -> Annotations:
        """Read a split. Raises `DataError` if there is no such split, or it cannot be read."""
        path = self.path(root, split)
        builder = TableBuilder(notation=BoxNotation(unit="fractions"), item_format="object {item} '{name}' of {image}")
        tasks = read_tasks(path, builder)
        spellings = _spellings(task.image for task in tasks)
        storages: dict[str, list[str]] = defaultdict(list)
        for task in tasks:
            storages[_storage(task.image)].append(task.image)

        @cache
        def finders_in(image_dir: ImageDir) -> list[ImageFinder]:
            return [ImageFinder(image_dir, {*of.values()}, root=root, stated_by=path) for of in spellings]

        finders: dict[str, list[ImageFinder]] = {}
        for storage, images in storages.items():
            samples = dict.fromkeys(spelling[image] for image in images[:10] for spelling in spellings)
            finders[storage] = finders_in(self.image_dir(root, path, list(samples)))
        keep = parts_to_keep(spellings[0])
        for task in tasks:
            name = "/".join(task.image.split("/")[-keep.get(task.image, 1) :])
            find = partial(_find_image, task, spellings, finders[_storage(task.image)], path)
            builder.add_named_image(name, find, size_px=task.size_px, file=path, objects=task.objects)
        builder.sources += [str(path), *chain.from_iterable(finder.folders for finder in chain(*finders.values()))]
        return builder.finish(root)


class _Task(NamedTuple):
    identity: str
    image: str
    size_px: tuple[int, int] | None
    rotation: Any
    """Degrees by which the whole image was rotated in the editor."""
    objects: Sequence[FoundObject]


def read_tasks(path: Path, builder: TableBuilder) -> list[_Task]:
    """Read all tasks that have an annotation; the builder gets the notes, and the problems of tasks without an image.

    Raises `DataError` if the file is not a list of tasks.
    """
    content = read_json(path)
    if not isinstance(content, list) or not all(isinstance(task, dict) for task in content):
        raise DataError(f"{path}: the JSON is a {type(content).__name__}, not a list of tasks")
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
        regions = _regions(results[0])
        size_px = next(filter(None, map(_size_px, regions)), None)
        rotation = next((rotation for result in results[0] if (rotation := result.get("image_rotation"))), 0)
        objects = [_read_region(item, values) for item, values in enumerate(regions, start=1)]
        tasks.setdefault((identity, image), _Task(identity, image, size_px, rotation, objects))
    if repeated:
        text = "have more than one annotation, of which the first is read; the first such task is"
        builder.notes.append(f"{path}: {len(set(repeated))} tasks {text} {repeated[0]}")
    if unfinished:
        text = "have no annotation and are skipped; the first is"
        builder.notes.append(f"{path}: {len(unfinished)} tasks {text} {unfinished[0]}")
    return list(tasks.values())


def _results(entry: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
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


def _regions(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the values of each shape with an area. Label Studio may write shape and label as two results of one id."""
    shapes: dict[str, dict[str, Any]] = defaultdict(dict)
    with_area = set()
    for number, result in enumerate(results):
        value = result.get("value")
        if isinstance(value, dict):
            identity = str(result.get("id") or f"result {number}")
            sizes = {key: result[key] for key in ("original_width", "original_height") if key in result}
            shapes[identity] |= {**sizes, **value}
            if str(result.get("type")) not in NO_SHAPES:
                with_area.add(identity)
    return [shape for identity, shape in shapes.items() if identity in with_area]


def _size_px(shape: Mapping[str, Any]) -> tuple[int, int] | None:
    return stated_size_px(shape.get("original_height"), shape.get("original_width"))


def _read_region(item: int, shape: Mapping[str, Any]) -> FoundObject:
    lists = [value for key, value in shape.items() if key.endswith("labels") and isinstance(value, list)]
    names = list(dict.fromkeys(str(name).strip() for labels in lists for name in labels))
    if len(names) != 1:
        return FoundObject("", f"has the labels {names}, not one", item)
    return read_object(names[0], item, partial(_read_box, shape))


def _read_box(shape: Mapping[str, Any]) -> tuple[list[float], bool]:
    """Return xmin, ymin, xmax, ymax as fractions of the image, and whether it is the box of another shape."""
    if "rle" in shape:
        raise DataError("is a brush mask, which is not read")
    if "points" in shape:
        return [edge / 100 for edge in bounds(*points_of(shape["points"]))], True
    is_ellipse = "radiusX" in shape
    sides = ("radiusX", "radiusY") if is_ellipse else ("width", "height")
    x, y, width, height = (number / 100 for number in numbers_of(shape, "x", "y", *sides))
    degrees = number_of(shape.get("rotation") or 0, "rotation") % 360
    if not degrees and not is_ellipse:
        return [x, y, x + width, y + height], False
    size_px = _size_px(shape)
    if degrees and size_px is None:
        raise DataError(f"is rotated by {degrees:g} degrees, but has no original_width and original_height")
    rows, columns = size_px or (1, 1)
    x, y, width, height = x * columns, y * rows, width * columns, height * rows  # angles are those of pixels
    if is_ellipse:
        turned = ellipse_bounds((x, y), (width, height), degrees)
    else:
        turned = rotated_bounds([x, y, x + width, y + height], degrees, (x, y))
    return [turned[0] / columns, turned[1] / rows, turned[2] / columns, turned[3] / rows], True


def _image_name(data: Mapping[str, Any], results: Iterable[Mapping[str, Any]]) -> str | None:
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


def _storage(image: str) -> str:
    """Return what the images of one storage have in common: the first folder or bucket of their paths."""
    return image.strip("/").partition("/")[0] if "/" in image else ""


def _spellings(images: Iterable[str]) -> list[dict[str, str]]:
    """Return the names that the files of images may have: as stated, without escapes, without an upload's prefix."""
    stated = {image: image for image in images}
    bare = {image: UPLOAD.sub("", image) for image in stated}
    counts = Counter(name.rpartition("/")[2] for name in bare.values())
    bare = {image: name if counts[name.rpartition("/")[2]] == 1 else image for image, name in bare.items()}
    return [{image: read(name) for image, name in of.items()} for of in (stated, bare) for read in (str, unquote)]


def _find_image(task: _Task, spellings: Sequence[Mapping[str, str]], finders: Sequence[ImageFinder], path: Path) -> str:
    if task.rotation:
        text = f"task {task.identity} has image_rotation {task.rotation!r} for {task.image}, which is not read"
        raise FileError(path, f"{text}; turn the image file itself, and annotate it upright")
    errors = []
    for spelling, finder in zip(spellings, finders, strict=True):
        try:
            return finder(spelling[task.image])
        except FileError as error:
            errors.append(error)
    raise errors[0]
