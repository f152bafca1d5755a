"""`python -m ssd_lightning.convert`: write annotated images in another annotation format."""

import logging
import os
import re
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ssd_lightning.config import run_command
from ssd_lightning.data.image_suffixes import is_image_name
from ssd_lightning.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ssd_lightning.data.annotations import ImageAnnotation
    from ssd_lightning.data.dataset import DetectionDataset
    from ssd_lightning.data.reading import DatasetOpener
    from ssd_lightning.data.writers import Format
    from ssd_lightning.data.written_images import WrittenImage

log = logging.getLogger(__name__)

STAGES = ("train", "val", "test")
IMAGES = ("copy", "link", "none")


def main() -> None:
    """Run the command."""
    run_command("convert", convert)


def convert(config: "DictConfig") -> dict[str, int]:
    """Convert a data set to another format.

    Args:
        config: the composed `conf/convert.yaml`.

    Returns:
        Number of written images for each split.

    Raises:
        UserError: the data, the output or a setting are not usable.
    """
    from hydra.utils import instantiate

    from ssd_lightning.data.reading import describe_first
    from ssd_lightning.data.tiles import check_tiles
    from ssd_lightning.data.writers import FORMATS, written_class_names

    if config.get("data") is None:
        raise ConfigurationError("say what to convert, e.g. data=voc_folder data.root=FOLDER")
    for key, choices in {"to": tuple(FORMATS), "split": ("all", *STAGES), "images": IMAGES}.items():
        if config[key] not in choices:
            raise ConfigurationError(f"{key} is '{config[key]}'; it can be {', '.join(choices)}")
    if config.tiles is not None:
        check_tiles(config.tiles, config.overlap)
        if config.images != "copy":
            raise ConfigurationError(
                f"tiles={config.tiles} writes new images; images={config.images} does not go with it"
            )
    output = Path(os.path.abspath(Path(config.output).expanduser()))
    _refuse_to_overwrite(output)
    prepare = instantiate(config.data.module.prepare)
    if prepare is not None:
        prepare()
    opener = instantiate(config.data.module.dataset, _convert_="all")
    datasets = open_stages(config, opener)
    class_names = written_class_names(next(iter(datasets.values())).class_names, config.to)
    splits: dict[str, Sequence[ImageAnnotation]] = {stage: dataset.annotations for stage, dataset in datasets.items()}
    if config.tiles is None:
        if opener.on_error == "raise" and config.images != "none":
            for dataset in datasets.values():  # others have lost what cannot be read when they were opened
                dataset.drop_unreadable()
                if dataset.dropped:
                    raise DataError(describe_first(dataset.dropped))
        write_dataset(output, FORMATS[config.to], splits, class_names, images=config.images)
    else:
        splits = write_tiled(output, config.to, splits, class_names, tiles=config.tiles, overlap=config.overlap)
    counts = {stage: len(records) for stage, records in splits.items()}
    _report(config.to, output, counts, class_names)
    return counts


def open_stages(config: "DictConfig", opener: "DatasetOpener") -> "dict[str, DetectionDataset]":
    """Open the requested splits in full, including images that training holds out or drops.

    Raises:
        DataError: a requested split is missing, or no split exists.
    """
    from omegaconf import OmegaConf

    from ssd_lightning.data.formats.files import MissingSplitError
    from ssd_lightning.data.stages import choose_splits

    class_names = config.data.class_names
    stated: Any = {stage: OmegaConf.to_container(config.data.module[stage], resolve=True) for stage in STAGES}
    chosen = choose_splits(opener.files, **stated)
    datasets: dict[str, DetectionDataset] = {}
    missing: list[str] = []
    for stage in STAGES if config.split == "all" else (config.split,):
        arguments = chosen[stage] or {}
        held_out = stage == "val" and arguments.get("part") == "val"
        if held_out or not arguments.get("splits"):
            why = "; its images are taken from the training split" if held_out else ""
            missing.append(f"the data set has no {stage} split of its own{why}")
            continue
        try:
            datasets[stage] = opener(splits=arguments["splits"], class_names=class_names)
        except MissingSplitError as error:
            if stage == "train":
                raise
            log.warning("%s: skipped", error)
            missing.append(str(error))
            continue
        class_names = datasets[stage].class_names
    if not datasets:
        raise DataError("; ".join(missing))
    return datasets


def write_tiled(
    output: Path,
    to: str,
    splits: "Mapping[str, Sequence[ImageAnnotation]]",
    class_names: Sequence[str],
    *,
    tiles: int,
    overlap: float,
) -> "dict[str, Sequence[ImageAnnotation]]":
    """Cut all images into tiles, and write those; returns their annotations.

    Raises:
        DataError: an image cannot be read, or the tiles cannot be written.
    """
    from ssd_lightning.data.tiles import write_tiles
    from ssd_lightning.data.writers import FORMATS

    cut: dict[str, Sequence[ImageAnnotation]] = {}
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{output.name}.tiles", dir=output.parent) as folder:
            for split, records in splits.items():
                (Path(folder) / split).mkdir()
                cut[split] = write_tiles(records, Path(folder) / split, tiles=tiles, overlap=overlap)
            write_dataset(output, FORMATS[to], cut, class_names, images="link")
    except OSError as error:
        raise DataError(f"{output}: cannot write the tiles there: {error}") from error
    return cut


def write_dataset(
    output: Path,
    target: "Format",
    splits: "Mapping[str, Sequence[ImageAnnotation]]",
    class_names: Sequence[str],
    *,
    images: str,
) -> None:
    """Write all splits to a temporary folder next to `output`, and move it into place when complete.

    Args:
        output: folder of the result.
        target: the format.
        splits: split -> records.
        class_names: names of the classes 1..C.
        images: `copy`, `link` (hard links) or `none`.

    Raises:
        DataError: it cannot be written, or the format cannot store the orientation of an image.
    """
    unfinished = output.with_name(f".{output.name}.unfinished")
    names = image_names(splits)
    plan = _plan_images(splits, target.image_suffixes)
    placed = {
        split: [
            replace(record, image_path=unfinished / target.image_folder.format(split=split) / f"{name}{image.suffix}")
            for record, name, image in zip(records, names[split], plan[split], strict=True)
        ]
        for split, records in splits.items()
    }
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
                for record, copy, image in zip(records, placed[split], plan[split], strict=True):
                    _place(record, copy.image_path, image, link=images == "link")
            _log_decoded(image for of_split in plan.values() for image in of_split)
        if output.exists():
            output.rmdir()
        unfinished.rename(output)
    except OSError as error:
        raise DataError(f"{output}: cannot write the data set there: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def image_names(splits: "Mapping[str, Sequence[ImageAnnotation]]") -> dict[str, list[str]]:
    """Name the image of every record by its id, without a suffix.

    Names are unique, since in some formats two images of one name would share an annotation file.
    """
    plain = {split: [_plain_name(record) for record in records] for split, records in splits.items()}
    kept = {name for names in plain.values() for name in names}
    used: set[str] = set()
    for split, names in plain.items():
        for index, name in enumerate(names):
            others = (f"{split}_{name}" + (f"_{number}" if number > 1 else "") for number in count(1))
            if name in used:
                names[index] = next(other for other in others if other not in kept | used)
            used.add(names[index])
    return plain


def _plain_name(record: "ImageAnnotation") -> str:
    # VOC and YOLO lists have one name a line and strip surrounding blanks; XML and UTF-8 lack some characters.
    name = re.sub(r"[/\\\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]", "_", record.image_id)
    suffix = record.image_path.suffix if is_image_name(record.image_path) else ""
    return name.removesuffix(suffix).strip() or "_"


def _plan_images(
    splits: "Mapping[str, Sequence[ImageAnnotation]]", suffixes: tuple[str, ...]
) -> "dict[str, list[WrittenImage]]":
    from concurrent.futures import ThreadPoolExecutor

    from ssd_lightning.data.written_images import plan_image

    with ThreadPoolExecutor() as pool:
        return {
            split: list(pool.map(lambda record: plan_image(record.image_path, suffixes), records))
            for split, records in splits.items()
        }


def _refuse_to_overwrite(output: Path) -> None:
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists():
        raise DataError(f"output={output}: this folder already exists and is not changed; choose a new one")


def _refuse_turned(splits: "Mapping[str, Sequence[ImageAnnotation]]") -> None:
    from concurrent.futures import ThreadPoolExecutor

    from ssd_lightning.data.images import image_size_px

    paths = [record.image_path for records in splits.values() for record in records]
    stated = [record.size_px for records in splits.values() for record in records]
    with ThreadPoolExecutor() as pool:
        sizes = pool.map(lambda path: image_size_px(path), paths)
        for path, size_px, upright_px in zip(paths, stated, sizes, strict=True):
            if tuple(size_px) != upright_px:
                raise DataError(
                    f"{path}: its boxes are for an image of {size_px[1]} x {size_px[0]} px, but upright it is "
                    f"{upright_px[1]} x {upright_px[0]} px; the format cannot store this: remove its EXIF tag first"
                )


def _place(record: "ImageAnnotation", target: Path, image: "WrittenImage", *, link: bool) -> None:
    from ssd_lightning.data.written_images import write_as_png

    target.parent.mkdir(parents=True, exist_ok=True)
    if not image.keeps_bytes:
        write_as_png(record.image_path, target, record.size_px)
    elif link:
        os.link(record.image_path.resolve(), target)
    else:
        shutil.copyfile(record.image_path, target)


def _log_decoded(images: "Iterable[WrittenImage]") -> None:
    decoded = sum(not image.keeps_bytes for image in images)
    if decoded:
        log.warning("%d images have a type that readers of the format ignore; they are written as PNG", decoded)


def _report(to: str, output: Path, counts: Mapping[str, int], class_names: Sequence[str]) -> None:
    from hydra.core.override_parser.types import Quote, QuotedString

    from ssd_lightning.data.writers import FORMATS

    print(f"{', '.join(f'{split}: {count} images' for split, count in counts.items())} in {output}")
    if to == "yolo":
        print(f"for ultralytics: data={shlex.quote(str(output / 'data.yaml'))}")
    overrides = [f"data={to}_folder", f"data.root={output}", f"data.train_split={next(iter(counts))}"]
    overrides += ["data.val_split=val"] * ("val" in list(counts)[1:])
    overrides.append(f"data.test_split={'test' if 'test' in counts else 'null'}")
    if not FORMATS[to].keeps_class_order:
        names = (QuotedString(name, Quote.double).with_quotes() for name in class_names)
        overrides.append(f"data.class_names=[{','.join(names)}]")
    print(f"train on it: {shlex.join(['python', '-m', 'ssd_lightning.train', *overrides])}")


if __name__ == "__main__":
    main()
