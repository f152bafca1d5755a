"""Read the splits of a data set, choose the images, objects and classes of a run, and open them."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from ssd_lightning.data.annotation_cache import read_cached
from ssd_lightning.data.annotation_checks import check_class_names, unknown_class_text
from ssd_lightning.data.annotations import (
    Annotations,
    AnnotationTable,
    Columns,
    Problem,
    TextColumn,
    hash_ids,
)
from ssd_lightning.data.dataset import DetectionDataset, Transform, shortened
from ssd_lightning.data.formats.files import check_root
from ssd_lightning.errors import ConfigurationError, DataError

log = logging.getLogger(__name__)

Subset = Literal["all", "train", "val", "test"]
OnError = Literal["raise", "skip", "clip"]


class AnnotationFormat(Protocol):
    """Reads the annotations of one format. Its settings are fields of a dataclass, so that `repr` names them all."""

    def read(self, root: Path, split: str) -> Annotations:
        """Read a split of an existing folder."""
        ...

    def files(self, root: Path, split: str) -> Iterable[str]:
        """List the files of a split, to tell splits apart. Raises `DataError` if there is no such split."""
        ...


@dataclass(frozen=True, kw_only=True)
class ClassRules:
    """Which classes of the files are used, and under which names.

    Args:
        exclude: classes whose objects are not used.
        merge: new name -> the classes that it replaces.
        rename: class -> its new name.

    Raises:
        ConfigurationError: a class has two rules.
    """

    exclude: Sequence[str] = ()
    merge: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ruled = [*self.exclude, *self.rename, *(name for names in self.merge.values() for name in names)]
        twice = sorted({name for name in ruled if ruled.count(name) > 1})
        if twice:
            raise ConfigurationError(
                f"data.exclude_classes, merge_classes and rename_classes have more than one rule for '{twice[0]}'"
            )

    def __call__(self, name: str) -> str | None:
        """Return the name under which a class is used; None if it is excluded."""
        if name in self.exclude:
            return None
        return next((new for new, names in self.merge.items() if name in names), self.rename.get(name, name))

    def check(self, names: Sequence[str]) -> None:
        """Check that the data have every class with a rule.

        Raises:
            DataError: they do not.
        """
        ruled = [*self.exclude, *self.rename, *(name for group in self.merge.values() for name in group)]
        for name in ruled:
            if name not in names:
                raise DataError(
                    f"data.exclude_classes, merge_classes or rename_classes names '{name}', which "
                    + unknown_class_text(name, names)
                )


@dataclass(frozen=True, kw_only=True)
class DatasetOpener:
    """Opens splits of one format, or of several.

    Args:
        format: reader of all splits that name no `format` of their own.
        on_error: `raise` stops at the first bad object or image. `skip` drops the object, or the image where nothing of
            it can be used, and lists them in `dropped` and in a warning. `clip` is like `skip`, but keeps the part
            inside of the image of boxes that reach out of it.
        max_images: use only the first images of a split, up to this number.
        classes: which classes are used, under which names.
        cache_folder: local folder of read annotations, which processes and later runs share; None reads them each time.

    Raises:
        ConfigurationError: `on_error` has an invalid value.
    """

    format: AnnotationFormat
    on_error: OnError = "raise"
    max_images: int | None = None
    classes: ClassRules = field(default_factory=ClassRules)
    cache_folder: str | Path | None = None
    _found: dict[Any, Annotations] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What was read, since training and validation are often parts of one split."""

    def __post_init__(self) -> None:
        if self.on_error not in get_args(OnError):
            raise ConfigurationError(f"on_error={self.on_error!r}; it is one of {get_args(OnError)}")

    def __call__(
        self,
        *,
        splits: Sequence[Mapping[str, Any]],
        class_names: Sequence[str] | None = None,
        transform: Transform | None = None,
        seed: int = 0,
        keep_difficult: bool = True,
        part: Subset = "all",
        val_fraction: float = 0.0,
        test_fraction: float = 0.0,
    ) -> DetectionDataset:
        """Open some splits as one data set.

        Args:
            splits: each a `root` and a `split`, whose meaning depends on the format, and optionally a `format`.
            class_names: names of the classes 1..C; None takes those of the files.
            transform: see `DetectionDataset`.
            seed: see `DetectionDataset`.
            keep_difficult: False skips and counts crowds and difficult objects.
            part: `train`, `val` and `test` are disjoint parts of the data, `all` is the whole set.
            val_fraction: share of the images that `val` holds, chosen by their ids. A class that this would leave out
                of `val` gives it one more image, where training keeps another.
            test_fraction: share of the images that `test` holds.

        Raises:
            ConfigurationError: `part` or a fraction has an invalid value.
            DataError: a root, split, image or annotation is missing or unusable; class names are empty or repeated; no
                image is left.
        """
        found = self.read(splits)
        for note in found.notes:
            log.warning("%s", note)
        chosen = self.choose(
            found,
            class_names=class_names,
            keep_difficult=keep_difficult,
            part=part,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
        )
        if self.on_error == "raise" and chosen.problems:
            raise DataError(_first(chosen.problems))
        dataset = DetectionDataset(
            annotations=chosen.table,
            class_names=chosen.class_names,
            transform=transform,
            seed=seed,
            dropped=chosen.problems,
            num_skipped=chosen.num_skipped,
        )
        if self.on_error != "raise":
            dataset.drop_unreadable()
        if dataset.dropped:
            log.warning(
                "skipped %d objects or images:\n  %s", len(dataset.dropped), shortened(map(str, dataset.dropped))
            )
        if dataset.skipped:
            log.info("%s", dataset.skipped)
        if not len(dataset):
            hint = "; in a small set a larger data.val_fraction= holds some" if part == "val" else ""
            raise DataError(
                f"no image is left in part '{part}' (val_fraction={val_fraction}; {len(dataset.dropped)} skipped){hint}"
            )
        return dataset

    def files(self, place: Mapping[str, Any]) -> frozenset[str]:
        """List the files of a split, to tell splits apart; empty if there is no such split."""
        (root,) = absolute_roots([place])
        try:
            check_root(root)
            return frozenset(place.get("format", self.format).files(root, place["split"]))
        except (DataError, OSError):
            return frozenset()

    def read(self, splits: Sequence[Mapping[str, Any]]) -> Annotations:
        """Read all annotations of some splits.

        Raises:
            DataError: a root or split is missing, or a file that all images share cannot be read.
        """
        roots = absolute_roots(splits)
        for root in dict.fromkeys(roots):
            check_root(root)
        names = [split["split"] for split in splits]
        formats = [split.get("format", self.format) for split in splits]
        key = tuple(zip(map(repr, formats), roots, names, strict=True))
        if key not in self._found:
            found = [read_cached(*one, folder=self.cache_folder) for one in zip(formats, roots, names, strict=True)]
            self._found[key] = join(found, roots, names)
        return self._found[key]

    def choose(
        self,
        found: Annotations,
        *,
        class_names: Sequence[str] | None,
        keep_difficult: bool = True,
        part: Subset = "all",
        val_fraction: float = 0.0,
        test_fraction: float = 0.0,
    ) -> "Chosen":
        """Choose images, objects and classes; for the arguments see `__call__`."""
        if part not in get_args(Subset) or not 0 <= val_fraction <= 1 or not 0 <= test_fraction <= 1:
            raise ConfigurationError(
                f"part={part!r}, val_fraction={val_fraction!r}, test_fraction={test_fraction!r}: part is one of "
                f"{get_args(Subset)}, and the fractions are numbers from 0 to 1"
            )
        class_names, label_map = map_labels(found, class_names, self.classes)
        table = AnnotationTable(found.columns)
        held = hold_out(found.columns, label_map, val_fraction=val_fraction, test_fraction=test_fraction)
        in_part = _in_part(found.columns.id_hashes, held, part, val_fraction, test_fraction)
        rows = np.flatnonzero(in_part)[: self.max_images]
        if len(rows) < len(table):
            table = table.select(rows)
        labels = label_map[found.columns.labels]
        keeps = labels > 0
        if self.on_error != "clip":
            keeps &= ~found.columns.overhangs
        num_skipped = 0
        is_chosen = np.zeros(len(in_part), bool)
        is_chosen[rows] = True
        of_chosen = np.repeat(is_chosen, np.diff(found.columns.starts))
        if not keep_difficult:
            num_skipped = int((of_chosen & found.columns.difficult & (labels != EXCLUDED)).sum())
            keeps &= ~found.columns.difficult
        unknown = np.flatnonzero((labels == 0) & of_chosen & (keep_difficult | ~found.columns.difficult))
        problems = [
            found.problem(
                row,
                name=(name := found.names[found.columns.labels[row] - 1]),
                kind="unknown_class",
                text=unknown_class_text(name, class_names),
            )
            for row in unknown.tolist()
        ]
        last = int(rows[-1]) if self.max_images is not None and len(rows) == self.max_images else len(in_part)
        for problem in found.problems:
            is_used = label_map[problem.label] != EXCLUDED if problem.label else True
            is_kept = is_used and (keep_difficult or not problem.difficult)
            if is_kept and problem.position <= last and not (problem.is_clipped and self.on_error == "clip"):
                image_id = problem.image_id
                if image_id is None or _in_part(hash_ids([image_id]), None, part, val_fraction, test_fraction).all():
                    problems.append(problem)
        problems.sort(key=lambda problem: problem.position)
        if self.on_error == "clip":
            clipped = int((found.columns.overhangs & keeps & of_chosen).sum())
            if clipped:
                log.warning("%d boxes reach out of their images and are clipped", clipped)
        is_same = (label_map == np.arange(len(label_map))).all()
        if is_same and keeps.all():
            return Chosen(table, class_names, problems, num_skipped)
        table = table.with_objects(None if keeps.all() else keeps, None if is_same else label_map)
        return Chosen(table, class_names, problems, num_skipped)


@dataclass(frozen=True)
class Chosen:
    """The images and objects of a run."""

    table: AnnotationTable
    class_names: tuple[str, ...]
    problems: list[Problem]
    num_skipped: int
    """Crowds and difficult objects that were skipped on request."""


EXCLUDED = -1
"""Label of objects whose class a rule excludes."""


def map_labels(
    found: Annotations, class_names: Sequence[str] | None, rules: ClassRules
) -> tuple[tuple[str, ...], np.ndarray]:
    """Number the classes of a run.

    Args:
        found: the annotations.
        class_names: names of the classes 1..C; None takes those of the files.
        rules: which classes are used, under which names.

    Returns:
        The names of the classes, and the new label of each label: 0 for an unknown class, -1 for an excluded one.

    Raises:
        DataError: names are missing, empty or repeated, or a rule names no class of the data.
    """
    names: list[str] = list(found.names)
    if found.is_numbered:
        if class_names is None:
            raise DataError(f"{' and '.join(found.roots)}: the files name no classes; give data.class_names")
        check_class_names(class_names)
        numbered = dict(enumerate(class_names))
        names = [numbered.get(int(name), name) if name.isdecimal() else name for name in names]
    else:
        rules.check(names)
    used = [rules(name) for name in names]
    if class_names is None:
        declared = dict.fromkeys(name for name in used[: found.num_declared] if name)
        class_names = list(declared) if found.is_listed else sorted(declared)
        if not class_names:
            raise DataError(f"no object in {' and '.join(found.roots)} has a class name; give data.class_names")
    check_class_names(class_names)
    labels = {name: label for label, name in enumerate(class_names, start=1)}
    label_map = [EXCLUDED if name is None else labels.get(name, 0) for name in used]
    return tuple(class_names), np.array([0, *label_map], np.int64)


def hold_out(columns: Columns, label_map: np.ndarray, *, val_fraction: float, test_fraction: float = 0.0) -> np.ndarray:
    """Choose the images of the validation part: bool `[N]`.

    The hash of an image's id decides, so that reordered lists and new images do not change it. A class without an
    image in the part then gives it the image of the smallest hash, if training keeps an image of each of its classes,
    until the part has twice the stated share.
    """
    hashes = columns.id_hashes / 2**32
    held = hashes < val_fraction
    is_tested = ~held & (hashes < val_fraction + test_fraction)
    if not 0 < val_fraction < 1 or not len(held):
        return held
    labels = label_map[columns.labels].clip(0)
    image = np.repeat(np.arange(len(held)), np.diff(columns.starts))
    num_labels = int(label_map.max(initial=0)) + 1
    in_validation = np.bincount(labels[held[image]], minlength=num_labels)
    if (in_validation[np.bincount(labels, minlength=num_labels) > 0] > 0).all():
        return held
    pairs = np.unique(np.stack([labels, image], 1)[(labels > 0) & ~is_tested[image]], axis=0)  # class, image
    in_training = np.bincount(pairs[~held[pairs[:, 1]], 0], minlength=num_labels)
    in_validation = np.bincount(pairs[held[pairs[:, 1]], 0], minlength=num_labels)
    for label in np.flatnonzero((in_validation == 0) & (in_training > 1)).tolist():
        if in_validation[label]:  # came with an image of an earlier class
            continue
        if held.sum() >= 2 * val_fraction * len(held):
            break
        candidates = pairs[pairs[:, 0] == label, 1]
        for candidate in candidates[np.argsort(hashes[candidates], kind="stable")].tolist():
            classes = pairs[pairs[:, 1] == candidate, 0]
            if not held[candidate] and (in_training[classes] > 1).all():
                held[candidate] = True
                in_training[classes] -= 1
                in_validation[classes] += 1
                break
    return held


def _in_part(
    id_hashes: np.ndarray, held: np.ndarray | None, part: Subset, val_fraction: float, test_fraction: float
) -> np.ndarray:
    hashes = id_hashes / 2**32
    held = hashes < val_fraction if held is None else held
    is_tested = ~held & (hashes < val_fraction + test_fraction) & (hashes >= val_fraction)
    return {"all": np.ones(len(hashes), bool), "val": held, "test": is_tested, "train": ~held & ~is_tested}[part]


def join(found: Sequence[Annotations], roots: Sequence[Path], splits: Sequence[str]) -> Annotations:
    """Join the annotations of several splits. Classes of one name become one.

    With several roots, the images' ids start with the root's folder: VOC2007/000005. With several splits of a root they
    also start with the split, unless ids are shared: then an image in several splits comes once.

    Args:
        found: annotations of each split.
        roots: root of each.
        splits: name of each.
    """
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigurationError("there is no split to open; give splits")
    prefixes = root_prefixes(roots)
    declared = [name for one in found if one.is_listed for name in one.names[: one.num_declared]]
    declared += sorted({name for one in found if not one.is_listed for name in one.names} - set(declared))
    names = list(dict.fromkeys([*declared, *(name for one in found for name in one.names)]))
    labels = {name: label for label, name in enumerate(names, start=1)}
    seen: set[str] = set()
    tables, ids, problems = [], [], []
    before = 0
    for one, root, split in zip(found, roots, splits, strict=True):
        inner = f"{split}/" if roots.count(root) > 1 and not one.ids_are_shared else ""
        prefix = f"{prefixes[root]}{inner}"
        of_split = [prefix + image_id for image_id in AnnotationTable(one.columns).image_ids]
        is_new = np.array([image_id not in seen for image_id in of_split], bool)
        known = set(seen)
        seen.update(of_split)
        ids += [image_id for image_id, new in zip(of_split, is_new, strict=True) if new]
        label_map = np.array([0, *(labels[name] for name in one.names)], np.int64)
        tables.append((AnnotationTable(one.columns, label_map=label_map).select(is_new), one.columns))
        for problem in one.problems:
            image_id = None if problem.image_id is None else prefix + problem.image_id
            if image_id is None or image_id not in known:
                seen.update([image_id] if image_id else [])
                label = int(label_map[problem.label])
                position = before + int(is_new[: problem.position].sum())
                problems.append(replace(problem, image_id=image_id, label=label, position=position))
        before += int(is_new.sum())
    objects = [table.objects() for table, _ in tables]
    return Annotations(
        columns=Columns(
            image_ids=TextColumn.of(ids),
            image_paths=TextColumn.of(path for table, _ in tables for path in table.image_paths),
            files=TextColumn.of(
                columns.files[row if len(columns.files) > 1 else 0] for table, columns in tables for row in table.rows
            ),
            id_hashes=hash_ids(ids),
            sizes_px=np.concatenate([table.sizes_px for table, _ in tables]),
            starts=np.concatenate([[0], np.cumsum(np.concatenate([table.counts for table, _ in tables]))]),
            boxes_xyxy_px=np.concatenate([one.boxes_xyxy_px for one in objects]),
            labels=np.concatenate([one.labels for one in objects]).astype(np.int32),
            difficult=np.concatenate([one.difficult for one in objects]),
            overhangs=np.concatenate([c.overhangs[one.row] for one, (_, c) in zip(objects, tables, strict=True)]),
            items=np.concatenate([c.items[one.row] for one, (_, c) in zip(objects, tables, strict=True)]),
        ),
        names=names,
        num_declared=len(declared),
        is_listed=any(one.is_listed for one in found),
        is_numbered=all(one.is_numbered for one in found),
        item_format=found[0].item_format,
        problems=problems,
        notes=[note for one in found for note in one.notes],
        roots=[*dict.fromkeys(root for one in found for root in one.roots)],
    )


def _first(problems: Sequence[Problem]) -> str:
    first, more = problems[0], f"; there are {len(problems) - 1} more problems" if len(problems) > 1 else ""
    if not first.item:
        return f"{first}{more}"
    clip = ", clip keeps the part inside of the image" if first.is_clipped else ""
    return f"{first} (on_error=skip drops such objects{clip}){more}"


def absolute_roots(splits: Sequence[Mapping[str, str]]) -> list[Path]:
    """Return the root of every split as an absolute path, with links unresolved."""
    return [Path(os.path.abspath(Path(split["root"]).expanduser())) for split in splits]


def root_prefixes(roots: Sequence[Path]) -> dict[Path, str]:
    """Return the prefix of the image ids of every root: empty for one root, else its folder's name."""
    distinct = set(roots)
    if len(distinct) <= 1:
        return dict.fromkeys(distinct, "")
    # VOC2007 and VOC2012 need one folder name; a/VOC2007 and b/VOC2007 need two.
    for depth in range(1, max(len(root.parts) for root in distinct) + 1):
        prefixes = {root: "/".join(root.parts[-depth:]) + "/" for root in distinct}
        if len(set(prefixes.values())) == len(distinct):
            break
    return prefixes
