"""Problems in a list of classes: nearly equal names, and classes with very few objects."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from ssd_lightning.analysis.issues import Issue

FEWEST_OBJECTS = 5
"""Objects of a class in the training split. Fewer are a typing error, or too few to learn or score the class."""

# Before and between digits a separator has a meaning: 1-1 is not 11, and -10 is not 10.
_SEPARATORS = re.compile(r"(?<=[^\W\d_])[\s_-]+|(?<=\d)[\s_-]+(?!\d)")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[\s_-]+(?=\d)")
_PLURAL = re.compile(r"(?<=[^\W\d_s])s$")


def similar_class_issues(split: str, counts: Sequence[int], class_names: Sequence[str]) -> list[Issue]:
    """Find names that probably mean the same class, such as 'rbc' and 'RBC', or 'traffic light' and 'Traffic_Lights'.

    Single letters are ignored, since a data set of letters has them in both cases.

    Args:
        split: split of the counts.
        counts: number of objects of each class.
        class_names: names of the classes 1..C.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for name, count in zip(class_names, counts, strict=True):
        alike[_bare(name)].append(f"'{name}' ({_count(count, 'object')})")
    return [
        Issue("warning", "similar_classes", split, _similar(split, names))
        for bare, names in alike.items()
        if len(names) > 1 and len(bare) > 1
    ]


def _similar(split: str, names: Sequence[str]) -> str:
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{split}: {listed} differ only in case, spaces, '-', '_' or a plural s"


def _bare(name: str) -> str:
    text = _BETWEEN_DIGITS.sub("-", name.strip().casefold())
    return _PLURAL.sub("", _SEPARATORS.sub("", text))


def rare_class_issues(split: str, classes: Mapping[str, Mapping[str, int]]) -> list[Issue]:
    """Find classes with too few objects, but at least one.

    Args:
        split: name of the split.
        classes: name -> `objects` and `images`, as `objects.class_counts` gives them.
    """
    return [
        Issue(
            "warning",
            "rare_class",
            split,
            f"{split}: class {label} '{name}' has {_count(of_class['objects'], 'object')} in "
            f"{_count(of_class['images'], 'image')}",
        )
        for label, (name, of_class) in enumerate(classes.items(), start=1)
        if 0 < of_class["objects"] < FEWEST_OBJECTS
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
