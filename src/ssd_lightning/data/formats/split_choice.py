"""Choose the splits of a folder by their names and files, and say why others are not used: none is lost in silence."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ssd_lightning.data.formats.csv_columns import SUFFIXES
from ssd_lightning.data.formats.files import FileError, read_bytes, read_json, read_lines, read_xml
from ssd_lightning.data.formats.labelme import LabelMe
from ssd_lightning.data.formats.recognize import Candidate, images_of_csv
from ssd_lightning.data.formats.survey import Files, folder_of
from ssd_lightning.data.formats.voc import VOC
from ssd_lightning.data.formats.yolo import YOLO
from ssd_lightning.data.image_suffixes import IMAGE_SUFFIXES
from ssd_lightning.data.split_annotations import AnnotationFormat
from ssd_lightning.data.split_names import SPLIT_NAMES, kind_of, split_words, without_split
from ssd_lightning.errors import DataError

NO_IMAGES = (
    "there are no images of these labels; labels of YOLO belong next to their images, or into a folder 'labels' beside "
    "the folder 'images'"
)
TEXT_WORDS = frozenset({"annotation", "annotations", "gt", "label", "labels", "labeltxt", "metadata"})
"""Words in the paths of annotations in text files."""
COCO_KEYS = ("images", "annotations", "categories")


def distinct_splits(
    annotation_format: AnnotationFormat, root: Path, names: Iterable[str]
) -> tuple[dict[str, frozenset[str]], dict[str, str], dict[str, str]]:
    """Return the files of each split; the earlier split of the same files, of those that have one; refusals by split.

    Raises `DataError` if the training split, or every one, cannot be read.
    """
    usual = [*SPLIT_NAMES["train"], *SPLIT_NAMES["val"], *SPLIT_NAMES["test"]]  # in ImageSets, cat_train is like train
    by_use = sorted(dict.fromkeys(names), key=lambda name: usual.index(name.lower()) if name.lower() in usual else 99)
    found: dict[str, frozenset[str]] = {}
    twins: dict[str, str] = {}
    errors: dict[str, DataError] = {}
    for name in by_use:
        try:
            files = frozenset(annotation_format.files(root, name))
        except DataError as error:
            if name.lower() in SPLIT_NAMES["train"]:
                raise
            errors[name] = error
            continue
        twin = next((other for other, of_other in found.items() if of_other == files), None)
        if twin is not None:
            twins[name] = twin
        elif files:
            found[name] = files
        else:
            is_yolo = isinstance(annotation_format, YOLO)
            errors[name] = DataError(f"{root / name}: {NO_IMAGES if is_yolo else 'its list is empty'}")
    if not found:
        raise next(iter(errors.values()), None) or DataError(f"{root}: there is no split")
    return found, twins, {name: str(error) for name, error in errors.items()}


def pick_splits_by_name(files: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """Return the splits for training, validation and test, which share no files, from the files of each.

    There is no `train` if it is not clear which one is for training. A split that is called like validation or test
    never is.
    """
    left = list(files)
    if len(left) == 1 and kind_of(left[0]) in ("train", None):
        return {"train": left[0]}
    chosen: dict[str, str] = {}
    for kind, known in SPLIT_NAMES.items():
        exact = (name for word in known for name in left if name.lower() == word)
        similar = (name for word in known for name in left if word in split_words(name))  # instances_val.json, val2017
        name = next(chain(exact, similar), None)
        if name is not None:
            chosen[kind] = name
            left.remove(name)
    train = chosen.get("train") or (left[0] if len(left) == 1 else None)
    splits = {"train": train} if train else {}
    for kind in ("val", "test"):
        used = frozenset().union(*(files[name] for name in splits.values()))
        if kind in chosen and used.isdisjoint(files[chosen[kind]]):  # trainval contains val
            splits[kind] = chosen[kind]
    return splits


def images_without_split(files: Files, kinds: Collection[str | None]) -> dict[str, str]:
    """Describe the images in folders that are called like a split that is not among `kinds`: `train`, `val`, `test`."""
    counts = Counter(folder_of(path) for path in files.of(*IMAGE_SUFFIXES))
    found: dict[str, list[str]] = {}
    for folder, count in counts.items():
        kind = kind_of(folder)
        if kind is not None and kind not in kinds:
            found.setdefault(kind, []).append(f"{count} images in {folder}")
    return {kind: " and ".join(islice(described, 3)) for kind, described in found.items()}


def no_training_text(root: Path, names: Collection[str], *, images: str, refused: Iterable[str]) -> str:
    """Say that no split is for training, which there are, and where training images without annotations may be."""
    beside = f", and {images}, for which no annotations are found" if images else ""
    beside += "".join(f"; '{name}' cannot be read" for name in refused)
    text = f"{root}: it is not clear which split is for training. There is {', '.join(names)}{beside}"
    return f"{text}; data.train_split={next(iter(names))} trains on that split"


class Fault(NamedTuple):
    """Why a file is not read."""

    text: str
    is_damaged: bool
    """Whether nothing can read it; otherwise it is a file of another kind."""


def refuse_unread(files: Files, found: Candidate, kinds: Collection[str | None]) -> list[str]:
    """Describe test files that are not read, since they are of another kind: those of a competition have no boxes.

    They are called like files of the format but for the split, and are not among them. Of formats with a file for each
    image, it is the first file of each folder without annotations.

    Raises `DataError` if a file of training, validation or test cannot be read, and no split of that kind is among the
    `kinds` that are read.
    """
    has_file_of_image = isinstance(found.format, VOC | LabelMe | YOLO)
    place_of: Callable[[str], str] = folder_of if has_file_of_image else str
    known = set(map(place_of, found.files))
    twins = {without_split(place_of(path)): path for path in reversed(found.files)}
    paths = files.of(*{PurePosixPath(path).suffix.lower() for path in found.files})
    if has_file_of_image:
        stems = {PurePosixPath(path).stem for path in files.of(*IMAGE_SUFFIXES)}
        paths = [path for path in paths if PurePosixPath(path).stem in stems]
    notes = []
    for path in paths:
        place = place_of(path)
        twin, kind = twins.get(without_split(place)), kind_of(place)
        if place in known or twin is None or kind in {*kinds, None}:
            continue
        known.add(place)
        fault = fault_of(files.root / path)
        text = f"{files.root / path}: {fault.text}; by its name it is the annotation of '{kind}', as {twin} is"
        if kind != "test" or fault.is_damaged:
            raise DataError(f"{text}; correct the file, or move it away")
        notes.append(text)
    return notes


def describe_faults(files: Files, *, at_most: int = 3) -> Iterator[str]:
    """Say why files are not read that may be annotations: first those that are damaged."""
    stems = {PurePosixPath(path).stem for path in files.of(*IMAGE_SUFFIXES)}
    texts = [
        path
        for path in files.of(".txt", ".jsonl")
        if PurePosixPath(path).stem in stems or not TEXT_WORDS.isdisjoint(split_words(path))
    ]
    paths = [*files.of(*SUFFIXES, ".json", ".xml"), *texts]
    faults = [(path, fault_of(files.root / path)) for path in paths[: 10 * at_most]]
    faults.sort(key=lambda entry: not entry[1].is_damaged)
    return (f"{files.root / path}: {fault.text}" for path, fault in islice(faults, at_most))


def fault_of(path: Path) -> Fault:
    """Say why a file is not read."""
    try:
        content = read_bytes(path)
        if not content.strip():
            return Fault("the file is empty", True)
        if path.suffix.lower() == ".json":
            return Fault(_json_kind(read_json(path)), False)
        if path.suffix.lower() == ".xml":
            return Fault(f"the XML begins with <{read_xml(path).tag}>", False)
        if path.suffix.lower() in SUFFIXES:
            return _csv_fault(path)
        return Fault(f"the first line, {read_lines(path)[0]!r:.80}, is not a label of YOLO (class cx cy w h)", False)
    except FileError as error:
        return Fault(error.text, True)


def _json_kind(value: Any) -> str:
    if not isinstance(value, dict):
        return f"the JSON is a {type(value).__name__}, and not a list of tasks of Label Studio"
    missing = [key for key in COCO_KEYS if key not in value]
    has = f"the JSON has the keys {', '.join(map(repr, islice(value, 8)))}"
    return f"{has}, but for COCO there is no {' and no '.join(map(repr, missing))}" if len(missing) < 3 else has


def _csv_fault(path: Path) -> Fault:
    try:
        images_of_csv(path)
    except DataError as error:
        return Fault(str(error).removeprefix(f"{path}: "), isinstance(error.__cause__, UnicodeError))
    return Fault("there is no row of an image", False)
