"""Write annotated images in another annotation format."""

import logging
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from ssd_lightning.analysis.health import FEW_IMAGES
from ssd_lightning.checks import require_choice
from ssd_lightning.command_line import warn_without
from ssd_lightning.data.annotation_checks import describe_problems
from ssd_lightning.data.annotations import ImageAnnotation
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.data.formats.files import MissingSplitError
from ssd_lightning.data.reading import DatasetOpener
from ssd_lightning.data.stages import STAGES, plan_stages
from ssd_lightning.data.tiles import check_tiles, write_tiles
from ssd_lightning.data.writers import FORMATS, written_class_names
from ssd_lightning.data.writing import working_folder, write_dataset
from ssd_lightning.errors import ConfigurationError, DataError

log = logging.getLogger(__name__)


def convert(config: DictConfig) -> dict[str, int]:
    """Convert a data set to another format. Returns the number of written images of each split."""
    if config.get("data") is None:
        raise ConfigurationError("say what to convert, e.g. data=voc_folder data.root=FOLDER")
    require_choice("to", config.to, tuple(FORMATS))
    require_choice("split", config.split, ("all", *STAGES))
    require_choice("images", config.images, ("copy", "link", "none"))
    if config.tiles is None:
        warn_without("tiles", "overlap")
    else:
        check_tiles(config.tiles, config.overlap)
        if config.images != "copy":
            raise ConfigurationError(
                f"tiles={config.tiles} writes new images; images={config.images} does not go with it"
            )
    output = Path(os.path.abspath(Path(config.output).expanduser()))
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise DataError(f"output={output}: it already exists and is not changed; choose a new or an empty folder")
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
                    raise DataError(describe_problems(dataset.dropped))
        write_dataset(output, FORMATS[config.to], splits, class_names, images=config.images)
    else:
        splits = write_tiled(output, config.to, splits, class_names, tiles=config.tiles, overlap=config.overlap)
    counts = {stage: len(records) for stage, records in splits.items()}
    _report(config.to, output, counts, class_names)
    return counts


def open_stages(config: DictConfig, opener: DatasetOpener) -> dict[str, DetectionDataset]:
    """Open the requested splits, with all that training holds out or drops. Raises `DataError` if there is none."""
    class_names = config.data.class_names
    stated: Any = {stage: OmegaConf.to_container(config.data.module[stage], resolve=True) for stage in STAGES}
    chosen = plan_stages(opener.files, **stated)
    opener.check_class_rules(chosen.values(), class_names)
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
    splits: Mapping[str, Sequence[ImageAnnotation]],
    class_names: Sequence[str],
    *,
    tiles: int,
    overlap: float,
) -> dict[str, Sequence[ImageAnnotation]]:
    """Cut all images into tiles, and write those; returns their annotations. Raises `DataError` if that fails."""
    cut: dict[str, Sequence[ImageAnnotation]] = {}
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{output.name}.tiles", dir=working_folder(output)) as folder:
            for split, records in splits.items():
                (Path(folder) / split).mkdir()
                cut[split] = write_tiles(records, Path(folder) / split, tiles=tiles, overlap=overlap)
            write_dataset(output, FORMATS[to], cut, class_names, images="link")
    except OSError as error:
        raise DataError(f"{output}: cannot write the tiles there: {error}") from error
    return cut


def _report(to: str, output: Path, counts: Mapping[str, int], class_names: Sequence[str]) -> None:
    print(f"{', '.join(f'{split}: {count} images' for split, count in counts.items())} in {output}")
    if to == "yolo":
        print(f"for ultralytics: data={shlex.quote(str(output / 'data.yaml'))}")
    training, num_images = next(iter(counts.items()))
    overrides = ["experiment=finetune"] * (num_images < FEW_IMAGES)
    overrides += [f"data={to}_folder", f"data.root={output}", f"data.train_split={training}"]
    overrides += ["data.val_split=val"] * ("val" in list(counts)[1:])
    overrides.append(f"data.test_split={'test' if 'test' in counts else 'null'}")
    if not FORMATS[to].keeps_class_order:
        names = (QuotedString(name, Quote.double).with_quotes() for name in class_names)
        overrides.append(f"data.class_names=[{','.join(names)}]")
    print(f"train on it: {shlex.join(['python', '-m', 'ssd_lightning.train', *overrides])}")
