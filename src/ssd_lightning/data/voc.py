"""The Pascal VOC layout: `JPEGImages/`, `Annotations/` and `ImageSets/Main/<split>.txt` under one root."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from ssd_lightning.data.annotation import check_class_names
from ssd_lightning.data.dataset import OnError, Part, Transform
from ssd_lightning.data.special_files import is_file
from ssd_lightning.data.split_dataset import SplitDataset
from ssd_lightning.data.splits import (
    MissingSplitError,
    absolute_roots,
    check_root,
    is_comment,
    picture_with_suffix,
    portable_path,
    read_lines,
    root_prefixes,
)
from ssd_lightning.data.voc_xml import object_name, parse_annotation, read_voc_annotation
from ssd_lightning.errors import DataError

# fmt: off
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on


class VOCDataset(SplitDataset):
    """Pictures with VOC annotations, from one or more splits.

    Args:
        splits: each a `root` (the folder of `JPEGImages`, `Annotations` and `ImageSets`) and a `split`, the
            name of a list in `ImageSets/Main`. VOC 07+12 is two of them.
        class_names: names of the classes 1..C; None takes all names that occur in the splits, sorted.
        keep_difficult: False drops objects flagged difficult, as ssd.pytorch does for training.
        xml_offset: subtracted from all four coordinates: 1 as most ports do, since VOC counts pixels from 1;
            0 as the Caffe reference does, and for tools that count from 0.
        on_error: `raise` stops at the first bad object or file; `skip` drops the object, or the picture where
            the whole file is unusable, and lists all of them in `dropped` and in a warning.
        transform, seed, part, val_fraction, max_pictures: see `SplitDataset`.

    Raises:
        DataError: a root, split, picture or annotation is missing or unusable; class names are empty or
            repeated; no picture is left.
    """

    def __init__(
        self,
        *,
        splits: Sequence[Mapping[str, str]],
        class_names: Sequence[str] | None = None,
        transform: Transform | None = None,
        seed: int = 0,
        keep_difficult: bool = True,
        xml_offset: int = 1,
        on_error: OnError = "raise",
        part: Part = "all",
        val_fraction: float = 0.0,
        max_pictures: int | None = None,
    ) -> None:
        if class_names is None:
            class_names = discover_class_names(splits, on_error=on_error)
        check_class_names(class_names)
        pictures = (
            (
                image_id,
                partial(
                    read_voc_annotation,
                    root / "Annotations" / f"{name}.xml",
                    class_names,
                    image_dir=root / "JPEGImages",
                    image_id=image_id,
                    name=name,
                    keep_difficult=keep_difficult,
                    xml_offset=xml_offset,
                ),
            )
            for image_id, root, name in list_images(splits)
        )
        super().__init__(
            roots=absolute_roots(splits),
            pictures=pictures,
            class_names=class_names,
            transform=transform,
            seed=seed,
            on_error=on_error,
            part=part,
            val_fraction=val_fraction,
            max_pictures=max_pictures,
        )


def discover_class_names(splits: Sequence[Mapping[str, str]], *, on_error: OnError = "raise") -> tuple[str, ...]:
    """Collect the class names of all objects in the splits, sorted.

    Raises:
        DataError: no object has a name; or an annotation cannot be parsed and `on_error` is `raise`.
    """
    names: set[str] = set()
    for _, root, name in list_images(splits):
        try:
            annotation = parse_annotation(root / "Annotations" / f"{name}.xml")
        except DataError:
            if on_error == "raise":
                raise
            continue  # the dataset meets this file again and lists it
        names.update(object_name(element) for element in annotation.iterfind("object"))
    names.discard("")
    if not names:
        where = ", ".join(f"{split['root']} '{split['split']}'" for split in splits)
        raise DataError(f"no object in {where or 'no split at all'} has a class name; give class_names")
    return tuple(sorted(names))


def list_images(splits: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, Path, str]]:
    """List (image id, root, name) of all pictures; one that is in several splits of a root comes once.

    With more than one root, the id begins with the root's folder: VOC2007/000005.

    Raises:
        DataError: a root or a list is missing.
    """
    roots = absolute_roots(splits)
    prefixes = root_prefixes(roots)
    seen: set[str] = set()
    for root, split in zip(roots, splits, strict=True):
        for name in _read_split(root, split["split"]):
            image_id = f"{prefixes[root]}{name}"
            if image_id not in seen:
                seen.add(image_id)
                yield image_id, root, name


def _read_split(root: Path, split: str) -> list[str]:
    check_root(root)
    folder = next((path for path in (root / "ImageSets" / "Main", root / "ImageSets") if path.is_dir()), None)
    if folder is None:
        raise DataError(f"{root}: this is no VOC folder, since it has no ImageSets/Main")
    path = folder / f"{split}.txt"
    if not path.is_file():
        raise MissingSplitError(path, split, (other.stem for other in folder.glob("*.txt")))
    try:
        lines = read_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the split: {error}") from error
    names = [_name_in(line, root) for line in lines if line.strip()]
    return [
        name
        for name in names
        if not is_comment(name, [root / "JPEGImages"]) or is_file(root / "Annotations" / f"{name}.xml")
    ]


def _name_in(line: str, root: Path) -> str:
    """Give the picture's name of a line `name` or, in the lists of one class, `name flag`."""
    whole = portable_path(line.strip())
    name, *flag = whole.rsplit(maxsplit=1)
    if not flag or flag[0] not in ("-1", "0", "1") or is_file(root / "Annotations" / f"{whole}.xml"):
        return whole
    image = root / "JPEGImages" / whole
    return name if picture_with_suffix(image.parent, image.name) is None else whole
