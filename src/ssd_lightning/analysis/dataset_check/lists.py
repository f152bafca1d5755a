"""Images that the list of a split contains more than once, or not at all."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ssd_lightning.analysis.issues import Issue
from ssd_lightning.data.annotations import Annotations, AnnotationTable
from ssd_lightning.data.dataset import shared_files
from ssd_lightning.data.formats.files import read_lines
from ssd_lightning.data.formats.voc import lists_in
from ssd_lightning.data.image_suffixes import is_image_name
from ssd_lightning.data.joining import absolute_roots
from ssd_lightning.errors import one_line


def repeated_issues(split: str, annotations: AnnotationTable, lists: Sequence[Mapping[str, str]] = ()) -> list[Issue]:
    """Find images that a split contains more than once, by their files.

    `lists` has `root` and `split` of each VOC list that it was opened from; its reader uses an image once.
    """
    shared = shared_files(zip(annotations.image_paths, annotations.image_ids, strict=True))
    sentences = [*shared, *_of_lists(lists)]
    return [Issue("warning", "repeated", split, one_line(sentence)) for sentence in sentences]


def _of_lists(splits: Sequence[Mapping[str, str]]) -> Iterator[str]:
    for root, place in zip(absolute_roots(splits), splits, strict=True):
        path = (lists_in(root) or {}).get(place["split"])
        if path is None:  # folders contain no image twice
            continue
        lines = defaultdict(list)
        for number, line in enumerate(read_lines(path), start=1):
            lines[line.strip()].append(str(number))
        for name, numbers in lines.items():
            if name and len(numbers) > 1:
                yield f"{path}: names '{name}' {len(numbers)} times (lines {', '.join(numbers)}); it is read once"


def unlisted_issues(found: Iterable[Annotations], *, at_most: int = 5) -> Iterator[Issue]:
    """Find images that no CSV or JSON file of a whole split names, in the folders of those that one does.

    Args:
        found: annotations of all splits, which may share a folder. Other formats report such images when they are read.
        at_most: how many an issue names.
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
            shown = ", ".join(others[:at_most]) + ", ..." * (len(others) > at_most)
            sentence = one_line(f"{folder}: {len(others)} images are not read: {shown}")
            yield Issue("warning", "unlisted", "train", sentence)
