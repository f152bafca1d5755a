"""Find out in which format a folder is, and which splits it has, by its files."""

import codecs
import logging
import mmap
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from ssd_lightning.data.annotations import Annotations
from ssd_lightning.data.formats.coco import COCO
from ssd_lightning.data.formats.csv_boxes import CSV, open_rows, read_columns
from ssd_lightning.data.formats.cvat import CVAT
from ssd_lightning.data.formats.files import (
    ARCHIVE_SUFFIXES,
    SPLIT_FOLDERS,
    MissingSplitError,
    check_root,
    encoding_of,
    find_file,
)
from ssd_lightning.data.formats.label_studio import LabelStudio, read_tasks
from ssd_lightning.data.formats.labelme import LabelMe
from ssd_lightning.data.formats.voc import VOC, find_list
from ssd_lightning.data.formats.yolo import YOLO
from ssd_lightning.data.formats.yolo_settings import NAMES_FILES, SETTINGS_FILES, Settings, read_settings
from ssd_lightning.data.image_suffixes import IMAGE_SUFFIXES
from ssd_lightning.data.special_files import is_file
from ssd_lightning.errors import DataError

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from ssd_lightning.data.reading import AnnotationFormat

SPLIT_NAMES = {
    "val": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test", "testing"),
    "train": ("train", "training", "trainval", "."),
}
"""What splits are called; the first that a folder has is used."""
EVALUATED = {*SPLIT_NAMES["val"], *SPLIT_NAMES["test"]}
LOOKED_FOR = (
    "data.yaml, obj.data or text files with five numbers a line (YOLO); ImageSets or XML with <annotation> (VOC); "
    "XML with <annotations> (CVAT); JSON with images, annotations and categories (COCO), with shapes and imagePath "
    "(labelme) or with a list of tasks (Label Studio); CSV with columns for image, class and box"
)
PARTS_OF_SETS = {*SPLIT_FOLDERS, "images", "JPEGImages", "labels", "Annotations", "annotations"}
"""Folders inside of a data set."""
ANNOTATION_SUFFIXES = (".xml", ".json", ".csv", ".data", ".yaml", ".yml")
DEEPEST = 5
"""Levels of folders that are searched."""
NUM_SAMPLES = 20
"""Files of a folder that are opened; the others of the same suffix are taken for the same."""
MAX_ROWS = 200_000
"""Rows of a CSV file that are counted."""


@dataclass(frozen=True, kw_only=True)
class Detected:
    """What a folder was found to be."""

    format: "AnnotationFormat"
    root: Path
    """The folder, or the only one in it that has data: archives often have a folder around all files."""
    splits: Mapping[str, str]
    """Names of the splits for `train`, `val` and `test`, as far as there are any; they share no images."""
    reason: str
    """A sentence that says what the folder was taken for, and why."""
    notes: Sequence[str] = ()
    """Warnings for the user."""


def detect_format(root: Path) -> Detected:
    """Find out the format and the splits of a folder. If several formats fit, the one with most images is taken.

    Raises `DataError` if no format fits, or the files of the one that fits cannot be read, or it is not clear which of
    several splits is for training.
    """
    check_root(root)
    files = _survey(root)
    inner = _inner_root(files)
    if inner is not None:
        found = detect_format(inner)
        return replace(found, notes=[*_images_beside(files, inner), *found.notes])
    guesses = _guesses(files)
    if not guesses:
        raise DataError(_nothing_fits(files))
    best = max(guesses, key=lambda guess: guess.num_images)
    names, twins = _distinct_splits(best.format, root, best.splits)
    splits = _choose_splits(root, names)
    shown = ", ".join(f"{key} '{name}'" for key, name in splits.items())
    unused = [name for name in names if name not in splits.values()]
    shown += f"; not used: {', '.join(unused[:3])}{', ...' * (len(unused) > 3)}" if unused else ""
    others = [f"{_name_of(guess)} ({guess.num_images} images)" for guess in guesses if guess is not best]
    also = f"; {' and '.join(others)} would fit too" if others else ""
    reason = f"{root} is read as {_name_of(best)}, since it has {best.why} ({best.num_images} images; {shown}){also}"
    train = splits["train"]
    notes = [
        f"{root}: the splits '{name}' and '{train}' are the same files, as {min(names[train])}; '{name}' is not used"
        for name, twin in twins.items()
        if twin == train and EVALUATED.intersection(_words(name)) and _name_of(best) != "YOLO"  # whose reader says so
    ]
    return Detected(format=best.format, root=root, splits=splits, reason=reason, notes=notes)


@dataclass(frozen=True, kw_only=True)
class Auto:
    """Looks at a folder and reads it in the format that fits. Its splits are called `train`, `val` and `test`."""

    _detected: dict[Path, Detected] = field(default_factory=dict, init=False, repr=False, compare=False)

    def read(self, root: Path, split: str) -> Annotations:
        """Read a split. Raises `DataError` if no format fits, there is no such split, or it cannot be read."""
        found, name = self._detect(root, split)
        annotations = found.format.read(found.root, name)
        return replace(annotations, notes=[*found.notes, *annotations.notes])

    def files(self, root: Path, split: str) -> Iterable[str]:
        """List the files of a split. Raises `DataError` if there is no such split."""
        found, name = self._detect(root, split)
        return found.format.files(found.root, name)

    def _detect(self, root: Path, split: str) -> tuple[Detected, str]:
        """Return what a folder is, and its own name of a split."""
        if root not in self._detected:
            self._detected[root] = detect_format(root)
            log.info("%s", self._detected[root].reason)
        found = self._detected[root]
        if split in SPLIT_NAMES and split not in found.splits:
            raise MissingSplitError(found.root, split, found.splits.values())
        return found, found.splits.get(split, split)


class _Guess(NamedTuple):
    format: "AnnotationFormat"
    splits: Sequence[str]
    num_images: int
    why: str


def _name_of(guess: _Guess) -> str:
    return type(guess.format).__name__


@dataclass(frozen=True)
class _Files:
    """The files below a root, as paths relative to it, those nearest to it first."""

    root: Path
    paths: Sequence[str]

    def of(self, *suffixes: str) -> list[str]:
        return [path for path in self.paths if path.lower().endswith(suffixes)]

    def of_kind(self, suffix: str, kind_of: Callable[[Path], str | None]) -> dict[str, list[str]]:
        """Sort the files of a suffix by kind. Of many files in a folder only some are opened."""
        found: dict[str, list[str]] = defaultdict(list)
        for _, paths in groupby(self.of(suffix), key=_folder_of):
            last, num_known = None, 0
            for path in paths:
                kind = kind_of(self.root / path) if num_known < NUM_SAMPLES else last
                if kind is not None:
                    last, num_known = kind, num_known + 1
                    found[kind].append(path)
        return found


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def _survey(root: Path) -> _Files:
    paths: list[str] = []
    for folder, folders, names in os.walk(root, followlinks=True):
        inner = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if inner == "." else f"{inner}/"
        is_deepest = prefix.count("/") >= DEEPEST
        folders[:] = [] if is_deepest else [name for name in folders if not name.startswith((".", "__"))]
        paths += [prefix + name for name in names if not name.startswith(".") and is_file(Path(folder, name))]
    return _Files(root, sorted(paths, key=lambda path: (path.count("/"), _folder_of(path), path)))


def _inner_root(files: _Files) -> Path | None:
    """Return the folder that is a data set of its own, if the root is only the folder around it.

    Raises `DataError` if there are several.
    """
    folders = set(map(_folder_of, files.paths))
    roots = {found[1] or "" for folder in folders if (found := re.fullmatch("(?:(.+)/)?ImageSets(?:/Main)?", folder))}
    roots |= {_folder_of(path) for path in files.of(".yaml", ".yml") if PurePosixPath(path).name in SETTINGS_FILES}
    if "" in roots:
        return None
    if len(roots) > 1:
        several = f"there are several data sets: {', '.join(sorted(roots))}; set data.root= to one of them"
        raise DataError(f"{files.root}: {several}")
    if roots:
        return files.root / roots.pop()
    if "" in map(_folder_of, files.of(*IMAGE_SUFFIXES, *ANNOTATION_SUFFIXES)):
        return None
    tops = {folder.partition("/")[0] for folder in folders if folder}
    return files.root / tops.pop() if len(tops) == 1 and not tops & PARTS_OF_SETS else None


def _images_beside(files: _Files, inner: Path) -> list[str]:
    counts = Counter(_folder_of(path) or "." for path in files.of(*IMAGE_SUFFIXES))
    beside = {folder: count for folder, count in counts.items() if not (files.root / folder).is_relative_to(inner)}
    if not beside:
        return []
    shown = ", ".join(f"{count} images in {folder}" for folder, count in islice(beside.items(), 3))
    more = f" and more in {len(beside) - 3} other folders" if len(beside) > 3 else ""
    return [f"{files.root}: only {inner} is read; not read: {shown}{more}; data.train= uses several sets together"]


def _guesses(files: _Files) -> list[_Guess]:
    """Return what fits. The first wins among equals: label files of YOLO alone may lack the names of the classes."""
    root, settings = files.root, read_settings(files.root)
    xml = files.of_kind(".xml", _xml_kind)
    json_files = files.of_kind(".json", _json_kind)
    coco = {path: len(re.findall(rb'"file_name"', _content(root / path))) for path in json_files["coco"]}
    label_studio = {path: _count_tasks(root / path) for path in json_files["label studio"]}
    tables = {path: count for path in files.of(".csv") if (count := _count_csv_images(root / path))}
    descriptions = next((path for path in files.of(".csv") if "class-descriptions" in path), None)
    yolo = _guess_yolo(files, settings)
    guesses = (
        yolo if settings.values else None,
        _guess_voc(root, xml["annotation"]),
        _guess_cvat(root, xml["annotations"]),
        _guess_single_files(COCO(), root, coco, "JSON of COCO"),
        _guess_folders(LabelMe(), json_files["labelme"], "labelme's JSON files"),
        _guess_single_files(LabelStudio(), root, label_studio, "JSON of Label Studio"),
        _guess_single_files(CSV(class_descriptions=descriptions), root, tables, "CSV with boxes"),
        yolo if not settings.values else None,
    )
    return [guess for guess in guesses if guess is not None]


def _guess_yolo(files: _Files, settings: Settings) -> _Guess | None:
    labels = files.of_kind(".txt", _txt_kind)["labels"]
    if not settings.values and not labels:
        return None
    folders = set(map(_folder_of, labels))
    of_folders = ["/".join(part for part in folder.split("/") if part != "labels") or "." for folder in folders]
    splits = [key for key in ("train", "val", "test") if settings.values.get(key)] + sorted(of_folders)
    why = settings.path.name if settings.values else f"text files such as {labels[0]}"
    in_folders = [path for path in files.of(".txt") if _folder_of(path) in folders]  # some may be empty
    num_images = sum(PurePosixPath(path).name not in NAMES_FILES for path in in_folders)
    return _Guess(YOLO(), splits, num_images, why)


def _txt_kind(path: Path) -> str | None:
    is_label = re.match(rb"\d+(?:[ \t]+[-+.\deE]+){4,}\s*?(\n|$)", _start(_content(path)))
    return "labels" if is_label and path.name not in NAMES_FILES else None


def _guess_voc(root: Path, paths: Sequence[str]) -> _Guess | None:
    lists = find_list(root, "")
    if lists is not None:
        names = sorted(path.stem for path in lists.parent.glob("*.txt"))
        splits = [name for name in names if not name.endswith(tuple(f"_{other}" for other in names))]  # not cat_train
        return _Guess(VOC(), splits, len(paths), lists.parent.relative_to(root).as_posix())
    guess = _guess_folders(VOC(), paths, "XML files")
    if guess is None:
        return None
    return guess._replace(splits=[re.sub("^(annotations|labels)/", "", split, flags=re.I) for split in guess.splits])


def _guess_folders(annotation_format: VOC | LabelMe, paths: Sequence[str], what: str) -> _Guess | None:
    """Describe a format with a file for each image, and a folder for each split."""
    splits = list(dict.fromkeys(map(_split_folder, paths)))
    return _Guess(annotation_format, splits, len(paths), f"{what} such as {paths[0]}") if paths else None


def _split_folder(path: str) -> str:
    """Return the folder that is the split of a file: up to the first part with the name of a split."""
    parts = PurePosixPath(path).parent.parts
    names = [re.sub(r"\d{4}$", "", part.lower()) for part in parts]  # train2017
    number = next((number for number, name in enumerate(names, start=1) if name in SPLIT_FOLDERS), 0)
    return "/".join(parts[:number]) or "."


def _xml_kind(path: Path) -> str | None:
    found = re.search(rb"<(annotations?)[\s>]", _start(_content(path)), re.IGNORECASE)
    return found[1].decode().lower() if found else None


def _guess_cvat(root: Path, paths: Sequence[str]) -> _Guess | None:
    counts = {path: len(re.findall(rb"<image\s", _content(root / path))) for path in paths}
    guess = _guess_single_files(CVAT(), root, counts, "XML with <annotations>")
    if guess is None or "annotations.xml" not in paths:
        return guess
    found = re.findall(rb'<image\s[^>]*\ssubset="([^"]+)"', _content(root / "annotations.xml"))
    subsets = {subset.decode(errors="replace") for subset in found}
    if len(subsets) < 2:
        return guess
    return guess._replace(splits=[*subsets, *(split for split in guess.splits if split != ".")])


def _json_kind(path: Path) -> str | None:
    """Tell by its keys what a JSON file is. Files of 500 MB are not parsed for that."""
    content = _content(path)

    def has(*keys: str) -> bool:
        return all(content.find(b'"%s"' % key.encode()) >= 0 for key in keys)

    if _start(content).startswith(b"["):
        is_full = has("data", "annotations") or has("data", "completions")
        return "label studio" if is_full or has("original_width") or has("annotation_id", "annotator") else None
    if has("shapes", "imagePath"):
        return "labelme"
    return "coco" if has("images", "annotations", "categories") else None


def _guess_single_files(
    annotation_format: COCO | CSV | CVAT | LabelStudio, root: Path, counts: Mapping[str, int], what: str
) -> _Guess | None:
    """Describe a format by the number of images in each of its files."""
    if not counts:
        return None
    splits = sorted((_split_of(path, root, annotation_format.locations) for path in counts), key=counts.__contains__)
    return _Guess(annotation_format, splits, sum(counts.values()), f"{what}, {next(iter(counts))}")


def _split_of(path: str, root: Path, patterns: Sequence[str]) -> str:
    """Name the split of a file: by the usual location of the file, else by its path."""
    known = [re.fullmatch(re.escape(pattern).replace(r"\{split\}", "(.+)"), path) for pattern in patterns]
    for name in (".", *(found[1] for found in known if found)):
        try:
            if find_file(root, name, patterns) == root / path:
                return name
        except MissingSplitError:
            continue
    return path


def _count_tasks(path: Path) -> int:
    try:
        return len(read_tasks(path).tasks)
    except DataError:
        return 0  # the reader reports the error


def _count_csv_images(path: Path) -> int:
    """Count the images of a CSV file; 0 if it has no boxes."""
    try:
        with open_rows(path) as reader:
            columns, rows = read_columns(reader, path)
            return len({row[columns.image] for row in islice(rows, MAX_ROWS) if len(row) > columns.image})
    except DataError:
        return 0


def _start(content: "bytes | mmap.mmap") -> bytes:
    return content[:4096].removeprefix(codecs.BOM_UTF8).lstrip()


def _content(path: Path) -> "bytes | mmap.mmap":
    """Return what a file has as UTF-8, mapped into memory; nothing if it cannot be read."""
    try:
        with path.open("rb") as stream:
            if encoding_of(stream.read(2)) == "utf-16":
                return path.read_bytes().decode("utf-16").encode()
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # ValueError: the file is empty
        return b""


def _distinct_splits(
    annotation_format: "AnnotationFormat", root: Path, names: Iterable[str]
) -> tuple[dict[str, frozenset[str]], dict[str, str]]:
    """Return the files of each split, without splits of the same files as an earlier one, and what these are called.

    Raises `DataError` if the training split, or every one, cannot be read.
    """
    usual = [*SPLIT_NAMES["train"], *SPLIT_NAMES["val"], *SPLIT_NAMES["test"]]  # in ImageSets, cat_train is like train
    by_use = sorted(dict.fromkeys(names), key=lambda name: usual.index(name.lower()) if name.lower() in usual else 99)
    found: dict[str, frozenset[str]] = {}
    twins: dict[str, str] = {}
    error = DataError(f"{root}: there is no split")
    for name in by_use:
        try:
            files = frozenset(annotation_format.files(root, name))
        except DataError as refused:
            if name.lower() in SPLIT_NAMES["train"]:
                raise
            error = refused
            continue
        twin = next((other for other, of_other in found.items() if of_other == files), None)
        if twin is not None:
            twins[name] = twin
        elif files:
            found[name] = files
    if not found:
        raise error
    return found, twins


def _choose_splits(root: Path, files: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """Return the splits for training, validation and test, which share no files, from the files of each.

    Raises `DataError` if it is not clear which of several is for training.
    """
    left = list(files)
    if len(left) == 1:
        return {"train": left[0]}
    chosen: dict[str, str] = {}
    for kind, known in SPLIT_NAMES.items():
        exact = (name for word in known for name in left if name.lower() == word)
        similar = (name for word in known for name in left if word in _words(name))  # instances_val.json, val2017
        name = next(chain(exact, similar), None)
        if name is not None:
            chosen[kind] = name
            left.remove(name)
    if "train" not in chosen and len(left) != 1:
        raise DataError(f"{root}: the splits are {', '.join(files)}; set data.train_split= to one of them")
    splits = {"train": chosen.get("train") or left[0]}
    for kind in ("val", "test"):
        used = frozenset().union(*(files[name] for name in splits.values()))
        if kind in chosen and used.isdisjoint(files[chosen[kind]]):  # trainval contains val
            splits[kind] = chosen[kind]
    return splits


def _words(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", name.lower().removesuffix(PurePosixPath(name).suffix.lower()))


def _nothing_fits(files: _Files) -> str:
    entries = sorted(path for path in files.root.iterdir() if not path.name.startswith("."))
    shown = [f"{path.name}/" if path.is_dir() else path.name for path in entries[:12]]
    more = f" and {len(entries) - 12} more" if len(entries) > 12 else ""
    archive = next(iter(files.of(*ARCHIVE_SUFFIXES)), None)
    unpack = f"; unpack {files.root / archive} first" if archive else ""
    there_is = ", ".join(shown) or "nothing"
    return f"{files.root}: no format fits{unpack}. Looked for: {LOOKED_FOR}. There is: {there_is}{more}"
