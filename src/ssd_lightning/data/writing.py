"""Write a data set with its images: their names and suffixes, and whether they are copied or re-encoded."""

import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path

from PIL import Image

from ssd_lightning.data.annotations import ImageAnnotation
from ssd_lightning.data.formats.files import is_hidden
from ssd_lightning.data.image_suffixes import FORMAT_OF_SUFFIX, IMAGE_SUFFIXES, is_image_name
from ssd_lightning.data.images import image_format, image_size_px, read_image
from ssd_lightning.data.writers import Format
from ssd_lightning.errors import DataError

log = logging.getLogger(__name__)


def write_dataset(
    output: Path,
    target: Format,
    splits: Mapping[str, Sequence[ImageAnnotation]],
    class_names: Sequence[str],
    *,
    images: str,
) -> None:
    """Write all splits to a temporary folder, and move it into place when complete.

    An existing `output` is kept, since it may be the current directory or a volume: the parts of the data set are moved
    into it. `images` is `copy`, `link` (hard links) or `none`. Raises `DataError` if the set cannot be written, or the
    format cannot store the orientation of an image.
    """
    unfinished = working_folder(output) / f".{output.name}.unfinished"
    names = image_names(splits)
    with ThreadPoolExecutor() as pool:
        suffixes = {
            split: list(pool.map(lambda record: kept_suffix(record.image_path, target.image_suffixes), records))
            for split, records in splits.items()
        }
    placed: dict[str, list[ImageAnnotation]] = {}
    for split, records in splits.items():
        folder = unfinished / target.image_folder.format(split=split)
        paths = [
            folder / f"{name}{suffix or '.png'}" for name, suffix in zip(names[split], suffixes[split], strict=True)
        ]
        placed[split] = [replace(record, image_path=path) for record, path in zip(records, paths, strict=True)]
    if not target.states_size:
        _refuse_turned(splits)
    if not target.keeps_difficult:
        lost = sum(int(record.difficult.sum()) for records in splits.values() for record in records)
        if lost:
            log.warning("the format cannot mark difficult objects: %d become ordinary ones", lost)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        target.write(unfinished, placed, class_names)
        if images != "none":
            for split, records in splits.items():
                for record, copy, suffix in zip(records, placed[split], suffixes[split], strict=True):
                    _place(record, copy.image_path, decode=suffix is None, link=images == "link")
            if decoded := sum(of_split.count(None) for of_split in suffixes.values()):
                log.warning("%d images have a type that readers of the format ignore; they are written as PNG", decoded)
        if output.exists():
            for part in unfinished.iterdir():
                part.rename(output / part.name)
        else:
            unfinished.rename(output)
    except OSError as error:
        raise DataError(f"{output}: cannot write the data set there: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def working_folder(output: Path) -> Path:
    """Return a folder of the same file system as `output`, for what is moved or linked into it."""
    return output if output.exists() else output.parent


def image_names(splits: Mapping[str, Sequence[ImageAnnotation]]) -> dict[str, list[str]]:
    """Name the image of every record by its id, without a suffix.

    Names are unique, since in some formats two images of one name would share an annotation file. They differ in more
    than case, which some file systems ignore.
    """
    plain = {split: [_plain_name(record) for record in records] for split, records in splits.items()}
    taken = {name.casefold() for names in plain.values() for name in names}
    used: set[str] = set()
    for split, names in plain.items():
        for index, name in enumerate(names):
            if name.casefold() in used:
                others = (f"{split}_{name}" + (f"_{number}" if number > 1 else "") for number in count(1))
                names[index] = next(other for other in others if other.casefold() not in taken)
                taken.add(names[index].casefold())
            used.add(names[index].casefold())
    return plain


def _plain_name(record: ImageAnnotation) -> str:
    # VOC and YOLO lists have one name a line and strip surrounding blanks; XML and UTF-8 lack some characters.
    name = re.sub(r"[/\\\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]", "_", record.image_id)
    suffix = record.image_path.suffix if is_image_name(record.image_path) else ""
    name = name.removesuffix(suffix).strip() or "_"
    return f"image_{name}" if is_hidden(name) else name


def _refuse_turned(splits: Mapping[str, Sequence[ImageAnnotation]]) -> None:
    images = [(record.image_path, record.size_px) for records in splits.values() for record in records]
    with ThreadPoolExecutor() as pool:
        sizes = pool.map(lambda image: image_size_px(image[0]), images)
        for (path, (height, width)), upright_px in zip(images, sizes, strict=True):
            if (height, width) != upright_px:
                raise DataError(
                    f"{path}: its boxes are for an image of {width} x {height} px, but upright it is {upright_px[1]} x "
                    f"{upright_px[0]} px; the format cannot store this: remove its EXIF tag first"
                )


def _place(record: ImageAnnotation, target: Path, *, decode: bool, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if decode:
        write_as_png(record.image_path, target, record.size_px)
    elif link:
        os.link(record.image_path.resolve(), target)
    else:
        shutil.copyfile(record.image_path, target)


def kept_suffix(path: Path, suffixes: Sequence[str]) -> str | None:
    """Choose the suffix of a copied image; None if its pixels are written as PNG.

    Readers of the written data set accept `suffixes`, and check the content. Raises `DataError` if it is not an image.
    """
    if suffixes == IMAGE_SUFFIXES and is_image_name(path):
        return path.suffix
    name = image_format(path)
    content = next(suffix for suffix, usual in FORMAT_OF_SUFFIX.items() if usual == name)
    if content not in suffixes:
        return None
    return path.suffix if path.suffix.lower() in suffixes else content


def write_as_png(source: Path, target: Path, size_px: tuple[int, int]) -> None:
    """Write an image as PNG, as it is read for boxes that refer to a (height, width)."""
    Image.fromarray(read_image(source, size_px)).save(target)
