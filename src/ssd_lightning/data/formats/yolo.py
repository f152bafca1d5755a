"""The YOLO format: `data.yaml`, images in `images/`, and a text file with normalised boxes for each in `labels/`."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

from ssd_lightning.data.annotation_checks import BOX_KEYS, LARGEST_FRACTION, number_of, whole_number
from ssd_lightning.data.annotations import Annotations
from ssd_lightning.data.formats.builder import TableBuilder
from ssd_lightning.data.formats.files import (
    FileError,
    MissingLabelsError,
    in_threads,
    is_within,
    read_lines,
    visible_below,
)
from ssd_lightning.data.formats.found import FoundImage, FoundObject
from ssd_lightning.data.formats.image_files import (
    find_image,
    folder_with,
    is_comment,
    parts_to_keep,
    portable_path,
    refuse_unreadable,
)
from ssd_lightning.data.formats.shapes import bounds
from ssd_lightning.data.formats.yolo_settings import NAMES_FILES, Settings, names_file_of, read_settings
from ssd_lightning.data.image_suffixes import describe_unreadable, is_image_name, is_unreadable_image_name
from ssd_lightning.errors import DataError


@dataclass(frozen=True, kw_only=True)
class YOLO:
    """Reads YOLO labels. The format has no difficult objects.

    A split is a key of `data.yaml` (`train`, `val`, `test`) that names a folder or a list of images; without the key,
    the folder `images/NAME` or `NAME/images`. A line is `class cx cy w h`: the class number from 0, then fractions of
    the upright image. Of a line with more points, an outline or a rotated box, the bounding box is read. A line that
    repeats another one of its file is counted and skipped. An image whose label file is empty or missing has no
    objects.

    With `kpt_shape` in `data.yaml`, keypoints may follow the box; they are not read. Without it, one line that can only
    be a box with keypoints decides that all longer lines of the split are. So does one of 7 or 9 values that is no
    outline inside of the image, if all longer lines start with a box inside of it.

    The numbers refer to the `names` of `data.yaml`, or to the lines of `classes.txt` or another of `NAMES_FILES`.
    Instead of `data.yaml` there may be a YAML file of another name, or darknet's `obj.data`.
    """

    def read(self, root: Path, split: str) -> Annotations:
        """Read a split. Raises `DataError` if there is no such split, it has no label file, or it cannot be read."""
        settings = read_settings(root)
        places = settings.places(split)
        notes = [*_found_by_tails(settings, split, places), *_same_as_training(settings, split, places)]
        images = list(chain.from_iterable(_list_images(place, root, notes) for place in places))
        labels = [image.labels for image in images]
        if (there := _unlabelled(images)) is not None:
            text = f"none of the {len(images)} images of split '{split}' has a file there"
            raise MissingLabelsError(f"{there.labels}: the labels are missing: {text}")
        near = [folder for place in places for folder in (place, place.parent, label_path(place / "any.jpg").parent)]
        near += [folder for place in places for folder in place.parents if is_within(root, folder)]
        names_file = names_file_of(root, near)
        names = settings.class_names(names_file)
        count = settings.get("nc")
        if count is not None and names and whole_number(count) != len(names):
            text = f"'nc' is {count}, but the number of names is {len(names)}; the names are taken"
            notes.append(f"{settings.path}: {text}")
        users = Counter({image.path: image.labels for image in images}.values())
        if shared := sorted(path for path, count in users.items() if count > 1 and path.is_file()):
            notes.append(f"{len(shared)} label files belong to more than one image each, the first is {shared[0]}")
        if bare := [one.path for one in images if os.path.isfile(one.path) and not one.labels.is_file()]:
            text = f"{len(bare)} of {len(images)} images of '{split}' have no label file and are used as background"
            notes.append(f"{root}: {text}; the first is {bare[0]}")
        try:
            builder = _build(settings, images, names, has_keypoints=settings.get("kpt_shape") is not None)
        except _KeypointsError as line:
            text = "has a box with keypoints or scores, so all longer lines are read like this; state kpt_shape in"
            notes.append(f"{line} {text} {settings.path}")
            builder = _build(settings, images, names, has_keypoints=True)
        for path in _labels_without_images(places, set(labels)):
            builder.fail_file(path, "the image is missing, though it has labels", kind="missing")
        builder.notes += notes
        builder.sources += _sources(settings.path, names_file, places, labels)
        return builder.finish(root)

    def files(self, root: Path, split: str) -> Iterable[str]:
        """List the images or list files of a split. Raises `DataError` if there is no such split."""
        places = [Path(os.path.realpath(place)) for place in read_settings(root).places(split)]
        listed = (path for place in places for path in (visible_below(place) if place.is_dir() else (place,)))
        return (str(path) for path in listed if path in places or is_image_name(path))

    def is_unlabelled(self, root: Path, split: str) -> bool:
        """Tell whether a split has images, but no label file. Raises `DataError` if there is no such split."""
        places = read_settings(root).places(split)
        return _unlabelled(list(chain.from_iterable(_list_images(place, root, []) for place in places))) is not None


@dataclass(frozen=True)
class _Image:
    name: str
    """Path below the folder that all images share."""
    path: Path
    labels: Path
    stated: str
    """Source for error messages: the path, or file, line and text of a list."""


class _KeypointsError(Exception):
    """A line can only be a box with keypoints, though the settings state none."""


def _build(
    settings: Settings, images: Sequence[_Image], names: Mapping[int, str], *, has_keypoints: bool
) -> TableBuilder:
    builder = TableBuilder(
        class_names=list(dict.fromkeys(names.values())),
        is_listed=True,
        is_numbered=not names,
        item_format="line {item} '{name}'",
        box_format="cxcywh",
        unit="fractions",
    )
    lengths = set()
    repeated: list[str] = []
    are_boxes, no_outline = True, ""
    for image, found in in_threads(lambda image: _read_labels(image, names, has_keypoints), images):
        image_id = builder.new_id(image.name)
        if isinstance(found, FileError):
            builder.add_image(image_id, found)
            continue
        path = image.labels
        repeated += [f"{path}: line {one.item}" for one in _drop_repeated(found)]
        objects = [one for _, one in found]
        builder.add_image(image_id, FoundImage(image.path, None, path, objects))
        for fields, one in found:
            if one.is_outline:
                lengths.add(len(fields))
                are_boxes = are_boxes and len(fields) <= 9 and _is_box_inside(fields[1:5])
                if are_boxes and not no_outline and not _is_near(fields[1:]):
                    no_outline = f"{path}: line {one.item} '{one.name}' of {len(fields)} values"
    if are_boxes and no_outline and len(lengths) == 1:
        raise _KeypointsError(no_outline)
    if repeated:
        text = "skipped as repetitions of another line of the same label file"
        builder.notes.append(f"{text}: {len(repeated)}; the first: {repeated[0]}")
    if builder.num_outlines > 1 and len(lengths) == 1 and (max(lengths) > 9 or are_boxes):  # 9: a rotated box
        text = f"all lines longer than a box have {max(lengths)} values and are read as outlines"
        builder.notes.append(f"{settings.path}: {text}; if they are boxes with keypoints or scores, state kpt_shape")
    return builder


def _drop_repeated(found: list[tuple[Sequence[str], FoundObject]]) -> list[FoundObject]:
    """Remove the objects whose line is that of an earlier one, and return them."""
    first = {tuple(fields): one.item for fields, one in reversed(found)}
    if len(first) == len(found):
        return []
    repeated = [one for fields, one in found if first[tuple(fields)] != one.item]
    found[:] = [(fields, one) for fields, one in found if first[tuple(fields)] == one.item]
    return repeated


def _is_box_inside(values: Sequence[str]) -> bool:
    """Tell whether cx, cy, w, h are a box inside of the image."""
    cx, cy, width, height = map(float, values)
    return all(0 < side <= 1.02 - 2 * abs(centre - 0.5) for centre, side in ((cx, width), (cy, height)))


def _is_near(values: Sequence[str]) -> bool:
    """Tell whether numbers may be points that are at most half an image outside of it."""
    return all(1 - LARGEST_FRACTION <= float(text) <= LARGEST_FRACTION for text in values)


def _read_labels(
    image: _Image, names: Mapping[int, str], has_keypoints: bool
) -> list[tuple[Sequence[str], FoundObject]]:
    """Return each object, and the values of its line."""
    if not os.path.isfile(image.path):
        raise FileError(image.stated, "the image is missing", kind="missing")
    refuse_unreadable(image.path)
    path = image.labels
    try:
        lines = read_lines(path, "labels")
    except FileError as error:
        if error.kind == "missing":
            return []
        raise
    found: list[tuple[Sequence[str], FoundObject]] = []
    for number, line in enumerate(lines, start=1):
        if fields := line.split():
            code = whole_number(fields[0])
            name = fields[0] if code is None else names.get(code, str(code))
            try:
                box, is_outline = _read_box(fields[1:], has_keypoints)
                found.append((fields, FoundObject(name, box, number, is_outline=is_outline)))
            except DataError as error:
                found.append((fields, FoundObject(name, str(error), number)))
            except _KeypointsError:
                raise _KeypointsError(f"{path}: line {number} '{name}' of {len(fields)} values") from None
    return found


def _read_box(values: Sequence[str], has_keypoints: bool) -> tuple[list[float], bool]:
    """Return cx, cy, w, h, and whether it is the box of an outline."""
    if len(values) == 4 or (has_keypoints and len(values) > 4):
        return [number_of(text, key) for text, key in zip(values, BOX_KEYS["cxcywh"], strict=False)], False
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


def _found_by_tails(settings: Settings, split: str, places: Sequence[Path]) -> list[str]:
    return [
        f"{settings.path}: there is no '{name}'; {place} is used, found by the last parts of that path"
        for name, place in zip(settings.stated_places(split), places, strict=False)
        if settings.find(name) is None
    ]


def _same_as_training(settings: Settings, split: str, places: Sequence[Path]) -> list[str]:
    """Warn if a split is the training split under another name, as written by tools that need a `val`."""

    def real(places: Iterable[Path | None]) -> set[str]:
        return {os.path.realpath(place) for place in places if place}

    training = settings.found_places("train")
    others = {key: settings.found_places(key) for key in ("val", "test")} if split == "train" else {split: [*places]}
    return [
        f"{settings.path}: '{key}' and 'train', {', '.join(settings.stated_places('train'))}, are the same images; "
        "scores on them say little about new ones"
        for key, of_key in others.items()
        if any(training) and real(of_key) == real(training)
    ]


def _labels_without_images(places: Sequence[Path], expected: set[Path]) -> list[Path]:
    # A list file may use part of a folder, and other text files may be next to images.
    folders = [folder for place in places if place.is_dir() for folder in [label_path(place / "any.jpg").parent]]
    found = (path for folder in folders if folder not in places for path in visible_below(folder))
    kept = (path for path in found if path.suffix == ".txt" and path.name not in NAMES_FILES)
    return [path for path in kept if path not in expected]


def _list_images(place: Path, root: Path, notes: list[str]) -> list[_Image]:
    if place.is_dir():
        files = visible_below(place)
        unreadable = [path for path in files if is_unreadable_image_name(path)]
        labelled = {path for path in unreadable if label_path(path).is_file()}  # listed here, rejected by name later
        described = describe_unreadable(path for path in unreadable if path not in labelled)
        if described:
            notes.append(f"{place}: skipped {described}; convert them to .jpg or .png")
        paths = [path for path in files if is_image_name(path) or path in labelled]
        return [_Image(path.relative_to(place).as_posix(), path, label_path(path), stated=str(path)) for path in paths]
    texts = {number: line.strip() for number, line in enumerate(read_lines(place), start=1) if line.strip()}
    texts = {number: text for number, text in texts.items() if not is_comment(text, (root, place.parent))}
    names = list(map(portable_path, texts.values()))
    # Tools disagree on the base folder of the lines. The first images decide.
    base = folder_with((root, place.parent, root / "images"), names[:10], root=root) or place.parent
    keep = parts_to_keep(names)
    found = [find_image(base, name, root=root, keep=keep.get(name, 1)) for name in names]
    elsewhere = [
        (name, path)
        for name, path in zip(names, found, strict=True)
        if path is not None and path.parent not in ((base / name).parent, (base / name.removeprefix("data/")).parent)
    ]
    if elsewhere:
        text = f"{len(elsewhere)} of the {len(names)} images are not where the list states; they are found by the last"
        name, path = elsewhere[0]
        notes.append(f"{place}: {text} parts of their paths, the first, '{name}', as {path}")
    parts = [PurePosixPath(name).parts for name in names]
    shared = 0
    while len({of_name[: shared + 1] for of_name in parts}) == 1 < min(map(len, parts)) - shared:
        shared += 1  # folders that all names share
    paths = [path or base / name for name, path in zip(names, found, strict=True)]
    return [
        _Image("/".join(of_name[shared:]), path, label_path(path), stated=f"{place}: line {number} '{text}'")
        for of_name, path, (number, text) in zip(parts, paths, texts.items(), strict=True)
    ]


def _unlabelled(images: Sequence[_Image]) -> _Image | None:
    """Return the first image if none has a label file; missing images are reported later."""
    there = next((image for image in images if os.path.isfile(image.path)), None)
    has_labels = there is not None and any(image.labels.is_file() for image in images)
    return None if has_labels else there


def label_path(image_path: Path) -> Path:
    """Return the label file of an image: the last `images` of its path becomes `labels`.

    If there is no such file, but one next to the image, it is that one.
    """
    usual = _usual_label_path(image_path)
    beside = image_path.with_name(usual.name)
    return beside if not os.path.isfile(usual) and os.path.isfile(beside) else usual


def _usual_label_path(image_path: Path) -> Path:
    """Replace `images`; in a folder `Images`, with another case, it is in `Labels` or `labels` if there is one."""
    folders = list(image_path.parent.parts)
    name = f"{image_path.stem}.txt"
    if "images" in folders:
        last = len(folders) - 1 - folders[::-1].index("images")
        return Path(*folders[:last], "labels", *folders[last + 1 :], name)
    last = next((number for number in reversed(range(len(folders))) if folders[number].lower() == "images"), -1)
    if last >= 0:
        places = (Path(*folders[:last], labels) for labels in ("Labels", "labels", "LABELS"))
        place = next(filter(Path.is_dir, places), None)
        if place is not None:
            return Path(place, *folders[last + 1 :], name)
    return image_path.parent / name


def _sources(path: Path, names_file: Path | None, places: Sequence[Path], labels: Sequence[Path]) -> list[str]:
    """List the files and folders whose change changes the split."""
    sources = {path, *([names_file] if names_file else []), *places, *labels}
    for place in places:
        folders = [place, *(folder for folder in visible_below(place) if folder.is_dir())] if place.is_dir() else []
        sources.update(folders, (label_path(folder / "any.jpg").parent for folder in folders))
    return sorted(map(str, sources))
