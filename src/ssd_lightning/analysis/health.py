"""What is wrong with annotated images, judged from plain values that others have read."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ssd_lightning.analysis.issues import Issue, Severity
from ssd_lightning.analysis.objects import Objects, name_object, sides_px

MOST_LEFT_OUT = 0.1
"""Share of a split's objects and images: more of them skipped is no accident of annotation."""
MANY_WITHOUT_OBJECTS = 0.1
"""Share of the training images. Fewer are lost in nearly every batch, and a random crop leaves as many without one."""
FEW_IMAGES = 4000
"""Fewer training images than a quarter of VOC's."""
FEWEST_AT_EDGE = 5
"""Boxes that begin in the first pixel: fewer are no evidence of how a tool counts."""

PHRASES = (
    ("but its annotation says", "image_size"),
    ("looks like fractions", "fractions"),
    ("looks like pixels", "pixels"),
    ("is of none of the", "unknown_class"),
    ("is inverted:", "inverted"),
    ("reaches out of the image:", "outside"),
    ("has no area:", "no_area"),
    ("the image is missing", "missing"),
    ("the annotation is missing", "missing"),
    ("cannot read the image", "image"),
    ("its EXIF tag turns", "image_size"),
    ("not an image", "image"),
    ("this is no image", "image"),
)
"""What the readers of all formats say (`data.annotation`, `data.images`), and the kind of fault it is."""
_FROM_0_TO_1 = re.compile(r"has no area: [xy]min is 0 and [xy]max 1 of ")
_UNKNOWN_NUMBER = re.compile(r"'(\d+)'[^']* is of none of the")


def kind_of(sentence: str, otherwise: str) -> str:
    """Say what kind of fault a reader's sentence is about."""
    return next((kind for phrase, kind in PHRASES if phrase in sentence), otherwise)


def reader_issues(split: str, sentences: Sequence[str], *, otherwise: str, severity: Severity) -> list[Issue]:
    """Sort what a reader could not use into kinds.

    Args:
        split: where it was found.
        sentences: of the reader, each with file, object and value.
        otherwise: the kind of those that none of `PHRASES` knows.
        severity: error where the run would stop at them, warning where it leaves them out.
    """
    kinds = [kind_of(sentence, otherwise) for sentence in sentences]
    if "fractions" in kinds:
        # 0 and 1 alone might be pixels; beside other fractions they are edges of the image.
        kinds = ["fractions" if _FROM_0_TO_1.search(of) else kind for of, kind in zip(sentences, kinds, strict=True)]
    return [Issue(severity, kind, split, sentence) for kind, sentence in zip(kinds, sentences, strict=True)]


def class_number_issues(
    split: str, sentences: Sequence[str], counts: Sequence[int], class_names: Sequence[str]
) -> list[Issue]:
    """Find labels that count from 1 where 0 is meant, and the other way round.

    They leave a mark at both ends: the class at one end of the list has no object, and there are objects of the number
    beyond the other end. Numbers with gaps, as COCO's own, are not judged.

    Args:
        split: where the sentences were found.
        sentences: of the reader, about objects that it could not use.
        counts: objects of each class.
        class_names: names of the classes 1..C.
    """
    unknown = {int(number) for sentence in sentences for number in _UNKNOWN_NUMBER.findall(sentence)}
    if len(unknown) != 1:
        return []
    (number,) = unknown
    if number in (len(class_names), len(class_names) + 1) and counts[0] == 0:
        what = f"one too high: there are objects of number {number}, and none of the first class '{class_names[0]}'"
    elif number == 0 and counts[-1] == 0:
        what = f"one too low: there are objects of number 0, and none of the last class '{class_names[-1]}'"
    else:
        return []
    example = next(sentence for sentence in sentences if _UNKNOWN_NUMBER.search(sentence))
    return [Issue("error", "class_numbers", split, f"the class numbers look {what}; the first: {example}")]


def amount_issues(
    split: str, *, images: int, objects: int, left_out: int, is_trained_on: bool, skipped: str = ""
) -> list[Issue]:
    """Find splits of which nothing, or not enough, is left.

    Args:
        split: which one.
        images: that can be used.
        objects: usable ones.
        left_out: objects and images that cannot be used.
        is_trained_on: background images alone teach nothing; but they may be scored.
        skipped: see `DetectionDataset.skipped`.
    """
    if images == 0 or (objects == 0 and is_trained_on):
        what = "image" if images == 0 else f"object in its {images} images"
        why = "a larger data.val_fraction= holds some" if split == "val" and not left_out else ""
        why = why or skipped or f"{left_out} objects or images cannot be used"
        sentence = f"{split}: there is no {what}; {why}"
        return [Issue("error", "nothing_left", split, sentence)]
    share = left_out / (objects + left_out) if left_out else 0.0
    if share <= MOST_LEFT_OUT:
        return []
    sentence = f"{split}: {left_out} objects or images cannot be used, {share:.0%} beside {objects} usable objects"
    return [Issue("error", "left_out", split, sentence)]


def unscored_issues(split: str, *, images: int, objects: int) -> list[Issue]:
    """Find a split that is to choose the checkpoint and cannot.

    Args:
        split: which one.
        images: that it has; a split without any is not validated at all.
        objects: that count for the score; difficult ones do not.
    """
    if images == 0 or objects > 0:
        return []
    sentence = (
        f"{split}: there is no object to score in its {images} images, so no score can choose a checkpoint; the last "
        "weights are taken"
    )
    return [Issue("warning", "unscored", split, sentence)]


def background_issues(*, images: int, without_objects: int, min_negatives: int | None) -> list[Issue]:
    """Find many training images without objects that the paper's mining gives a loss of 0.

    Args:
        images: of the training split.
        without_objects: so many of them.
        min_negatives: `loss.class_loss.min_negatives`; None for a class loss without mining.
    """
    if min_negatives != 0 or without_objects < MANY_WITHOUT_OBJECTS * max(images, 1):
        return []
    sentence = (
        f"train: {without_objects} of {images} images ({without_objects / images:.0%}) have no object and teach "
        "nothing, since loss.class_loss.min_negatives=0 gives them a loss of 0; 3 lets each teach as much as "
        "an image with one matched prior"
    )
    return [Issue("warning", "background", "train", sentence)]


def few_images_issues(*, images: int, has_recipe: bool) -> list[Issue]:
    """Find a training split that is too small for the default settings, which are the paper's.

    Args:
        images: of the training split.
        has_recipe: the run has settings of a recipe, not the default ones.
    """
    if has_recipe or images >= FEW_IMAGES:
        return []
    sentence = (
        f"there are {images} training images; the default settings are the paper's, made for 16551, and learn little "
        "from so few"
    )
    return [Issue("warning", "few_images", "train", sentence)]


def unused_class_issues(split: str, counts: Sequence[int], class_names: Sequence[str]) -> list[Issue]:
    """Find classes that nothing can be learnt about."""
    return [
        Issue("warning", "unused_class", split, f"{split}: class {label} '{name}' has no object")
        for label, (name, count) in enumerate(zip(class_names, counts, strict=True), start=1)
        if count == 0
    ]


def tiny_issues(
    split: str,
    objects: Objects,
    paths: Sequence[str],
    class_names: Sequence[str],
    *,
    image_size: tuple[int, int],
    tiny_px: float,
) -> list[Issue]:
    """Find boxes whose shorter side is below `tiny_px` when the image has the size of the network's input.

    Args:
        split: where they are.
        objects: of the split.
        paths: of its images.
        class_names: names of the classes 1..C.
        image_size: of the network's input, (height, width).
        tiny_px: in pixels of the input.
    """
    sides = sides_px(objects.boxes_xyxy, image_size)  # [N, 2]
    issues = []
    for index in np.flatnonzero(sides.min(axis=1, initial=np.inf) < tiny_px).tolist():
        width, height = sides[index]
        sentence = (
            f"{name_object(objects, index, paths, class_names)} is {width:.1f} x {height:.1f} px in the input of "
            f"{image_size[1]} x {image_size[0]} px"
        )
        issues.append(Issue("warning", "tiny", split, sentence))
    return issues


def duplicate_issues(digests: Mapping[str, Mapping[str, str]]) -> list[Issue]:
    """Find images with the same pixels.

    Args:
        digests: split -> path of an image -> digest of its pixels.

    Returns:
        An issue for each image beyond the first of its kind in a split, and for each pair of splits that share one.
    """
    alike: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for split, images in digests.items():
        for path, digest in images.items():
            alike[digest][split].append(path)
    return [issue for by_split in alike.values() for issue in _duplicates(by_split)]


def _duplicates(by_split: Mapping[str, Sequence[str]]) -> Iterator[Issue]:
    for split, (first, *others) in by_split.items():
        for path in others:
            yield Issue("warning", "within", split, f"{path}: the same pixels as {first}")
    splits = list(by_split)
    for position, split in enumerate(splits):
        for other in splits[position + 1 :]:
            first, second = by_split[split][0], by_split[other][0]
            same = "the same file is" if first == second else f"the same pixels as {first}, which is"
            yield Issue("error", "across", f"{split}, {other}", f"{second} of {other}: {same} in {split}")


def pixel_origin_issues(split: str, *, at_zero: int, at_one: int, offset: int) -> list[Issue]:
    """Find VOC annotations that count pixels from another number than their reader does.

    Where a tool counts from 1, boxes at the left and upper edge begin at 1 and none at 0.

    Args:
        split: which one.
        at_zero: edges that the files have at 0.
        at_one: edges that they have at 1.
        offset: what the reader takes for the first pixel.
    """
    if offset == 1 and at_zero >= max(FEWEST_AT_EDGE, at_one):
        found, better = f"{at_zero} boxes begin at pixel 0 and {at_one} at pixel 1", 0
    elif offset == 0 and at_zero == 0 and at_one >= FEWEST_AT_EDGE:
        found, better = f"{at_one} boxes begin at pixel 1 and none at pixel 0", 1
    else:
        return []
    sentence = f"{split}: {found}, so the files seem to count from {better}: data.xml_offset={better}, not {offset}"
    return [Issue("warning", "pixel_origin", split, sentence)]
