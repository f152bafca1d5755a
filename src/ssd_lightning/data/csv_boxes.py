"""CSV files with one object per row: the columns of OpenImages, d2l.ai's bananas and most other tools."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from ssd_lightning.data.annotation import (
    Objects,
    check_class_names,
    checked_box,
    label_of,
    number_classes,
    refuse_fractions,
    refuse_pixels,
)
from ssd_lightning.data.csv_table import ANNOTATION_FILES, CSVFile, ImageRows, Unit, read_csv_file
from ssd_lightning.data.dataset import ImageAnnotation, OnError, Subset, Transform
from ssd_lightning.data.images import image_size_px
from ssd_lightning.data.split_dataset import ReadImage, SplitDataset
from ssd_lightning.data.splits import (
    absolute_roots,
    find_file,
    open_splits,
    parts_to_keep,
    require_image,
    unique_image_id,
)
from ssd_lightning.errors import ConfigurationError, DataError


class CSVDataset(SplitDataset):
    """Images with boxes from CSV files, from one or more splits.

    The header names the columns (`csv_table.COLUMN_NAMES`). Rows of the same image are merged. A row with empty class
    and corners (`csv_table.EMPTY`) stands for an image without objects.

    Args:
        splits: each a `root` and a `split`: the name in `NAME.csv`, `NAME/label.csv` or another entry of
            `csv_table.ANNOTATION_FILES`, or the path of the CSV file below the root.
        images: folder of the images below the root; None searches the usual folders.
        unit: unit of the corners; None means fractions for files with OpenImages' columns, else pixels.
        class_descriptions: names for codes such as /m/0k4j or 0: a mapping, or a file of (code, name) rows
            below the root; None keeps the codes.
        class_names: names of the classes 1..C; None takes all names that occur in the splits, sorted.
        keep_difficult: False drops difficult objects, and groups, which OpenImages flags `IsGroupOf`.
        on_error: `raise` stops at the first bad object or image; `skip` drops and lists them.
        transform, seed, part, val_fraction, max_images: see `SplitDataset`.

    Raises:
        ConfigurationError: `unit` is unknown.
        DataError: a root, split, column or image is missing or unusable; class names are empty or repeated;
            no image is left.
    """

    def __init__(
        self,
        *,
        splits: Sequence[Mapping[str, str]],
        images: str | None = None,
        unit: Unit | None = None,
        class_descriptions: str | Mapping[Any, str] | None = None,
        class_names: Sequence[str] | None = None,
        transform: Transform | None = None,
        seed: int = 0,
        keep_difficult: bool = True,
        on_error: OnError = "raise",
        part: Subset = "all",
        val_fraction: float = 0.0,
        max_images: int | None = None,
    ) -> None:
        if unit is not None and unit not in get_args(Unit):
            raise ConfigurationError(f"unit={unit!r}: it is one of {get_args(Unit)}, or null to go by the columns")
        files = [read_csv_file(*opened, images, unit, class_descriptions) for opened in open_splits(splits)]
        if class_names is None:
            class_names = sorted({name for file in files for name in file.names if name})
            if not class_names:
                shown = ", ".join(str(file.path) for file in files) or "no split at all"
                raise DataError(f"no object in {shown} has a class name; give class_names")
        check_class_names(class_names)
        labels = number_classes(class_names)
        super().__init__(
            roots=absolute_roots(splits),
            images=(image for file in files for image in _images(file, labels, keep_difficult)),
            problems=[problem for file in files for problem in file.problems],
            class_names=class_names,
            transform=transform,
            seed=seed,
            on_error=on_error,
            part=part,
            val_fraction=val_fraction,
            max_images=max_images,
        )

    @staticmethod
    def split_sources(root: Path, split: str) -> Iterable[str]:
        """Return the CSV file of a split. Raises `DataError` if there is no such split."""
        return [str(find_file(root, split, ANNOTATION_FILES, ".csv"))]


def _images(file: CSVFile, labels: Mapping[str, int], keep_difficult: bool) -> Iterator[tuple[str, ReadImage]]:
    seen: set[str] = set()
    keep = parts_to_keep(file.rows)
    for name, rows in file.rows.items():
        image_id = file.prefix + unique_image_id(name, seen)
        find = partial(require_image, file.image_dir, name, root=file.root, keep=keep.get(name, 1), stated_by=file.path)
        yield image_id, partial(_read_image, file, rows, find, image_id, labels, keep_difficult)


def _read_image(
    file: CSVFile,
    rows: ImageRows,
    find: Callable[[], Path],
    image_id: str,
    labels: Mapping[str, int],
    keep_difficult: bool,
) -> tuple[ImageAnnotation, list[str]]:
    image_path = find()
    size_px = rows.size_px or image_size_px(image_path)
    height, width = size_px
    objects = Objects(keep_difficult=keep_difficult)
    objects.problems += rows.problems
    for start in range(0, len(rows.numbers), 7):
        line, index, difficult, *corners = rows.numbers[start : start + 7]
        class_name = file.names[int(index)]
        with objects.judging(f"{file.path}: line {int(line)} '{class_name}' of {image_path.name}"):
            if not objects.wants(difficult=bool(difficult)):
                continue
            label = label_of(class_name, labels)
            if file.unit == "pixels":
                refuse_fractions(corners, size_px)
            else:
                refuse_pixels(corners)
                corners = [share * side for share, side in zip(corners, (width, height) * 2, strict=True)]
            objects.add(label=label, box_xyxy_px=checked_box(corners, size_px), difficult=bool(difficult))
    return objects.record(image_id=image_id, image_path=image_path, size_px=size_px), objects.problems
