"""Find problems in annotated images, from plain values that other modules have read."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np

from ssd_lightning.analysis.issues import Issue, Severity
from ssd_lightning.analysis.objects import sides_px
from ssd_lightning.data.annotation_checks import Problem
from ssd_lightning.visualization.tables import counted

MOST_LEFT_OUT = 0.1
"""Fraction of a split's objects and images. If more are skipped, the annotation has a systematic error."""
MANY_WITHOUT_OBJECTS = 0.1
"""Fraction of the training images. A smaller one hardly affects a batch, and random crops produce as many."""
FEW_IMAGES = 4000
"""A quarter of VOC's training images."""
FEWEST_AT_EDGE = 5
"""Boxes that start in the first pixel. Fewer do not show how a tool counts."""
FEWEST_OBJECTS = 5
"""Objects of a class in the training split. Fewer are a typing error, or too few to learn or score the class."""

# Before and between digits a separator has a meaning: 1-1 is not 11, and -10 is not 10.
_SEPARATORS = re.compile(r"(?<=[^\W\d_])[\s_-]+|(?<=\d)[\s_-]+(?!\d)")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[\s_-]+(?=\d)")
_PLURAL = re.compile(r"(?<=[^\W\d_s])s$")


def reader_issues(split: str, problems: Sequence[Problem], *, severity: Severity) -> list[Issue]:
    """Turn the problems of a reader into issues: errors if the run would stop at them, warnings if it skips them."""
    issues = []
    for problem in problems:
        is_gone = problem.kind == "outside" and not problem.is_clipped
        issues.append(Issue(severity, problem.kind, split, f"{problem}{'; no part of it is inside' * is_gone}"))
    return issues


def class_number_issues(
    split: str, problems: Sequence[Problem], counts: Sequence[int], class_names: Sequence[str]
) -> list[Issue]:
    """Find labels that start at 1 instead of 0, or at 0 instead of 1.

    Both ends show it: one end of the class list has no objects, and there are objects with a number beyond the
    other end. Numbers with gaps, like COCO's own, are not checked.
    """
    examples = {
        int(problem.name): problem
        for problem in reversed(problems)
        if problem.kind == "unknown_class" and problem.name.isdecimal()
    }
    if len(examples) != 1:
        return []
    ((number, example),) = examples.items()
    if number in (len(class_names), len(class_names) + 1) and counts[0] == 0:
        what = f"one too high: there are objects of number {number}, and none of the first class '{class_names[0]}'"
    elif number == 0 and counts[-1] == 0:
        what = f"one too low: there are objects of number 0, and none of the last class '{class_names[-1]}'"
    else:
        return []
    return [Issue("error", "class_numbers", split, f"the class numbers look {what}; the first: {example}")]


def amount_issues(
    split: str, *, images: int, objects: int, left_out: int, is_trained_on: bool, skipped: str = ""
) -> list[Issue]:
    """Find splits with no or too little usable data.

    Images without objects teach nothing alone, but may be scored. `skipped` is that of `DetectionDataset`.
    """
    if images == 0 or (objects == 0 and is_trained_on):
        what = "image" if images == 0 else f"object in its {images} images"
        why = "a larger data.val_fraction= holds some" if split == "val" and not left_out else ""
        why = why or skipped or f"{left_out} objects or images cannot be used"
        sentence = f"{split}: there is no {what}; {why}"
        return [Issue("error", "nothing_left", split, sentence)]
    share = left_out / max(1, objects + left_out)
    if share <= MOST_LEFT_OUT:
        return []
    sentence = f"{split}: {left_out} objects or images cannot be used, {share:.0%} beside {objects} usable objects"
    return [Issue("error", "left_out", split, sentence)]


def unscored_issues(*, images: int, objects: int) -> list[Issue]:
    """Find a validation split without objects that count, which cannot select a checkpoint."""
    if images == 0 or objects > 0:  # an empty split is not validated at all
        return []
    sentence = (
        f"val: there is no object to score in its {images} images, so no score can choose a checkpoint; the last "
        "weights are taken"
    )
    return [Issue("warning", "unscored", "val", sentence)]


def background_issues(*, images: int, without_objects: int, min_negatives: int | None) -> list[Issue]:
    """Warn if many training images have no objects, and the paper's mining gives them a loss of 0.

    `min_negatives` is None for a class loss without mining.
    """
    if min_negatives != 0 or without_objects < MANY_WITHOUT_OBJECTS * max(images, 1):
        return []
    sentence = (
        f"train: {without_objects} of {images} images ({without_objects / images:.0%}) have no object and teach "
        "nothing, since loss.class_loss.min_negatives=0 gives them a loss of 0; 3 lets each teach as much as "
        "an image with one matched prior"
    )
    return [Issue("warning", "background", "train", sentence)]


def few_images_issues(*, images: int, recipe: str | None) -> list[Issue]:
    """Warn if a training split is too small for the recipe: one for VOC or COCO, or None, the paper's settings."""
    is_for_many = recipe is None or "_voc0712" in recipe or "_coco" in recipe
    if not is_for_many or images >= FEW_IMAGES:
        return []
    whose = "the default settings, the paper's, are" if recipe is None else f"the settings of {recipe} are"
    sentence = f"there are {images} training images; {whose} made for 16551 or more, and learn little from so few"
    return [Issue("warning", "few_images", "train", sentence)]


def similar_class_issues(counts: Sequence[int], class_names: Sequence[str]) -> list[Issue]:
    """Find names that probably mean the same class, such as 'rbc' and 'RBC', or 'traffic light' and 'Traffic_Lights'.

    Single letters are ignored, since a data set of letters has them in both cases.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for name, count in zip(class_names, counts, strict=True):
        bare = _SEPARATORS.sub("", _BETWEEN_DIGITS.sub("-", name.strip().casefold()))
        alike[_PLURAL.sub("", bare)].append(f"'{name}' ({counted(count, 'object')})")
    issues = []
    for bare, names in alike.items():
        if len(names) > 1 and len(bare) > 1:
            listed = f"{', '.join(names[:-1])} and {names[-1]}"
            sentence = f"train: {listed} differ only in case, spaces, '-', '_' or a plural s"
            issues.append(Issue("warning", "similar_classes", "train", sentence))
    return issues


def few_objects_issues(classes: Mapping[str, Mapping[str, int]]) -> list[Issue]:
    """Find classes with no or too few training objects, from the `classes` of `objects.split_summary`."""
    issues = []
    for label, (name, counts) in enumerate(classes.items(), start=1):
        if counts["objects"] == 0:
            issues.append(Issue("warning", "unused_class", "train", f"train: class {label} '{name}' has no object"))
        elif counts["objects"] < FEWEST_OBJECTS:
            found = f"{counted(counts['objects'], 'object')} in {counted(counts['images'], 'image')}"
            issues.append(Issue("warning", "rare_class", "train", f"train: class {label} '{name}' has {found}"))
    return issues


def tiny_issues(
    split: str, boxes_xyxy: np.ndarray, name: Callable[[int], str], *, image_size: tuple[int, int], tiny_px: float
) -> list[Issue]:
    """Find boxes whose shorter side is below `tiny_px` in the network's input; `name` names an object by its index."""
    sides = sides_px(boxes_xyxy, image_size)
    where = f"in the input of {image_size[1]} x {image_size[0]} px"
    issues = []
    for index in np.flatnonzero(sides.min(axis=1, initial=np.inf) < tiny_px).tolist():
        width, height = sides[index]
        issues.append(Issue("warning", "tiny", split, f"{name(index)} is {width:.1f} x {height:.1f} px {where}"))
    return issues


def duplicate_issues(digests: Mapping[str, Mapping[str, str]]) -> list[Issue]:
    """Find images with the same pixels, from the digests of these: split -> path -> digest.

    Each repeated image within a split, and each pair of splits that share an image, is an issue.
    """
    alike: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for split, images in digests.items():
        for path, digest in images.items():
            alike[digest][split].append(path)
    issues = []
    for by_split in alike.values():
        for split, (first, *others) in by_split.items():
            issues += [Issue("warning", "within", split, f"{path}: the same pixels as {first}") for path in others]
        for (split, (first, *_)), (other, (second, *_)) in combinations(by_split.items(), 2):
            same = "the same file is" if first == second else f"the same pixels as {first}, which is"
            issues.append(Issue("error", "across", f"{split}, {other}", f"{second} of {other}: {same} in {split}"))
    return issues


def pixel_origin_issues(*, at_zero: int, at_one: int, offset: int) -> list[Issue]:
    """Find VOC annotations whose first pixel differs from the reader's setting.

    If a tool counts from 1, boxes at the left and upper edge start at 1 and none at 0. `at_zero` and `at_one` count
    these edges; `offset` is the number of the first pixel in the reader's setting.
    """
    if offset == 1 and at_zero >= max(FEWEST_AT_EDGE, at_one):
        found, better = f"{at_zero} boxes begin at pixel 0 and {at_one} at pixel 1", 0
    elif offset == 0 and at_zero == 0 and at_one >= FEWEST_AT_EDGE:
        found, better = f"{at_one} boxes begin at pixel 1 and none at pixel 0", 1
    else:
        return []
    sentence = f"train: {found}, so the files seem to count from {better}: data.xml_offset={better}, not {offset}"
    return [Issue("warning", "pixel_origin", "train", sentence)]
