"""Open the splits of a data set, with their issues in place of errors."""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssd_lightning.analysis.dataset_check.splits import DatasetCheck, look_at
from ssd_lightning.analysis.health import pixel_origin_issues
from ssd_lightning.analysis.issues import Issue
from ssd_lightning.data.annotation_checks import RANGE_TOLERANCE_PX, Problem
from ssd_lightning.data.annotations import AnnotationTable
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.detection_data import DetectionData
from ssd_lightning.data.formats import VOC
from ssd_lightning.data.formats.files import MissingLabelsError, MissingSplitError, check_root, read_lines
from ssd_lightning.data.formats.voc_places import lists_in
from ssd_lightning.data.image_suffixes import is_image_name
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


def open_leniently(
    opener: DatasetOpener, *, splits: Sequence[Mapping[str, Any]], decode: bool = True, **choice: Any
) -> DetectionDataset:
    """Open a split with all problems of its annotations in `dropped`; it may be empty.

    With `decode`, images with boxes beyond the annotated size are decoded. If one has another size and contains the
    boxes, `dropped` lists the size instead of the boxes. For `splits` and `choice` see `DatasetOpener`.

    Raises:
        DataError: the list of images, or another file that all images share, cannot be read.
    """
    found = opener.read(splits)
    opener.log_notes(found)
    dataset = opener.choose(found, **choice)
    if decode:
        dataset.dropped = _measured(dataset.dropped, dataset.annotations)
    return dataset


def _measured(problems: Sequence[Problem], table: AnnotationTable) -> list[Problem]:
    """Replace boxes beyond the annotated size by the size, where the image has another that contains them."""
    outside = {problem.image_id for problem in problems if problem.kind == "outside"}
    facts = {image_id: look_at(table[row]) for row, image_id in enumerate(table.image_ids) if image_id in outside}
    measured: dict[Problem, None] = {}
    for problem in problems:
        known = facts.get(problem.image_id or "") if problem.kind == "outside" else None
        if known and known.problem and known.size_px and problem.reach_px:
            measured[known.problem] = None
            sides = zip(problem.reach_px, known.size_px[::-1], strict=True)
            if all(reach <= side + RANGE_TOLERANCE_PX for reach, side in sides):
                continue
        measured[problem] = None
    return list(measured)


def _issues_of(
    split: str, dataset: DetectionDataset, opener: DatasetOpener, places: Sequence[Mapping[str, Any]]
) -> list[Issue]:
    objects = dataset.annotations.objects()
    num_clipped = int(dataset.annotations.columns.overhangs[objects.row].sum())
    issues = repeated_issues(split, dataset.annotations, places if isinstance(opener.format, VOC) else ())
    num_objects = len(objects.row)
    if num_clipped:
        text = f"{split}: {num_clipped} of {num_objects} boxes reach out of their images, and the part inside is kept"
        issues.append(Issue("warning", "clipped", split, text))
    counts = f"{len(dataset)} images, {num_objects} usable objects; faults of the annotation: {len(dataset.dropped)}"
    log.info("%s: %s", split, counts)
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


def count_edges(opener: DatasetOpener, splits: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Count the left and upper edges at pixel 0 and at pixel 1 in VOC files."""
    assert isinstance(opener.format, VOC)
    found = replace(opener, format=replace(opener.format, xml_offset=0)).read(splits)
    starts = found.columns.boxes_xyxy_px[~found.columns.overhangs, :2]
    return int((starts == 0).sum()), int((starts == 1).sum())
