"""Choose the images, objects and classes of a run from the annotations of a split, and hold images out of training."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from ssd_lightning.checks import require_bool, require_choice, require_number
from ssd_lightning.data.annotation_checks import Problem
from ssd_lightning.data.annotations import AnnotationTable, Columns, hash_ids
from ssd_lightning.data.class_rules import EXCLUDED, ClassRules, map_labels, unknown_class_problems
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.split_annotations import Annotations
from ssd_lightning.errors import ConfigurationError, listed, one_line

log = logging.getLogger(__name__)

OnError = Literal["raise", "skip", "clip"]
Subset = Literal["all", "train", "val", "test"]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Shares of the images that validation and test hold, chosen by the hash of an image's id.

    Reordered lists, new images and another seed do not change the part of an image.

    Args:
        val_fraction: share of the validation part.
        test_fraction: share of the test part.
        fold: number of the fold that is the validation part, from 0; replaces `val_fraction`.
        num_folds: number of folds of all images that are not in the test part.

    Raises:
        ConfigurationError: a value is out of its range, or only one of `fold` and `num_folds` is given.
    """

    val_fraction: float = 0.0
    test_fraction: float = 0.0
    fold: int | None = None
    num_folds: int | None = None

    def __post_init__(self) -> None:
        require_number("data.val_fraction", self.val_fraction, 0, 1)
        require_number("data.test_fraction", self.test_fraction, 0, 1)
        if self.test_fraction == 1:
            raise ConfigurationError(f"data.test_fraction is {self.test_fraction}; it must be below 1")
        if (self.fold is None) != (self.num_folds is None):
            raise ConfigurationError(f"fold={self.fold} and num_folds={self.num_folds} go together")
        if self.fold is not None and self.num_folds is not None:
            require_number("data.num_folds", self.num_folds, 2, whole=True)
            require_number("data.fold", self.fold, 0, self.num_folds - 1, whole=True)

    @property
    def is_empty(self) -> bool:
        """Whether no image is held out for validation."""
        return self.val_fraction == 0 and self.fold is None

    def by_hash(self, id_hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which images the hash puts into validation and test: bool `[N]` each."""
        even = _mixed(id_hashes) / 2**32
        is_tested = even >= 1 - self.test_fraction
        if self.fold is not None and self.num_folds is not None:
            folds = (even / (1 - self.test_fraction) * self.num_folds).astype(np.int64)
            return (folds == self.fold) & ~is_tested, is_tested
        return (id_hashes / 2**32 < self.val_fraction) & ~is_tested, is_tested

    def subset_of(self, image_id: str) -> Subset:
        """Return the subset of an image that cannot be used."""
        (is_validated,), (is_tested,) = self.by_hash(hash_ids([image_id]))
        return "val" if is_validated else "test" if is_tested else "train"

    def in_subset(self, subset: Subset, columns: Columns, label_map: np.ndarray) -> np.ndarray:
        """Tell which images belong to a subset: bool `[N]`.

        A class without an image in the validation part gives it the image of the smallest hash, if training keeps an
        image of each of its classes, until the part has twice the stated share. Beyond that, a class with three images
        or more still does, until training has half of the images. Folds stay as they are.

        `label_map` is the class of each label of the columns, from 1. Raises `ConfigurationError` for another subset.
        """
        require_choice("part", subset, get_args(Subset))
        is_validated, is_tested = self.by_hash(columns.id_hashes)
        if 0 < self.val_fraction < 1 and self.fold is None:
            is_validated = self._with_all_classes(is_validated, is_tested, columns, label_map)
        everything = np.ones(len(is_validated), bool)
        subsets = {"all": everything, "train": ~is_validated & ~is_tested, "val": is_validated, "test": is_tested}
        return subsets[subset]

    def _with_all_classes(
        self, is_validated: np.ndarray, is_tested: np.ndarray, columns: Columns, label_map: np.ndarray
    ) -> np.ndarray:
        num_labels = int(label_map.max(initial=0)) + 1
        image = np.repeat(np.arange(len(is_validated)), np.diff(columns.starts))
        if np.isin(columns.labels, columns.labels[is_validated[image]]).all():
            return is_validated  # of most sets, in a hundredth of the time
        labels = label_map[columns.labels]
        pairs = np.unique(np.stack([labels, image], 1)[(labels > 0) & ~is_tested[image]], axis=0)  # class, image
        is_held = is_validated[pairs[:, 1]]
        in_training = np.bincount(pairs[~is_held, 0], minlength=num_labels)
        in_validation = np.bincount(pairs[is_held, 0], minlength=num_labels)
        chosen = is_validated.copy()
        for label in np.flatnonzero((in_validation == 0) & (in_training > 1)).tolist():
            if in_validation[label]:  # came with an image of an earlier class
                continue
            is_over = chosen.sum() >= 2 * self.val_fraction * len(chosen)
            if is_over and (in_training[label] < 3 or chosen.sum() >= (~is_tested).sum() // 2):
                continue
            candidates = pairs[pairs[:, 0] == label, 1]
            for candidate in candidates[np.argsort(columns.id_hashes[candidates], kind="stable")].tolist():
                of_image = pairs[pairs[:, 1] == candidate, 0]
                if (in_training[of_image] > 1).all():
                    chosen[candidate] = True
                    in_training[of_image] -= 1
                    in_validation[of_image] += 1
                    break
        return chosen


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """Spread hashes evenly: the CRC of numbered names is not even (the last step of MurmurHash3)."""
    mixed = hashes.astype(np.uint64)
    for factor, shift in ((0x85EBCA6B, 16), (0xC2B2AE35, 13)):
        mixed = ((mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)) & np.uint64(0xFFFFFFFF)
    return mixed ^ (mixed >> np.uint64(16))


def choose(
    found: Annotations,
    *,
    classes: ClassRules,
    on_error: OnError,
    max_images: int | None,
    class_names: Sequence[str] | None = None,
    keep_difficult: bool = True,
    part: Subset = "all",
    **held_out: Any,
) -> DetectionDataset:
    """Choose images, objects and classes; for the arguments see `DatasetOpener` and its `__call__`."""
    require_bool("keep_difficult (data.train_difficult)", keep_difficult)
    shares = HeldOut(**held_out)
    columns = found.columns
    class_names, label_map = map_labels(found, class_names, classes)
    in_part = shares.in_subset(part, columns, label_map)
    rows = np.flatnonzero(in_part)[:max_images]
    is_cut = len(rows) == max_images
    if is_cut:
        in_part[rows[-1] + 1 :] = False
    labels = label_map[columns.labels]
    in_chosen = np.repeat(in_part, np.diff(columns.starts))
    is_wanted = (labels != EXCLUDED) & (keep_difficult | ~columns.difficult)
    keeps = (labels > 0) & is_wanted
    if on_error != "clip":
        keeps &= ~columns.overhangs
    elif num_clipped := int((columns.overhangs & keeps & in_chosen).sum()):
        log.warning("%d boxes reach out of their images and are clipped", num_clipped)
    problems = unknown_class_problems(found, np.flatnonzero((labels == 0) & is_wanted & in_chosen), class_names)
    problems += [
        problem
        for problem in found.problems
        if not (problem.label and label_map[problem.label] == EXCLUDED)
        and (keep_difficult or not problem.difficult)
        and not (problem.is_clipped and on_error == "clip")
        and not (is_cut and problem.position > rows[-1])
        and _concerns(problem, part, shares, columns, in_part)
    ]
    problems.sort(key=lambda problem: problem.position)
    table = AnnotationTable(columns, rows=rows, keeps=keeps, label_map=label_map)
    if on_error != "raise" and problems:
        table = _without_spoilt(table, problems)
    num_skipped = int((in_chosen & columns.difficult & (labels != EXCLUDED)).sum()) if not keep_difficult else 0
    return DetectionDataset(annotations=table, class_names=class_names, dropped=problems, num_skipped=num_skipped)


def _without_spoilt(table: AnnotationTable, problems: Sequence[Problem]) -> AnnotationTable:
    """Leave out images that have lost all their objects, since they would teach that these are background.

    Objects of an unknown class are no reason: for the known classes they are background.
    """
    faulty = {problem.image_id for problem in problems if problem.item and problem.kind != "unknown_class"}
    empty = np.flatnonzero(table.counts == 0)
    spoilt = [index for index, image_id in zip(empty, table.select(empty).image_ids, strict=True) if image_id in faulty]
    if not spoilt:
        return table
    paths = listed(map(one_line, table.select(np.array(spoilt)).image_paths), separator="\n  ")
    log.warning("%d images are left out, since none of their objects can be used:\n  %s", len(spoilt), paths)
    return table.select(np.delete(np.arange(len(table)), spoilt))


def _concerns(problem: Problem, part: Subset, held_out: HeldOut, columns: Columns, in_part: np.ndarray) -> bool:
    """Tell whether a problem is one of a part: that of its image, or every part."""
    if problem.image_id is None or part == "all":
        return True
    if problem.position < len(in_part) and columns.image_ids[problem.position] == problem.image_id:
        return bool(in_part[problem.position])
    return held_out.subset_of(problem.id_in_set or problem.image_id) == part  # the image itself cannot be used
