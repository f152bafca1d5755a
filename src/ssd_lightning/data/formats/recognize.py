"""Recognise the formats that fit the files of a folder."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ssd_lightning.data.formats.builder import TableBuilder
from ssd_lightning.data.formats.coco import COCO
from ssd_lightning.data.formats.csv_boxes import CSV
from ssd_lightning.data.formats.csv_columns import SUFFIXES, column_values, files_with_splits
from ssd_lightning.data.formats.cvat import CVAT
from ssd_lightning.data.formats.files import visible_below
from ssd_lightning.data.formats.label_studio import LabelStudio, read_tasks
from ssd_lightning.data.formats.labelme import LabelMe
from ssd_lightning.data.formats.survey import Files, content_of, folder_of, start_of
from ssd_lightning.data.formats.via import VIA
from ssd_lightning.data.formats.voc import VOC
from ssd_lightning.data.formats.voc_places import has_xml, list_folder, lists_in
from ssd_lightning.data.formats.yolo import YOLO
from ssd_lightning.data.formats.yolo_settings import NAMES_FILES, Settings, read_settings
from ssd_lightning.data.image_suffixes import is_image_name
from ssd_lightning.data.split_annotations import AnnotationFormat
from ssd_lightning.data.split_names import kind_of
from ssd_lightning.errors import DataError

MAX_ROWS = 200_000
"""Rows of a CSV file that are counted."""


class Candidate(NamedTuple):
    """A format that fits."""

    format: AnnotationFormat
    splits: Sequence[str]
    num_images: int
    why: str
    files: Sequence[str] = ()
    """Its annotation files below the root; empty if settings or lists name them."""

    @property
    def name(self) -> str:
        """Name of the format."""
        return type(self.format).__name__


def candidates(files: Files) -> list[Candidate]:
    """Return what fits. The first wins among equals: label files of YOLO alone may lack the names of the classes."""
    root, settings = files.root, read_settings(files.root)
    xml = files.of_kind(".xml", _xml_kind)
    json_files = files.of_kind(".json", _json_kind)
    # LVIS has no file names
    coco = {
        path: _count(rb'"file_name"', root / path) or _count(rb'"coco_url"', root / path) for path in json_files["coco"]
    }
    label_studio = {path: _count_of(_count_tasks, root / path) for path in json_files["label studio"]}
    tables = {path: count for path in files.of(*SUFFIXES) if (count := _count_of(images_of_csv, root / path))}
    via = {path: _count(rb'"filename"', root / path) for path in json_files["via"]}
    via |= {path: count for path in files.of(".csv") if (count := _count_via_images(root / path))}
    descriptions = next((path for path in files.of(".csv") if "class-descriptions" in path), None)
    yolo = _yolo(files, settings)
    fitting = (
        yolo if settings.values else None,
        _voc(root, xml["annotation"]),
        _cvat(root, xml["annotations"]),
        _single_files(COCO(), root, coco, "JSON of COCO"),
        _folders(LabelMe(), json_files["labelme"], "labelme's JSON files"),
        _single_files(LabelStudio(), root, label_studio, "JSON of Label Studio"),
        _single_files(VIA(), root, via, "regions of VIA"),
        _csv(root, tables, descriptions),
        yolo if not settings.values else None,
    )
    return [found for found in fitting if found is not None]


def _yolo(files: Files, settings: Settings) -> Candidate | None:
    labels = files.of_kind(".txt", _txt_kind)["labels"]
    if not settings.values and not labels:
        return None
    folders = set(map(folder_of, labels))
    folders |= {folder for folder, paths in groupby(files.of(".txt"), key=folder_of) if _only_empty(files.root, paths)}
    of_folders = ["/".join(part for part in folder.split("/") if part.lower() != "labels") or "." for folder in folders]
    splits = [key for key in ("train", "val", "test") if settings.get(key)] + sorted(of_folders)
    why = settings.path.name if settings.values else f"text files such as {labels[0]}"
    in_folders = [path for path in files.of(".txt") if folder_of(path) in folders]  # some may be empty
    num_images = sum(PurePosixPath(path).name not in NAMES_FILES for path in in_folders)
    if not num_images:  # the settings name a folder outside of the root
        places = [place for split in splits for place in settings.found_places(split) if place is not None]
        num_images = sum(is_image_name(path) for place in set(places) for path in visible_below(place))
    return Candidate(YOLO(), splits, num_images, why, [] if settings.values else in_folders)


def _only_empty(root: Path, paths: Iterable[str]) -> bool:
    return all("labels" in path.lower().split("/") and not (root / path).stat().st_size for path in paths)


def _txt_kind(path: Path) -> str | None:
    is_label = re.match(rb"\d+(?:\.0+)?(?:[ \t]+[-+.\deE]+){4,}\s*?(\n|$)", start_of(content_of(path)))
    return "labels" if is_label and path.name not in NAMES_FILES else None


def _voc(root: Path, paths: Sequence[str]) -> Candidate | None:
    lists = lists_in(root)
    if lists is not None:
        names = sorted(lists)
        splits = [name for name in names if not name.endswith(tuple(f"_{other}" for other in names))]  # not cat_train
        folder = list_folder(root)
        why = next(iter(lists.values())).name if folder == root else folder.relative_to(root).as_posix()
        return Candidate(VOC(), splits, len(paths), why)
    found = _folders(VOC(), paths, "XML files")
    if found is None:
        return None
    bare = {split: re.sub("^(annotations|labels)/", "", split, flags=re.I) for split in found.splits}
    return found._replace(splits=[name if has_xml(root, name) else split for split, name in bare.items()])


def _folders(annotation_format: VOC | LabelMe, paths: Sequence[str], what: str) -> Candidate | None:
    """Describe a format with a file for each image, and a folder for each split."""
    splits = list(dict.fromkeys(map(_split_folder, paths)))
    return Candidate(annotation_format, splits, len(paths), f"{what} such as {paths[0]}", paths) if paths else None


def _split_folder(path: str) -> str:
    """Return the folder that is the split of a file: up to the first part with a word that splits are called."""
    parts = PurePosixPath(path).parent.parts
    number = next((number for number, part in enumerate(parts, start=1) if kind_of(part)), 0)
    return "/".join(parts[:number]) or "."


def _xml_kind(path: Path) -> str | None:
    found = re.search(rb"<(annotations?)[\s>]", start_of(content_of(path)), re.IGNORECASE)
    return found[1].decode().lower() if found else None


def _cvat(root: Path, paths: Sequence[str]) -> Candidate | None:
    counts = {path: _count(rb"<image\s", root / path) for path in paths}
    found = _single_files(CVAT(), root, counts, "XML with <annotations>")
    if found is None or "annotations.xml" not in paths:
        return found
    stated = re.findall(rb'<image\s[^>]*\ssubset="([^"]+)"', content_of(root / "annotations.xml"))
    subsets = sorted({subset.decode(errors="replace") for subset in stated})
    if len(subsets) < 2:
        return found
    return found._replace(splits=[*subsets, *(split for split in found.splits if split != ".")])


def _json_kind(path: Path) -> str | None:
    """Tell by its keys what a JSON file is. Files of 500 MB are not parsed for that."""
    content = content_of(path)

    def has(*keys: str) -> bool:
        return all(content.find(b'"%s"' % key.encode()) >= 0 for key in keys)

    if start_of(content).startswith(b"["):
        is_full = has("data", "annotations") or has("data", "completions")
        return "label studio" if is_full or has("original_width") or has("annotation_id", "annotator") else None
    if has("shapes", "imagePath"):
        return "labelme"
    if has("filename", "regions", "file_attributes"):
        return "via"
    return "coco" if has("images", "annotations", "categories") else None


def _single_files(
    annotation_format: COCO | CSV | CVAT | LabelStudio | VIA, root: Path, counts: Mapping[str, int], what: str
) -> Candidate | None:
    """Describe a format by the number of images in each of its files."""
    if not counts:
        return None
    splits = sorted((_split_of(path, root, annotation_format.locations) for path in counts), key=counts.__contains__)
    return Candidate(annotation_format, splits, sum(counts.values()), f"{what}, {next(iter(counts))}", [*counts])


def _csv(root: Path, counts: Mapping[str, int], descriptions: str | None) -> Candidate | None:
    found = _single_files(CSV(class_descriptions=descriptions), root, counts, "CSV with boxes")
    of_columns = {name.relative_to(root).as_posix(): splits for name, splits in files_with_splits(root).items()}
    in_columns = sorted(frozenset().union(*(splits for path, splits in of_columns.items() if path in counts)))
    if found is None or not in_columns:
        return found
    rest = _single_files(CSV(), root, {path: n for path, n in counts.items() if path not in of_columns}, "")
    return found._replace(splits=[*in_columns, *(rest.splits if rest else ())])


def _split_of(path: str, root: Path, patterns: Sequence[str]) -> str:
    """Name the split of a file: by the usual location of the file, else by its path."""
    known = [re.fullmatch(re.escape(pattern).replace(r"\{split\}", "(.+)"), path) for pattern in patterns]
    for name in (".", *(found[1] for found in known if found)):
        places = (root / pattern.format(split=name) for pattern in patterns)
        if next(filter(os.path.isfile, places), None) == root / path:
            return name
    return path


def _count(pattern: bytes, path: Path) -> int:
    return len(re.findall(pattern, content_of(path)))


def _count_via_images(path: Path) -> int:
    content = content_of(path)
    is_via = b"region_shape_attributes" in start_of(content)
    return len(set(re.findall(rb'^"?([^,"\r\n]+)', content, re.MULTILINE))) - 1 if is_via else 0


def _count_tasks(path: Path) -> int:
    return len(read_tasks(path, TableBuilder()))


def _count_of(count: Callable[[Path], int], path: Path) -> int:
    try:
        return count(path)
    except DataError:
        return 0  # the reader reports the error


def images_of_csv(path: Path) -> int:
    """Count the images of a CSV file. Raises `DataError` if it cannot be read."""
    return len(set(islice(column_values(path, "image"), MAX_ROWS)))
