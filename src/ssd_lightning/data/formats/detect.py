"""Find out in which format a folder is, and which splits it has, by its files."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from ssd_lightning.data.formats.files import ARCHIVE_SUFFIXES, MissingSplitError, check_root
from ssd_lightning.data.formats.recognize import Candidate, candidates
from ssd_lightning.data.formats.split_choice import (
    describe_faults,
    distinct_splits,
    images_without_split,
    no_training_text,
    pick_splits_by_name,
    refuse_unread,
)
from ssd_lightning.data.formats.survey import Files, folder_of, survey
from ssd_lightning.data.formats.yolo_settings import SETTINGS_FILES
from ssd_lightning.data.image_suffixes import IMAGE_SUFFIXES
from ssd_lightning.data.split_annotations import AnnotationFormat, Annotations
from ssd_lightning.data.split_names import KIND_OF_WORD, SPLIT_NAMES, kind_of
from ssd_lightning.errors import DataError, listed, one_line

log = logging.getLogger(__name__)

LOOKED_FOR = (
    "data.yaml, obj.data or text files with five numbers a line (YOLO); ImageSets or XML with <annotation> (VOC); "
    "XML with <annotations> (CVAT); JSON with images, annotations and categories (COCO), with shapes and imagePath "
    "(labelme), with a list of tasks (Label Studio) or with regions (VIA); CSV with columns for image, class and box"
)
PARTS_OF_SETS = {*KIND_OF_WORD, "images", "JPEGImages", "labels", "Annotations", "annotations"}
"""Folders inside of a data set."""
ANNOTATION_SUFFIXES = (".xml", ".json", ".csv", ".tsv", ".data", ".yaml", ".yml")


@dataclass(frozen=True, kw_only=True)
class Detected:
    """What a folder was found to be."""

    format: AnnotationFormat
    root: Path
    """The folder, or the only one in it that has data: archives often have a folder around all files."""
    splits: Mapping[str, str]
    """Names of the splits for `train`, `val` and `test`, as far as there are any; they share no images."""
    without_training: str = ""
    """Why there is no split `train`; empty if there is one."""
    reason: str
    """A sentence that says what the folder was taken for, and why."""
    notes: Sequence[str] = ()
    """Warnings for the user."""


def detect_format(root: Path) -> Detected:
    """Find out the format and the splits of a folder. If several formats fit, the one with most images is taken.

    Raises `DataError` if no format fits, or the files of the one that fits cannot be read.
    """
    check_root(root)
    files = survey(root)
    inner = _inner_root(files)
    if inner is not None:
        found = detect_format(inner)
        return replace(found, notes=[*_images_beside(files, found), *found.notes])
    fitting = candidates(files)
    if not fitting:
        raise DataError(_nothing_fits(files))
    best = max(fitting, key=lambda one: one.num_images)
    names, twins, refused = distinct_splits(best.format, root, best.splits)
    splits = pick_splits_by_name(names)
    kinds = {*splits, *map(kind_of, [*names, *twins])}
    lost = images_without_split(files, kinds)
    train = splits.get("train")
    without_training = "" if train else no_training_text(root, names, images=lost.pop("train", ""), refused=refused)
    notes = [
        f"{root}: the splits '{name}' and '{train}' are the same files, as {min(names[train])}; '{name}' is not used"
        for name, twin in twins.items()
        if twin == train and kind_of(name) in ("val", "test") and best.name != "YOLO"  # its reader says so
    ]
    notes += [
        f"{root}: the split '{name}' is not used: {text}"
        for name, text in refused.items()
        if kind_of(name) not in {*kinds, None}
    ]
    used = frozenset().union(*(names[name] for name in splits.values()))
    shared = "are in another split too, so it is not used by itself"
    notes += [
        f"{root}: {len(of_split & used)} files of the split '{name}' {shared}"
        for name, of_split in names.items()
        if kind_of(name) in {"val", "test"} - {*splits} and of_split & used
    ]
    notes += refuse_unread(files, best, kinds)
    notes += [f"{root}: there is no split '{kind}', but {images}, which is not used" for kind, images in lost.items()]
    return Detected(
        format=best.format,
        root=root,
        splits=splits,
        without_training=without_training,
        reason=_reason(files, best, fitting, splits, unused=[name for name in names if name not in splits.values()]),
        notes=notes,
    )


def _reason(
    files: Files, best: Candidate, fitting: Sequence[Candidate], splits: Mapping[str, str], *, unused: Sequence[str]
) -> str:
    facts = [f"{'at least ' * files.is_cut}{best.num_images} images"]
    if splits:
        facts.append(", ".join(f"{key} '{name}'" for key, name in splits.items()))
    if unused:
        facts.append(f"not used: {listed(unused, 3)}")
    others = [f"{one.name} ({one.num_images} images)" for one in fitting if one is not best]
    also = f"; {' and '.join(others)} would fit too" if others else ""
    return f"{files.root} is read as {best.name}, since it has {best.why} ({'; '.join(facts)}){also}"


@dataclass(frozen=True, kw_only=True)
class Auto:
    """Looks at a folder and reads it in the format that fits. Its splits are called `train`, `val` and `test`."""

    _detected: dict[Path, Detected] = field(default_factory=dict, init=False, repr=False, compare=False)

    def read(self, root: Path, split: str) -> Annotations:
        """Read a split. Raises `DataError` if no format fits, there is no such split, or it cannot be read."""
        found, name = self.detect(root, split)
        annotations = found.format.read(found.root, name)
        return replace(annotations, notes=[*found.notes, *annotations.notes])

    def files(self, root: Path, split: str) -> Iterable[str]:
        """List the files of a split. Raises `DataError` if there is no such split."""
        found, name = self.detect(root, split)
        return found.format.files(found.root, name)

    def detect(self, root: Path, split: str) -> tuple[Detected, str]:
        """Return what a folder is, and its own name of a split. Raises `DataError` if there is no such split."""
        if root not in self._detected:
            self._detected[root] = detect_format(root)
            log.info("%s", one_line(self._detected[root].reason))
        found = self._detected[root]
        if split == "train" and found.without_training:
            raise DataError(found.without_training)
        if split in SPLIT_NAMES and split not in found.splits:
            raise MissingSplitError(found.root, split, found.splits.values())
        return found, found.splits.get(split, split)


def _inner_root(files: Files) -> Path | None:
    """Return the folder that is a data set of its own, if the root is only the folder around it.

    Raises `DataError` if there are several.
    """
    folders = set(map(folder_of, files.paths))
    roots = {found[1] or "" for folder in folders if (found := re.fullmatch("(?:(.+)/)?ImageSets(?:/Main)?", folder))}
    roots |= {folder_of(path) for path in files.of(".yaml", ".yml") if PurePosixPath(path).name in SETTINGS_FILES}
    if "" in roots:
        return None
    if len(roots) > 1:
        advice = "set data.root= to one of them, or list several in data.train="
        raise DataError(f"{files.root}: there are several data sets: {', '.join(sorted(roots))}; {advice}")
    if roots:
        return files.root / roots.pop()
    if "" in map(folder_of, files.of(*IMAGE_SUFFIXES, *ANNOTATION_SUFFIXES)):
        return None
    tops = {folder.partition("/")[0] for folder in folders if folder}
    return files.root / tops.pop() if len(tops) == 1 and not tops & PARTS_OF_SETS else None


def _images_beside(files: Files, found: Detected) -> list[str]:
    used = {Path(file).parent for split in found.splits.values() for file in found.format.files(found.root, split)}
    counts = Counter(folder_of(path) or "." for path in files.of(*IMAGE_SUFFIXES))
    beside = {
        folder: count
        for folder, count in counts.items()
        if not (files.root / folder).is_relative_to(found.root) and (files.root / folder).resolve() not in used
    }
    if not beside:
        return []
    shown = listed((f"{count} images in {folder}" for folder, count in beside.items()), 3)
    return [f"{files.root}: only {found.root} is read; not read: {shown}; data.train= uses several sets together"]


def _nothing_fits(files: Files) -> str:
    entries = sorted(path for path in files.root.iterdir() if not path.name.startswith("."))
    archive = next(iter(files.of(*ARCHIVE_SUFFIXES)), None)
    unpack = f"; unpack {files.root / archive} first" if archive else ""
    there_is = listed((f"{path.name}/" if path.is_dir() else path.name for path in entries), 12) or "nothing"
    faults = "".join(f". {fault}" for fault in describe_faults(files))
    return f"{files.root}: no format fits{unpack}. Looked for: {LOOKED_FOR}. There is: {there_is}{faults}"
