"""Open the splits of a data set, with their issues in place of errors."""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssd_lightning.analysis.dataset_check.splits import DatasetCheck
from ssd_lightning.analysis.health import pixel_origin_issues
from ssd_lightning.analysis.issues import Issue
from ssd_lightning.data.annotations import AnnotationTable
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.detection_data import DetectionData
from ssd_lightning.data.formats import VOC
from ssd_lightning.data.formats.files import MissingLabelsError, MissingSplitError, check_root, read_lines
from ssd_lightning.data.formats.voc_places import lists_in
from ssd_lightning.data.image_suffixes import is_image_name
from ssd_lightning.data.inspection import count_edges, open_leniently
from ssd_lightning.data.reading import DatasetOpener
from ssd_lightning.data.split_annotations import Annotations, absolute_roots, shared_files
from ssd_lightning.data.stages import STAGES
from ssd_lightning.errors import DataError, listed, one_line

log = logging.getLogger(__name__)


def open_splits(
    data: DetectionData, *, class_names: Sequence[str] | None, decode: bool, needs_test: bool
) -> DatasetCheck:
    """Open all splits that can be opened, of the prepared data of a run.

    Without `class_names`, those of the training split are taken. `decode` says whether images are decoded later, and
    `needs_test` whether the run ends with a test, so that a missing test split is an error.

    Raises:
        DataError: the root or the training split does not exist.
    """
    opener = data.opener
    check = DatasetCheck(on_error=opener.on_error, resize=data.resize)
    splits = [split for split in STAGES if data.stages.has(split)]
    log.info("reading the annotations of %s", ", ".join(splits))
    opener.check_class_rules(map(data.stages.arguments, splits), class_names)
    for split in splits:
        arguments = data.stages.arguments(split)
        places = arguments.get("splits", ())
        for place in places:
            check_root(Path(place["root"]).expanduser())
        arguments["class_names"] = class_names or list(check.class_names) or None
        try:
            dataset = check.datasets[split] = open_leniently(opener, decode=decode, **arguments)
            check.issues += _issues_of(split, dataset, opener, places)
        except DataError as error:
            if isinstance(error, MissingSplitError) and split == "train":
                raise
            # A missing test split is reported when it is requested, which may never happen.
            is_of_later = isinstance(error, MissingSplitError | MissingLabelsError)
            only_later = is_of_later and split == "test" and not needs_test
            check.issues.append(Issue("warning" if only_later else "error", "unopened", split, str(error)))
    opened = [split for split in splits if split in check.datasets]
    check.issues += unlisted_issues(opener.read(data.stages.arguments(split)["splits"]) for split in opened)
    return check


def _issues_of(
    split: str, dataset: DetectionDataset, opener: DatasetOpener, places: Sequence[Mapping[str, Any]]
) -> list[Issue]:
    objects = dataset.annotations.objects()
    num_clipped = int(dataset.annotations.columns.overhangs[objects.row].sum())
    issues = repeated_issues(split, dataset.annotations, places if isinstance(opener.format, VOC) else ())
    if num_clipped:
        text = (
            f"{split}: {num_clipped} of {len(objects.row)} boxes reach out of their images, and the part inside is kept"
        )
        issues.append(Issue("warning", "clipped", split, text))
    log.info(
        "%s: %d images, %d usable objects; faults of the annotation: %d",
        split,
        len(dataset),
        len(objects.row),
        len(dataset.dropped),
    )
    if isinstance(opener.format, VOC) and split == "train":
        at_zero, at_one = count_edges(opener, places)
        issues += pixel_origin_issues(at_zero=at_zero, at_one=at_one, offset=opener.format.xml_offset)
    return issues


def repeated_issues(split: str, annotations: AnnotationTable, lists: Sequence[Mapping[str, str]] = ()) -> list[Issue]:
    """Find images that a split contains more than once, by their files.

    `lists` has `root` and `split` of each VOC list that it was opened from; its reader uses an image once.
    """
    sentences = list(shared_files(zip(annotations.image_paths, annotations.image_ids, strict=True)))
    for root, place in zip(absolute_roots(lists), lists, strict=True):
        path = (lists_in(root) or {}).get(place["split"])
        if path is None:  # folders contain no image twice
            continue
        lines = defaultdict(list)
        for number, line in enumerate(read_lines(path), start=1):
            lines[line.strip()].append(str(number))
        sentences += [
            f"{path}: names '{name}' {len(numbers)} times (lines {', '.join(numbers)}); it is read once"
            for name, numbers in lines.items()
            if name and len(numbers) > 1
        ]
    return [Issue("warning", "repeated", split, one_line(sentence)) for sentence in sentences]


def unlisted_issues(found: Iterable[Annotations]) -> Iterator[Issue]:
    """Find images that no CSV or JSON file of a whole split names, in the folders of those that one does.

    `found` are the annotations of all splits, which may share a folder. Other formats report such images when they are
    read.
    """
    named: dict[str, set[str]] = defaultdict(set)
    for annotations in found:
        columns = annotations.columns
        files = set(columns.files)
        if {Path(file).suffix for file in files} <= {".csv", ".tsv", ".json"} and len(files) < len(columns.image_paths):
            for path in columns.image_paths:
                folder, name = os.path.split(path)
                named[folder].add(name)
            for folder, name in (os.path.split(problem.file) for problem in annotations.problems):
                if folder in named:
                    named[folder].add(name)
    for folder, names in named.items():
        others = sorted(name for name in os.listdir(folder) if name not in names and is_image_name(Path(name)))
        if others:
            sentence = one_line(f"{folder}: {len(others)} images are not read: {listed(others, 5)}")
            yield Issue("warning", "unlisted", "train", sentence)
