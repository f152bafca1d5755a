"""The YOLO format: `data.yaml`, images in `images/`, and a text file with normalised boxes for each in `labels/`."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from ssd_lightning.data.annotation import (
    Objects,
    check_class_names,
    checked_box,
    label_of,
    number_classes,
    number_of,
    refuse_pixels,
    whole_number,
)
from ssd_lightning.data.dataset import ImageAnnotation, OnError, Subset, Transform
from ssd_lightning.data.image_suffixes import is_image_name, is_unreadable_image_name, log_unreadable
from ssd_lightning.data.images import image_size_px
from ssd_lightning.data.special_files import is_file
from ssd_lightning.data.split_dataset import ReadImage, SplitDataset
from ssd_lightning.data.splits import (
    MissingSplitError,
    absolute_roots,
    find_image,
    folder_with,
    inside_first,
    is_comment,
    is_within,
    open_splits,
    parts_to_keep,
    path_tails,
    portable_path,
    read_lines,
    refuse_unreadable,
    unique_image_id,
)
from ssd_lightning.errors import DataError

log = logging.getLogger(__name__)

IMAGE_FOLDERS = ("images/{split}", "{split}/images", "{split}")
SETTINGS_FILES = ("data.yaml", "data.yml", "dataset.yaml")


class YOLODataset(SplitDataset):
    """Images with YOLO labels, from one or more splits. The format has no difficult objects.

    A line is `class cx cy w h`: the class number from 0, then fractions of the upright image. An image whose label
    file is empty or missing has no objects.

    Args:
        splits: each a `root` and a `split`: a key of `data.yaml` (`train`, `val`, `test`) that names a folder
            or a list of images; without the key, the folder `images/NAME` or `NAME/images`.
        class_names: names of the classes 1..C; None uses the `names` of `data.yaml` in their order. Without a
            `data.yaml`, the numbers in the label files refer to these names, or to those of `classes.txt`.
        on_error: `raise` stops at the first bad object or image; `skip` drops and lists them.
        transform, seed, part, val_fraction, max_images: see `SplitDataset`.

    Raises:
        DataError: a root, split or image is missing or unusable; a split has no label file at all; class
            names are empty or repeated; no image is left.
    """

    def __init__(
        self,
        *,
        splits: Sequence[Mapping[str, str]],
        class_names: Sequence[str] | None = None,
        transform: Transform | None = None,
        seed: int = 0,
        on_error: OnError = "raise",
        part: Subset = "all",
        val_fraction: float = 0.0,
        max_images: int | None = None,
    ) -> None:
        lists = [_read_list(*opened, class_names) for opened in open_splits(splits)]
        if class_names is None:
            class_names = list(dict.fromkeys(name for listed in lists for name in listed.names.values()))
        check_class_names(class_names)
        labels = number_classes(class_names)
        super().__init__(
            roots=absolute_roots(splits),
            images=(image for listed in lists for image in _images(listed, labels)),
            problems=[problem for listed in lists for problem in listed.problems],
            class_names=class_names,
            transform=transform,
            seed=seed,
            on_error=on_error,
            part=part,
            val_fraction=val_fraction,
            max_images=max_images,
        )

    @staticmethod
    def split_sources(root: Path, split: str) -> Iterable[str]:
        """List the images or list files of a split. Raises `DataError` if there is no such split."""
        places = [Path(os.path.realpath(place)) for place in _places(root, *_read_settings(root), split)]
        listed = (path for place in places for path in (place.rglob("*") if place.is_dir() else (place,)))
        return (str(path) for path in listed if path in places or is_image_name(path))


@dataclass(frozen=True)
class _Image:
    name: str
    """Path below the folder that all images share."""
    path: Path
    stated: str
    """Source for error messages: the path, or file, line and text of a list."""


@dataclass(frozen=True)
class _List:
    prefix: str
    names: dict[int, str]
    """Number in the label files -> class name."""
    images: list["_Image"]
    problems: list[str]
    """A sentence for each label file without an image."""


def _read_list(prefix: str, root: Path, split: str, class_names: Sequence[str] | None) -> _List:
    path, settings = _read_settings(root)
    places = _places(root, path, settings, split)
    _log_tails_of_places(root, path, settings, split, places)
    images = list(chain.from_iterable(_list_images(place, root) for place in places))
    if not any(label_path(image.path).is_file() for image in images):
        # If all images are missing too, each is reported later.
        for image in images:
            if is_file(image.path):
                raise DataError(
                    f"{label_path(image.path)}: the labels are missing: none of the {len(images)} images of split "
                    f"'{split}' has a file there"
                )
    _log_shared_labels(image.path for image in images)
    names = _class_numbers(root, path, _stated(settings, "names"), class_names)
    count = _stated(settings, "nc")
    if count is not None and whole_number(count) != len(names):
        log.warning("%s: 'nc' is %s, but the number of names is %d; the names are taken", path, count, len(names))
    _log_training_images(root, path, settings, split, places)
    problems = _labels_without_images(places, [image.path for image in images])
    return _List(prefix=prefix, names=names, images=images, problems=problems)


def _log_training_images(
    root: Path, path: Path, settings: Mapping[str, Any], split: str, places: Sequence[Path]
) -> None:
    """Warn if a split is the training split under another name, as written by tools that need a `val`."""
    names = _stated_places(settings, "train")
    training = [_find_place(root, settings, name) or _find_tail(root, name) for name in names]
    if split != "train" and {os.path.realpath(place) for place in training if place} == set(
        map(os.path.realpath, places)
    ):
        log.warning("%s: '%s' and 'train' are the same images; scores on them say little about new ones", path, split)


def _log_shared_labels(images: Iterable[Path]) -> None:
    counts = Counter(map(label_path, set(images)))
    shared = sorted(path for path, count in counts.items() if count > 1 and path.is_file())
    if shared:
        log.warning("%d label files belong to more than one image each, the first is %s", len(shared), shared[0])


def _labels_without_images(places: Sequence[Path], images: Sequence[Path]) -> list[str]:
    # A list file may use part of a folder, and other text files may be next to images.
    folders = [folder for place in places if place.is_dir() for folder in [label_path(place / "any.jpg").parent]]
    expected = set(map(label_path, images))
    return [
        f"{path}: the image is missing, though it has labels"
        for folder in folders
        if folder not in places
        for path in sorted(folder.rglob("*.txt"))
        if path not in expected
    ]


def _read_settings(root: Path) -> tuple[Path, dict[str, Any]]:
    path = next((root / name for name in SETTINGS_FILES if (root / name).is_file()), None)
    if path is None:
        return root / SETTINGS_FILES[0], {}
    try:
        # Everything is loaded as text: YAML would read the class names no and 010 as False and 8.
        settings = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=yaml.BaseLoader)  # noqa: S506 - makes no objects
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: this is not readable YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise DataError(f"{path}: the YAML is a {type(settings).__name__}, not a mapping with 'names'")
    return path, settings


def _class_numbers(root: Path, path: Path, stated: Any, class_names: Sequence[str] | None) -> dict[int, str]:
    numbered = dict(enumerate(stated)) if isinstance(stated, list) else stated
    if isinstance(numbered, dict) and numbered and all(str(number).isdecimal() for number in numbered):
        for number, name in numbered.items():
            if not isinstance(name, str) or not name.strip():
                raise DataError(f"{path}: 'names' has {name!r} for class {number}, which is not a name")
        return {int(number): numbered[number] for number in sorted(numbered, key=int)}
    if stated is not None:
        raise DataError(f"{path}: 'names' is {stated!r}, neither a list of names nor a mapping from their numbers")
    if (root / "classes.txt").is_file():
        lines = read_lines(root / "classes.txt")
        return dict(enumerate(line.strip() for line in lines if line.strip()))
    if class_names is None:
        raise DataError(f"{path}: there is no 'names' list, nor {root / 'classes.txt'}; give data.class_names")
    check_class_names(class_names)
    return dict(enumerate(class_names))


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


def _log_tails_of_places(
    root: Path, path: Path, settings: Mapping[str, Any], split: str, places: Sequence[Path]
) -> None:
    for name, place in zip(_stated_places(settings, split), places, strict=False):
        if _find_place(root, settings, name) is None:
            log.warning("%s: there is no '%s'; %s is used, found by the last parts of that path", path, name, place)


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


def _list_images(place: Path, root: Path) -> list[_Image]:
    if place.is_dir():
        files = sorted(place.rglob("*"))
        unreadable = [path for path in files if is_unreadable_image_name(path)]
        labelled = {path for path in unreadable if label_path(path).is_file()}  # listed here, rejected by name later
        log_unreadable(place, (path for path in unreadable if path not in labelled))
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
    _log_tails(place, base, names, found)
    parts = [PurePosixPath(name).parts for name in names]
    shared = 0
    while len({of_name[: shared + 1] for of_name in parts}) == 1 < min(map(len, parts)) - shared:
        shared += 1  # folders that all names share
    return [
        _Image("/".join(of_name[shared:]), path or base / name, stated=f"{place}: line {number} '{text}'")
        for of_name, name, path, (number, text) in zip(parts, names, found, texts.items(), strict=True)
    ]


def _log_tails(place: Path, base: Path, names: Sequence[str], paths: Sequence[Path | None]) -> None:
    taken = [
        (name, path)
        for name, path in zip(names, paths, strict=True)
        if path is not None and path.parent != (base / name).parent
    ]
    if taken:
        log.warning(
            "%s: %d of the %d images are not where the list states; they are found by the last parts of their paths, "
            "the first, '%s', as %s",
            place,
            len(taken),
            len(names),
            *taken[0],
        )


def label_path(image_path: Path) -> Path:
    """Return the label file of an image: the last `images` becomes `labels`, else it is next to the image."""
    folders = list(image_path.parent.parts)
    if "images" in folders:
        last = len(folders) - 1 - folders[::-1].index("images")
        folders[last] = "labels"
    return Path(*folders) / f"{image_path.stem}.txt"


def _images(listed: _List, labels: Mapping[str, int]) -> Iterator[tuple[str, ReadImage]]:
    seen: set[str] = set()
    for image in listed.images:
        image_id = listed.prefix + unique_image_id(image.name, seen)
        yield image_id, partial(_read_image, image, image_id, listed.names, labels)


def _read_image(
    image: _Image, image_id: str, names: Mapping[int, str], labels: Mapping[str, int]
) -> tuple[ImageAnnotation, list[str]]:
    image_path = image.path
    if not is_file(image_path):
        raise DataError(f"{image.stated}: the image is missing")
    path = label_path(image_path)
    refuse_unreadable(image_path)
    size_px = image_size_px(image_path)
    height, width = size_px
    objects = Objects()
    for number, line in enumerate(_lines(path), start=1):
        fields = line.split()
        if not fields:
            continue
        number_of_class = whole_number(fields[0])
        name = fields[0] if number_of_class is None else names.get(number_of_class, fields[0])
        with objects.judging(f"{path}: line {number} '{name}'"):
            label = label_of(name, labels)
            if len(fields) != 5:
                raise DataError(
                    f"has {len(fields)} values, not the 5 of a box (class cx cy w h); outlines and scores are not read"
                )
            cx, cy, w, h = (number_of(text, key) for text, key in zip(fields[1:], ("cx", "cy", "w", "h"), strict=True))
            refuse_pixels((cx, cy, w, h))
            corners = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
            objects.add(label=label, box_xyxy_px=checked_box(corners, size_px), difficult=False)
    return objects.record(image_id=image_id, image_path=image_path, size_px=size_px), objects.problems


def _lines(path: Path) -> list[str]:
    try:
        return read_lines(path)
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the labels: {error}") from error
