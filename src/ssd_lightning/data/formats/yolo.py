"""The YOLO format: `data.yaml`, images in `images/`, and a text file with normalised boxes for each in `labels/`."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml

from ssd_lightning.data.annotation_checks import number_of, whole_number
from ssd_lightning.data.annotations import Annotations
from ssd_lightning.data.formats.builder import TableBuilder, in_threads
from ssd_lightning.data.formats.files import (
    FileError,
    MissingSplitError,
    find_image,
    folder_with,
    inside_first,
    is_comment,
    is_within,
    parts_to_keep,
    path_tails,
    portable_path,
    read_lines,
    refuse_unreadable,
    unique_image_id,
)
from ssd_lightning.data.formats.shapes import OutlineCount, bounds
from ssd_lightning.data.image_suffixes import describe_unreadable, is_image_name, is_unreadable_image_name
from ssd_lightning.data.special_files import is_file
from ssd_lightning.errors import DataError

IMAGE_FOLDERS = ("images/{split}", "{split}/images", "{split}")
SETTINGS_FILES = ("data.yaml", "data.yml", "dataset.yaml")
OTHER_SETTINGS = ("*.yaml", "*.yml", "*.data", "data/*.data", "cfg/*.data")
NAMES_FILES = ("classes.txt", "obj.names", "classes.names", "_darknet.labels")
BOX = ("cx", "cy", "w", "h")


@dataclass(frozen=True, kw_only=True)
class YOLO:
    """Reads YOLO labels. The format has no difficult objects.

    A split is a key of `data.yaml` (`train`, `val`, `test`) that names a folder or a list of images; without the key,
    the folder `images/NAME` or `NAME/images`. A line is `class cx cy w h`: the class number from 0, then fractions of
    the upright image. Of a line with more points, an outline or a rotated box, the bounding box is read. An image whose
    label file is empty or missing has no objects.

    The numbers refer to the `names` of `data.yaml`, or to the lines of `classes.txt` or another of `NAMES_FILES`.
    Instead of `data.yaml` there may be a YAML file of another name, or darknet's `obj.data`.
    """

    def read(self, root: Path, split: str) -> Annotations:
        """Read a split.

        Raises:
            DataError: there is no such split, it has no label file at all, or it cannot be read.
        """
        path, settings = read_settings(root)
        places = _places(root, path, settings, split)
        names_file = _names_file(root, places)
        names = _class_names(path, _stated(settings, "names"), names_file)
        builder = TableBuilder(
            class_names=list(dict.fromkeys(names.values())),
            is_listed=True,
            is_numbered=not names,
            item_format="line {item} '{name}'",
            box_format="cxcywh",
            unit="fractions",
        )
        builder.notes += _tails_of_places(root, path, settings, split, places)
        images = list(chain.from_iterable(_list_images(place, root, builder.notes) for place in places))
        if not any(label_path(image.path).is_file() for image in images):
            # If all images are missing too, each is reported later.
            for image in images:
                if is_file(image.path):
                    raise DataError(
                        f"{label_path(image.path)}: the labels are missing: none of the {len(images)} images of split "
                        f"'{split}' has a file there"
                    )
        count = _stated(settings, "nc")
        if count is not None and names and whole_number(count) != len(names):
            builder.notes.append(
                f"{path}: 'nc' is {count}, but the number of names is {len(names)}; the names are taken"
            )
        builder.notes += _shared_labels(image.path for image in images)
        builder.notes += _training_images(root, path, settings, split, places)
        self._add(builder, images, names, has_points=_stated(settings, "kpt_shape") is not None)
        for text_file in _labels_without_images(places, [image.path for image in images]):
            builder.fail_file(text_file, "the image is missing, though it has labels", kind="missing")
        builder.sources += _sources(path, names_file, places, images)
        return builder.finish(roots=[root])

    def files(self, root: Path, split: str) -> Iterable[str]:
        """List the images or list files of a split. Raises `DataError` if there is no such split."""
        places = [Path(os.path.realpath(place)) for place in _places(root, *read_settings(root), split)]
        listed = (path for place in places for path in (place.rglob("*") if place.is_dir() else (place,)))
        return (str(path) for path in listed if path in places or is_image_name(path))

    def _add(
        self, builder: TableBuilder, images: Sequence["_Image"], names: Mapping[int, str], *, has_points: bool
    ) -> None:
        seen: set[str] = set()
        outlines = OutlineCount()
        for image, objects in in_threads(lambda image: _read_labels(image, has_points), images):
            image_id = unique_image_id(image.name, seen)
            if isinstance(objects, FileError):
                builder.fail_image(objects, image_id=image_id)
                continue
            file = label_path(image.path)
            index = builder.add_image(image_id=image_id, path=image.path, size_px=None, file=file)
            for found in objects:
                number = whole_number(found.code)
                name = found.code if number is None else names.get(number, str(number))
                if isinstance(found.numbers, str):
                    builder.fail_object(index, name=name, item=found.line, text=found.numbers)
                    continue
                builder.add_object(index, name=name, numbers=found.numbers, item=found.line)
                if found.is_outline:
                    outlines.add(f"{file}: line {found.line}")
        builder.notes += outlines.notes()


class _Object(NamedTuple):
    line: int
    code: str
    numbers: list[float] | str
    """cx, cy, w, h, or what is wrong."""
    is_outline: bool = False


def _read_labels(image: "_Image", has_points: bool) -> list[_Object]:
    if not is_file(image.path):
        raise FileError(image.stated, "the image is missing", kind="missing")
    refuse_unreadable(image.path)
    path = label_path(image.path)
    try:
        lines = read_lines(path)
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, DataError) as error:
        text = str(error).removeprefix(f"{path}: ")
        raise FileError(path, f"cannot read the labels: {text}", kind="annotation") from error
    return [_read_line(number, line.split(), has_points) for number, line in enumerate(lines, start=1) if line.strip()]


def _read_line(line: int, fields: Sequence[str], has_points: bool) -> _Object:
    code, values = fields[0], fields[1:]
    is_outline = len(values) >= 6 and len(values) % 2 == 0 and not has_points
    try:
        if len(values) != 4 and not is_outline and not (has_points and len(values) > 4):
            raise DataError(
                f"has {len(fields)} values, not the 5 of a box (class cx cy w h) or the points of an outline; scores "
                "are not read"
            )
        if not is_outline:
            return _Object(line, code, [number_of(text, key) for text, key in zip(values, BOX, strict=False)])
        numbers = [number_of(text, "xy"[index % 2]) for index, text in enumerate(values)]
    except DataError as error:
        return _Object(line, code, str(error))
    left, top, right, bottom = bounds(numbers[0::2], numbers[1::2])
    return _Object(line, code, [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], is_outline=True)


@dataclass(frozen=True)
class _Image:
    name: str
    """Path below the folder that all images share."""
    path: Path
    stated: str
    """Source for error messages: the path, or file, line and text of a list."""


def _training_images(
    root: Path, path: Path, settings: Mapping[str, Any], split: str, places: Sequence[Path]
) -> list[str]:
    """Warn if a split is the training split under another name, as written by tools that need a `val`."""
    names = _stated_places(settings, "train")
    training = [_find_place(root, settings, name) or _find_tail(root, name) for name in names]
    if split != "train" and {os.path.realpath(place) for place in training if place} == set(
        map(os.path.realpath, places)
    ):
        return [f"{path}: '{split}' and 'train' are the same images; scores on them say little about new ones"]
    return []


def _shared_labels(images: Iterable[Path]) -> list[str]:
    counts = Counter(map(label_path, set(images)))
    shared = sorted(path for path, count in counts.items() if count > 1 and path.is_file())
    if not shared:
        return []
    return [f"{len(shared)} label files belong to more than one image each, the first is {shared[0]}"]


def _labels_without_images(places: Sequence[Path], images: Sequence[Path]) -> list[Path]:
    # A list file may use part of a folder, and other text files may be next to images.
    folders = [folder for place in places if place.is_dir() for folder in [label_path(place / "any.jpg").parent]]
    expected = set(map(label_path, images))
    return [
        path
        for folder in folders
        if folder not in places
        for path in sorted(folder.rglob("*.txt"))
        if path not in expected and path.name not in NAMES_FILES
    ]


def read_settings(root: Path) -> tuple[Path, dict[str, Any]]:
    """Read `data.yaml` or what stands for it. Without such a file the settings are empty.

    Raises:
        DataError: `data.yaml` cannot be read.
    """
    for path in (root / name for name in SETTINGS_FILES):
        if path.is_file():
            return path, _read_yaml(path)
    for path in (path for pattern in OTHER_SETTINGS for path in sorted(root.glob(pattern))):
        try:
            settings = _read_darknet(root, path) if path.suffix == ".data" else _read_yaml(path)
        except (DataError, UnicodeDecodeError):
            continue  # a file for something else
        if "names" in settings and (settings.get("train") or settings.get("val")):
            return path, settings
    return root / SETTINGS_FILES[0], {}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        # Everything is loaded as text: YAML would read the class names no and 010 as False and 8.
        settings = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=yaml.BaseLoader)  # noqa: S506 - makes no objects
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: this is not readable YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise DataError(f"{path}: the YAML is a {type(settings).__name__}, not a mapping with 'names'")
    return settings


def _read_darknet(root: Path, path: Path) -> dict[str, Any]:
    """Read the `key = value` lines of `obj.data` as the settings of `data.yaml`. Its paths start at another folder."""
    pairs = [line.partition("=") for line in read_lines(path) if "=" in line and not line.lstrip().startswith("#")]
    stated = {key.strip(): value.strip() for key, _, value in pairs}
    found = {
        key: str(_find_place(root, {}, value) or _find_tail(root, value) or value)
        for key, value in stated.items()
        if key in ("train", "valid", "val", "test", "names")
    }
    names_file = Path(found.get("names", ""))
    names = read_lines(names_file) if is_file(names_file) else []
    return {
        **found,
        "val": found.get("valid", found.get("val", "")),
        "nc": stated.get("classes"),
        "names": [name.strip() for name in names if name.strip()] or None,
    }


def _names_file(root: Path, places: Sequence[Path]) -> Path | None:
    folders = [root]
    for place in places:
        folders += [place, place.parent, label_path(place / "any.jpg").parent]
    files = (folder / name for folder in folders for name in NAMES_FILES)
    return next((file for file in files if is_file(file)), None)


def _class_names(path: Path, stated: Any, names_file: Path | None) -> dict[int, str]:
    """Return number in the label files -> class name; empty if no file has names."""
    numbered = dict(enumerate(stated)) if isinstance(stated, list) else stated
    if isinstance(numbered, dict) and numbered and all(str(number).isdecimal() for number in numbered):
        for number, name in numbered.items():
            if not isinstance(name, str) or not name.strip():
                raise DataError(f"{path}: 'names' has {name!r} for class {number}, which is not a name")
        return {int(number): numbered[number] for number in sorted(numbered, key=int)}
    if stated is not None:
        raise DataError(f"{path}: 'names' is {stated!r}, neither a list of names nor a mapping from their numbers")
    if names_file is not None:
        try:
            lines = read_lines(names_file)
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{names_file}: cannot read the class names: {error}") from error
        return {number: line.strip() for number, line in enumerate(lines) if line.strip()}  # blank lines count
    return {}


def _places(root: Path, path: Path, settings: Mapping[str, Any], split: str) -> list[Path]:
    """List the folders and list files of a split."""
    names = _stated_places(settings, split)
    if names:
        places = [_find_place(root, settings, name) or _find_tail(root, name) for name in names]
        for name, place in zip(names, places, strict=True):
            if place is None:
                said = f"no '{name}', which its line '{split}' states, nor the last parts of that path in {root}"
                raise MissingSplitError(path, split, [said])
        return [place for place in places if place is not None]
    for pattern in IMAGE_FOLDERS:
        if (root / pattern.format(split=split)).is_dir():
            return [root / pattern.format(split=split)]
    others = {key for key in ("train", "val", "test") if _stated(settings, key)}
    others |= {folder.name for folder in (root / "images").glob("*") if folder.is_dir()}
    raise MissingSplitError(path if settings else root / "images" / split, split, others)


def _tails_of_places(
    root: Path, path: Path, settings: Mapping[str, Any], split: str, places: Sequence[Path]
) -> list[str]:
    return [
        f"{path}: there is no '{name}'; {place} is used, found by the last parts of that path"
        for name, place in zip(_stated_places(settings, split), places, strict=False)
        if _find_place(root, settings, name) is None
    ]


def _stated_places(settings: Mapping[str, Any], split: str) -> list[str]:
    stated = _stated(settings, split)
    return [str(name) for name in (stated if isinstance(stated, list) else [stated]) if name]


def _stated(settings: Mapping[str, Any], key: str) -> Any:
    value = settings.get(key)
    return None if value in ("", "null", "Null", "NULL", "~") else value


def _find_place(root: Path, settings: Mapping[str, Any], name: str) -> Path | None:
    # `path` is often a path on the machine that created the set. Some exporters write ../train/images for a
    # folder next to data.yaml.
    base = portable_path(str(_stated(settings, "path") or "."))
    inner = name = portable_path(name)
    while inner.startswith("../"):
        inner = inner.removeprefix("../")
    candidates = [root / base / name, root / name, root / inner]
    return next((place for place in inside_first(candidates, root) if os.path.exists(place)), None)


def _find_tail(root: Path, name: str) -> Path | None:
    tails = (tail for tail in path_tails(name.rstrip("/\\")) if tail.strip("./"))
    return next((root / tail for tail in tails if is_within(root, root / tail) and os.path.exists(root / tail)), None)


def _list_images(place: Path, root: Path, notes: list[str]) -> list[_Image]:
    if place.is_dir():
        files = sorted(place.rglob("*"))
        unreadable = [path for path in files if is_unreadable_image_name(path)]
        labelled = {path for path in unreadable if label_path(path).is_file()}  # listed here, rejected by name later
        described = describe_unreadable(path for path in unreadable if path not in labelled)
        if described:
            notes.append(f"{place}: skipped {described}; convert them to .jpg or .png")
        paths = [path for path in files if is_image_name(path) or path in labelled]
        return [_Image(path.relative_to(place).as_posix(), path, stated=str(path)) for path in paths]
    try:
        lines = read_lines(place)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{place}: cannot read the list of images: {error}") from error
    texts = {number: line.strip() for number, line in enumerate(lines, start=1) if line.strip()}
    texts = {number: text for number, text in texts.items() if not is_comment(text, (root, place.parent))}
    names = list(map(portable_path, texts.values()))
    # Tools disagree on the base folder of the lines. The first images decide.
    base = folder_with((root, place.parent), names[:10], root=root) or place.parent
    keep = parts_to_keep(names)
    found = [find_image(base, name, root=root, keep=keep.get(name, 1)) for name in names]
    notes += _tails(place, base, names, found)
    parts = [PurePosixPath(name).parts for name in names]
    shared = 0
    while len({of_name[: shared + 1] for of_name in parts}) == 1 < min(map(len, parts)) - shared:
        shared += 1  # folders that all names share
    return [
        _Image("/".join(of_name[shared:]), path or base / name, stated=f"{place}: line {number} '{text}'")
        for of_name, name, path, (number, text) in zip(parts, names, found, texts.items(), strict=True)
    ]


def _tails(place: Path, base: Path, names: Sequence[str], paths: Sequence[Path | None]) -> list[str]:
    taken = [
        (name, path)
        for name, path in zip(names, paths, strict=True)
        if path is not None and path.parent not in ((base / name).parent, (base / name.removeprefix("data/")).parent)
    ]
    if not taken:
        return []
    return [
        f"{place}: {len(taken)} of the {len(names)} images are not where the list states; they are found by the last "
        f"parts of their paths, the first, '{taken[0][0]}', as {taken[0][1]}"
    ]


def label_path(image_path: Path) -> Path:
    """Return the label file of an image: the last `images` becomes `labels`, else it is next to the image."""
    folders = list(image_path.parent.parts)
    if "images" in folders:
        last = len(folders) - 1 - folders[::-1].index("images")
        folders[last] = "labels"
    return Path(*folders) / f"{image_path.stem}.txt"


def _sources(path: Path, names_file: Path | None, places: Sequence[Path], images: Sequence[_Image]) -> list[str]:
    """List the files and folders whose change changes the split."""
    sources = {path, *([names_file] if names_file else []), *places}
    for place in places:
        folders = [place] if place.is_dir() else []
        folders += [folder for of_place in folders for folder in of_place.rglob("*") if folder.is_dir()]
        sources.update(folders)
        sources.update(label_path(folder / "any.jpg").parent for folder in folders)
    sources.update(label_path(image.path) for image in images)
    return sorted(map(str, sources))
