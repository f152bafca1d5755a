"""Which classes of the files a run uses, under which names and numbers."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssd_lightning.data.annotation_checks import Problem, check_class_names, describe_problems, unknown_class_text
from ssd_lightning.data.split_annotations import Annotations
from ssd_lightning.errors import ConfigurationError, DataError

log = logging.getLogger(__name__)

EXCLUDED = -1
"""Label of objects whose class a rule excludes."""


@dataclass(frozen=True, kw_only=True)
class ClassRules:
    """Which classes of the files are used, and under which names.

    Args:
        exclude: classes whose objects are not used.
        merge: new name -> the class or classes that it replaces.
        rename: class -> its new name.

    Raises:
        ConfigurationError: a class has two rules.
    """

    exclude: Sequence[str] | None = None
    merge: Mapping[str, Sequence[str] | str] | None = None
    rename: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        for name, rules, example in (
            ("merge_classes", self.merge, "{vehicle: [car, bus]}"),
            ("rename_classes", self.rename, "{motorbike: motorcycle}"),
        ):
            if rules and not isinstance(rules, Mapping):
                raise ConfigurationError(f"data.{name} is {rules!r}; it must be a mapping such as {example}")
        for old, new in (self.rename or {}).items():
            if not isinstance(new, str) or not new.strip():
                raise ConfigurationError(f"data.rename_classes has {new!r} for '{old}'; the new name must be text")
        ruled = [name for name, _ in self._new_names()]
        twice = sorted({name for name in ruled if ruled.count(name) > 1})
        if twice:
            raise ConfigurationError(
                f"data.exclude_classes, merge_classes and rename_classes have more than one rule for '{twice[0]}'"
            )

    def __call__(self, name: str) -> str | None:
        """Return the name under which a class is used; None if it is excluded."""
        return dict(self._new_names()).get(name, name)

    def _new_names(self) -> list[tuple[str, str | None]]:
        """List the classes with a rule. Keys on the command line cannot be quoted: the class "7" is a number there."""
        new_names: list[tuple[str, str | None]] = [(name, None) for name in self.exclude or ()]
        new_names += [(str(name), new) for name, new in (self.rename or {}).items()]
        for new, names in (self.merge or {}).items():
            new_names += [(str(name), str(new)) for name in (names if isinstance(names, list | tuple) else [names])]
        return new_names

    def unknown(self, names: Sequence[str]) -> list[str]:
        """Describe each rule for a class that is none of `names`."""
        return [
            f"data.exclude_classes, merge_classes or rename_classes names '{name}', which "
            f"{unknown_class_text(name, names)}"
            for name, _ in self._new_names()
            if name not in names
        ]


def map_labels(
    found: Annotations, class_names: Sequence[str] | None, rules: ClassRules
) -> tuple[tuple[str, ...], np.ndarray]:
    """Number the classes of a run: those of `class_names`, or else of the files.

    Returns:
        The names of the classes 1..C, and the new label of each label: 0 for an unknown class, -1 for an excluded one.

    Raises:
        DataError: names are missing, empty or repeated, or rules exclude all classes.
    """
    names: list[str] = list(found.names)
    if found.is_numbered:
        if class_names is None:
            raise DataError(f"{' and '.join(found.roots)}: the files name no classes; give data.class_names")
        check_class_names(class_names)
        numbered = dict(enumerate(class_names))
        names = [numbered.get(int(name), name) if name.isdecimal() else name for name in names]
    elif class_names is None:  # a validation split, which gets the training classes, need not have them all
        for text in rules.unknown(names):
            log.warning("%s (in the training data)", text)
    used = [rules(name) for name in names]
    if class_names is None:
        declared = dict.fromkeys(name for name in used[: found.num_declared] if name)
        class_names = list(declared) if found.is_listed else sorted(declared)
        if not class_names and any(names):
            raise DataError(f"data.exclude_classes excludes all classes: {', '.join(names)}")
        if not class_names:
            raise DataError(_why_no_class(found))
    check_class_names(class_names)
    labels = {name: label for label, name in enumerate(class_names, start=1)}
    label_map = [EXCLUDED if name is None else labels.get(name, 0) for name in used]
    return tuple(class_names), np.array([0, *label_map], np.int64)


def unknown_class_problems(found: Annotations, rows: np.ndarray, class_names: Sequence[str]) -> list[Problem]:
    """Report objects, by their rows in the columns, whose class is none of `class_names`."""
    columns, problems = found.columns, []
    images = np.searchsorted(columns.starts, rows, side="right") - 1
    for row, image in zip(rows.tolist(), images.tolist(), strict=True):
        label = int(columns.labels[row])
        name, image_name = found.names[label - 1], Path(columns.image_paths[image]).name
        item_format = found.item_formats[image] if found.item_formats else found.item_format
        problems.append(
            Problem(
                file=columns.file_of(image),
                item=item_format.format(item=int(columns.items[row]), name=name, image=image_name),
                kind="unknown_class",
                text=unknown_class_text(name, class_names),
                image_id=columns.image_ids[image],
                name=name,
                position=image,
                label=label,
                difficult=bool(columns.difficult[row]),
            )
        )
    return problems


def _why_no_class(found: Annotations) -> str:
    """Say why there is no class: the first fault, if faults have taken all objects or images."""
    roots, num_images = " and ".join(found.roots), len(found.columns.image_ids)
    if not found.problems:
        text = "has a class name; give data.class_names" if num_images else "is there, and no image"
        return f"no object in {roots} {text}"
    text = describe_problems(found.problems)
    if any(problem.item for problem in found.problems) or not num_images:
        return f"{text}; no usable object in {roots} is left"
    return f"{text}; no object in the {num_images} usable images has a class name; give data.class_names"
