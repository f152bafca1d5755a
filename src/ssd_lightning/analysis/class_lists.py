"""Problems in a list of classes: nearly equal names, and classes with very few objects."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ssd_lightning.analysis.issues import Issue
from ssd_lightning.visualization.tables import counted

FEWEST_OBJECTS = 5
"""Objects of a class in the training split. Fewer are a typing error, or too few to learn or score the class."""

# Before and between digits a separator has a meaning: 1-1 is not 11, and -10 is not 10.
_SEPARATORS = re.compile(r"(?<=[^\W\d_])[\s_-]+|(?<=\d)[\s_-]+(?!\d)")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[\s_-]+(?=\d)")
_PLURAL = re.compile(r"(?<=[^\W\d_s])s$")


def similar_class_issues(split: str, counts: Sequence[int], class_names: Sequence[str]) -> list[Issue]:
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
            sentence = f"{split}: {listed} differ only in case, spaces, '-', '_' or a plural s"
            issues.append(Issue("warning", "similar_classes", split, sentence))
    return issues


def rare_class_issues(split: str, classes: Mapping[str, Mapping[str, int]]) -> list[Issue]:
    """Find classes with too few objects, but at least one, from the `classes` of `objects.split_summary`."""
    issues = []
    for label, (name, counts) in enumerate(classes.items(), start=1):
        if 0 < counts["objects"] < FEWEST_OBJECTS:
            found = f"{counted(counts['objects'], 'object')} in {counted(counts['images'], 'image')}"
            issues.append(Issue("warning", "rare_class", split, f"{split}: class {label} '{name}' has {found}"))
    return issues
