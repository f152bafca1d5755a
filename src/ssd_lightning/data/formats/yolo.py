"""The YOLO format: `data.yaml`, images in `images/`, and a text file with normalised boxes for each in `labels/`."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ssd_lightning.data.annotation_checks import whole_number
from ssd_lightning.data.formats.files import MissingLabelsError, folders_in, is_within, read_lines, visible_below
from ssd_lightning.data.formats.image_files import find_image, folder_with, is_comment, parts_to_keep, portable_path
from ssd_lightning.data.formats.yolo_labels import ListedImage, label_folder, label_path, read_labels
from ssd_lightning.data.formats.yolo_settings import NAMES_FILES, Settings, names_file_of, read_settings
from ssd_lightning.data.image_suffixes import describe_unreadable, is_image_name, is_unreadable_image_name
from ssd_lightning.data.split_annotations import Annotations


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
        notes = [*_found_by_tails(settings, split), *_same_as_training(settings, split, places)]
        images = _list_images(places, root, notes)
        labels = [image.label for image in images]
        if (there := _unlabelled(images)) is not None:
            text = f"none of the {len(images)} images of split '{split}' has a file there"
            raise MissingLabelsError(f"{there}: the labels are missing: {text}")
        near = [folder for place in places for folder in (place, place.parent, label_folder(place))]
        near += [folder for place in places for folder in place.parents if is_within(root, folder)]
        names_file = names_file_of(root, near)
        names = settings.class_names(names_file)
        count = settings.get("nc")
        if count is not None and names and whole_number(count) != len(names):
            text = f"'nc' is {count}, but the number of names is {len(names)}; the names are taken"
            notes.append(f"{settings.path}: {text}")
        users = Counter({image.path: image.label for image in images}.values())
        if shared := sorted(path for path, count in users.items() if count > 1 and path.is_file()):
            notes.append(f"{len(shared)} label files belong to more than one image each, the first is {shared[0]}")
        if bare := [one.path for one in images if os.path.isfile(one.path) and not one.label.is_file()]:
            text = f"{len(bare)} of {len(images)} images of '{split}' have no label file and are used as background"
            notes.append(f"{root}: {text}; the first is {bare[0]}")
        builder = read_labels(settings, images, names)
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
        return _unlabelled(_list_images(read_settings(root).places(split), root, notes=[])) is not None


def _found_by_tails(settings: Settings, split: str) -> list[str]:
    return [
        f"{settings.path}: there is no '{name}'; {place} is used, found by the last parts of that path"
        for name, place in zip(settings.stated_places(split), settings.found_places(split), strict=True)
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
    folders = [label_folder(place) for place in places if place.is_dir()]
    found = (path for folder in folders if folder not in places for path in visible_below(folder))
    kept = (path for path in found if path.suffix == ".txt" and path.name not in NAMES_FILES)
    return [path for path in kept if path not in expected]


def _list_images(places: Sequence[Path], root: Path, notes: list[str]) -> list[ListedImage]:
    images = []
    for place in places:
        images += _images_in_folder(place, notes) if place.is_dir() else _images_of_list(place, root, notes)
    return images


def _images_in_folder(place: Path, notes: list[str]) -> list[ListedImage]:
    images, others = [], []
    for path in visible_below(place):
        if is_image_name(path) or (is_unreadable_image_name(path) and label_path(path).is_file()):  # reported later
            images.append(ListedImage(path.relative_to(place).as_posix(), path, label_path(path), stated=str(path)))
        else:
            others.append(path)
    if described := describe_unreadable(others):
        notes.append(f"{place}: skipped {described}; convert them to .jpg or .png")
    return images


def _images_of_list(place: Path, root: Path, notes: list[str]) -> list[ListedImage]:
    lines = [(number, line.strip()) for number, line in enumerate(read_lines(place), start=1)]
    texts = {number: text for number, text in lines if text and not is_comment(text, (root, place.parent))}
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
    shared = len(os.path.commonprefix([of_name[:-1] for of_name in parts]))  # noqa: RUF071 - of tuples, by folder
    paths = [path or base / name for name, path in zip(names, found, strict=True)]
    return [
        ListedImage("/".join(of_name[shared:]), path, label_path(path), stated=f"{place}: line {number} '{text}'")
        for of_name, path, (number, text) in zip(parts, paths, texts.items(), strict=True)
    ]


def _unlabelled(images: Sequence[ListedImage]) -> Path | None:
    """Return the first label file if no image has its own; missing images are reported later."""
    there = next((image.label for image in images if os.path.isfile(image.path)), None)
    has_labels = there is not None and any(image.label.is_file() for image in images)
    return None if has_labels else there


def _sources(path: Path, names_file: Path | None, places: Sequence[Path], labels: Sequence[Path]) -> list[str]:
    sources = {path, *([names_file] if names_file else []), *places, *labels}
    for place in places:
        folders = folders_in(place)
        sources.update(folders, map(label_folder, folders))
    return sorted(map(str, sources))
