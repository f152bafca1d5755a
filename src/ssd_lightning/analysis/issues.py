"""Issues of a check: severity, kind, location and advice."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning")
"""Most severe first. An error would end the run, falsify its scores, or keep it from learning."""
KINDS: dict[str, tuple[str, str]] = {
    "coverage": ("priors that fit few of the objects", "do what the sentence says"),
    "unopened": ("splits that cannot be opened", "fix the named file; nothing of the split is usable"),
    "nothing_left": ("splits with nothing to learn or to score", "see the other issues of the split"),
    "class_numbers": ("class numbers off by one", "renumber the labels, or correct the list of class names"),
    "across": ("the same image in two splits", "take one of them out: scores on known images are too good"),
    "left_out": ("much is skipped", "fix the problems below; data.on_error=skip and clip leave out too much"),
    "image": ("images that cannot be read", "fetch the file again, or take it out of the list of its split"),
    "missing": ("images or annotations that are missing", "copy the file, or take it out of the list"),
    "image_size": ("size in the annotation against the image", "annotate the image that is on the disk"),
    "annotation": ("annotations that cannot be used", "fix the named value"),
    "unknown_class": ("objects of unknown classes", "fix the name, or add it to data.class_names"),
    "fractions": (
        "fractions where pixels are expected",
        "the unit is probably fractions of 1: multiply x by the image's width and y by its height "
        "(for CSV files data.unit=fractions does it)",
    ),
    "pixels": ("pixels where fractions are expected", "for CSV files data.unit=pixels; YOLO wants fractions"),
    "inverted": ("inverted boxes", "exchange the corners; for COCO the numbers are x, y, width, height"),
    "outside": ("boxes that reach out of the image", "check unit and order of the numbers"),
    "clipped": ("boxes that are clipped", "look at some of them with `show`; their unit or order may be wrong"),
    "no_area": ("boxes without area", "remove the object or draw it again"),
    "weights": ("weights that the run would start from", "fetch the file, or start from random weights"),
    "first_loss": ("the first loss", "check weights, normalisation and the loss settings"),
    "memory": (
        "memory",
        "set trainer.accumulate_grad_batches, a smaller data.batch_size or trainer.precision=bf16-mixed",
    ),
    "unscored": ("splits that cannot be scored", "a larger data.val_fraction=, or a split with objects"),
    "background": ("images without objects that teach nothing", "set loss.class_loss.min_negatives=3"),
    "few_images": ("settings that are made for more images", "start with experiment=finetune"),
    "pixel_origin": ("where pixels count from", "set data.xml_offset to what the annotating tool does"),
    "within": ("the same image twice in a split", "take one of them out, it counts double"),
    "repeated": ("images that a list names more than once", "take the other entries out of the list"),
    "unlisted": (
        "images beside those of a split that are not read",
        "annotate each, also if it has no object (a row, or a finished task), or take them out",
    ),
    "tiny": ("boxes that are tiny in the network's input", "choose a larger image_size, or leave them out"),
    "similar_classes": ("class names that are nearly the same", "give them one name, if they are one class"),
    "rare_class": ("classes with very few objects", "collect examples, or fix the name if it is a typo"),
    "unused_class": (
        "classes without objects",
        "collect examples, or take the name out of data.class_names if no split has any",
    ),
}
"""Title and advice of each kind of issue, in display order within a severity."""


@dataclass(frozen=True)
class Issue:
    """One issue."""

    severity: Severity
    kind: str
    """A key of `KINDS`."""
    split: str
    """Where it was found, such as `train`."""
    sentence: str
    """Message with file, object and value."""


def grouped(issues: Iterable[Issue]) -> list[dict[str, Any]]:
    """Group by severity and kind, in the order of both, as plain values; without what another split has reported."""
    unique: dict[tuple[str, str], Issue] = {}  # two parts of one image list report the same problems of its file
    for issue in issues:
        unique.setdefault((issue.kind, issue.sentence), issue)
    groups = defaultdict(list)
    for issue in unique.values():
        groups[issue.severity, issue.kind].append({"split": issue.split, "sentence": issue.sentence})
    kinds = list(KINDS)
    order = sorted(groups, key=lambda group: (SEVERITIES.index(group[0]), kinds.index(group[1])))
    return [
        {"severity": severity, "kind": kind, "title": title, "advice": advice, "items": groups[severity, kind]}
        for severity, kind in order
        for title, advice in [KINDS[kind]]
    ]
