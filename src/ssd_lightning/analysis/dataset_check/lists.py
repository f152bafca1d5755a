"""Images that the list of a split contains more than once."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from ssd_lightning.analysis.issues import Issue
from ssd_lightning.data.annotations import AnnotationTable
from ssd_lightning.data.dataset import shared_files
from ssd_lightning.data.formats.files import read_lines
from ssd_lightning.data.formats.voc import find_list
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
        path = find_list(root, place["split"])
        if path is None:  # folders contain no image twice
            continue
        lines = defaultdict(list)
        for number, line in enumerate(read_lines(path), start=1):
            lines[line.strip()].append(str(number))
        for name, numbers in lines.items():
            if name and len(numbers) > 1:
                yield f"{path}: names '{name}' {len(numbers)} times (lines {', '.join(numbers)}); it is read once"
