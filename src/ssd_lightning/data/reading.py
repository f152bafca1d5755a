"""Read the splits of a data set, of one format or several, and open them as one."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from ssd_lightning.checks import require_choice, require_number
from ssd_lightning.data.annotation_cache import read_cached
from ssd_lightning.data.annotation_checks import describe_problems
from ssd_lightning.data.choosing import OnError, Subset, choose
from ssd_lightning.data.class_rules import ClassRules
from ssd_lightning.data.dataset import DetectionDataset, Transform
from ssd_lightning.data.formats import BY_NAME, YOLO
from ssd_lightning.data.formats.detect import Auto
from ssd_lightning.data.formats.files import check_root
from ssd_lightning.data.split_annotations import AnnotationFormat, Annotations, absolute_roots, join
from ssd_lightning.errors import ConfigurationError, DataError, listed

log = logging.getLogger(__name__)


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
        ConfigurationError: `on_error` or `max_images` has an invalid value.
    """

    format: AnnotationFormat
    on_error: OnError = "raise"
    max_images: int | None = None
    classes: ClassRules = field(default_factory=ClassRules)
    cache_folder: str | Path | None = None
    _found: dict[Any, Annotations] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What was read, since training and validation are often parts of one split."""
    _noted: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    """What the log has said of it."""

    def __post_init__(self) -> None:
        require_choice("on_error", self.on_error, get_args(OnError))
        if self.max_images is not None:
            require_number("data.max_images", self.max_images, 1, whole=True)

    def __call__(
        self,
        *,
        splits: Sequence[Mapping[str, Any]],
        class_names: Sequence[str] | None = None,
        transform: Transform | None = None,
        seed: int = 0,
        keep_difficult: bool = True,
        part: Subset = "all",
        **held_out: Any,
    ) -> DetectionDataset:
        """Open some splits as one data set.

        Args:
            splits: each a `root` and a `split`, whose meaning depends on the format, and optionally a `format` or its
                name in `formats.BY_NAME`.
            class_names: names of the classes 1..C; None takes those of the files.
            transform: see `DetectionDataset`.
            seed: see `DetectionDataset`.
            keep_difficult: False skips and counts crowds and difficult objects.
            part: `train`, `val` and `test` are disjoint parts of the data, `all` is the whole set.
            held_out: which images they are: arguments of `HeldOut`.

        Raises:
            ConfigurationError: `part` or a fraction has an invalid value.
            DataError: a root, split, image or annotation is missing or unusable; class names are empty or repeated; no
                image is left.
        """
        found = self.read(splits)
        self.log_notes(found)
        dataset = self.choose(found, class_names=class_names, keep_difficult=keep_difficult, part=part, **held_out)
        dataset.transform, dataset.seed = transform, seed
        if self.on_error != "raise":
            dataset.drop_unreadable()
        elif dataset.dropped:
            first = dataset.dropped[0]
            clip = ", clip keeps the part inside of the image" if first.is_clipped else ""
            advice = f" (on_error=skip drops such objects{clip})" if first.item else ""
            raise DataError(describe_problems(dataset.dropped, advice=advice))
        if dataset.dropped:
            lines = listed(map(str, dataset.dropped), separator="\n  ")
            log.warning("skipped %d objects or images:\n  %s", len(dataset.dropped), lines)
        if dataset.skipped:
            log.info("%s", dataset.skipped)
        if not len(dataset):
            hint = "; in a small set a larger data.val_fraction= holds some" if part == "val" else ""
            shares = "".join(f"{name}={value}; " for name, value in held_out.items())
            of_part = "" if part == "all" else f" in part '{part}'"
            where = " and ".join(str(Path(place["root"], place["split"])) for place in splits)
            raise DataError(f"{where}: no image is left{of_part} ({shares}{len(dataset.dropped)} skipped){hint}")
        return dataset

    def log_notes(self, found: Annotations) -> None:
        """Log what the reader has to say of some annotations, each sentence once."""
        for note in found.notes:
            if note not in self._noted:
                log.warning("%s", note.encode(errors="backslashreplace").decode())  # names may not be UTF-8
                self._noted.add(note)

    def _format_of(self, place: Mapping[str, Any]) -> AnnotationFormat:
        stated = place.get("format", self.format)
        if not isinstance(stated, str):
            return stated
        if stated not in BY_NAME:
            raise ConfigurationError(f"format '{stated}' of {place['root']}: it is one of {', '.join(BY_NAME)}")
        return BY_NAME[stated]()

    def files(self, place: Mapping[str, Any]) -> frozenset[str]:
        """List the files of a split, to tell splits apart; empty if there is no such split."""
        (root,) = absolute_roots([place])
        try:
            check_root(root)
            return frozenset(self._format_of(place).files(root, place["split"]))
        except (DataError, OSError):
            return frozenset()

    def is_unlabelled(self, place: Mapping[str, Any]) -> bool:
        """Tell whether a split has images, but none of the label files that its format has for each image."""
        (root,) = absolute_roots([place])
        try:
            annotation_format, root, split, _ = _resolved(self._format_of(place), root, place["split"])
            return isinstance(annotation_format, YOLO) and annotation_format.is_unlabelled(root, split)
        except (DataError, OSError):
            return False  # reported when the split is opened

    def read(self, splits: Sequence[Mapping[str, Any]]) -> Annotations:
        """Read some splits. Raises `DataError` if a root, split, or file that all images share cannot be read."""
        roots = absolute_roots(splits)
        for root in dict.fromkeys(roots):
            check_root(root)
        names = [split["split"] for split in splits]
        formats = [self._format_of(split) for split in splits]
        key = tuple(zip(map(repr, formats), roots, names, strict=True))
        if key not in self._found:
            found = []
            for place in zip(formats, roots, names, strict=True):
                # The cache belongs to what the folder is taken for, since another file may change that.
                annotation_format, root, name, notes = _resolved(*place)
                one = read_cached(annotation_format, root, name, folder=self.cache_folder)
                found.append(replace(one, notes=[*notes, *one.notes]))
            self._found[key] = join(found, roots, names)
        return self._found[key]

    def check_class_rules(
        self, stages: Iterable[Mapping[str, Any] | None], class_names: Sequence[str] | None = None
    ) -> None:
        """Check that each class with a rule is in the splits of a stage, of which later ones are read only if needed.

        Raises `ConfigurationError` if there is no such class, or if a rule takes away a class of `class_names`.
        """
        names: list[str] = []
        for splits in [arguments["splits"] for arguments in stages if arguments and "splits" in arguments]:
            if not self.classes.unknown(names):
                break
            try:
                found = self.read(splits)
            except DataError:
                return  # reported when the split is opened
            names += [name for name in found.names if name not in names]
            if found.is_numbered:
                return
        if unknown := self.classes.unknown(names):
            raise ConfigurationError(unknown[0])
        used = set(map(self.classes, names))
        if gone := [name for name in class_names or () if name in names and name not in used]:
            raise ConfigurationError(
                f"data.class_names has '{gone[0]}', which data.exclude_classes, merge_classes or rename_classes takes "
                "away; give the names after these rules, or data.class_names=null for those of the files"
            )

    def choose(self, found: Annotations, **choice: Any) -> DetectionDataset:
        """Choose images, objects and classes; for the arguments see `__call__`."""
        return choose(found, classes=self.classes, on_error=self.on_error, max_images=self.max_images, **choice)


def _resolved(
    annotation_format: AnnotationFormat, root: Path, split: str
) -> tuple[AnnotationFormat, Path, str, Sequence[str]]:
    if not isinstance(annotation_format, Auto):
        return annotation_format, root, split, ()
    detected, split = annotation_format.detect(root, split)
    return detected.format, detected.root, split, detected.notes
