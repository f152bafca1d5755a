"""Score a trained detector on annotated images."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from rich.progress import track
from torch.utils.data import DataLoader

from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.checks import require_choice, require_number
from ssd_lightning.command_line import warn_without
from ssd_lightning.commands.outputs import make_folder_of, writing_to
from ssd_lightning.data.dataset import DetectionDataset, require_objects
from ssd_lightning.data.detection_data import DetectionData
from ssd_lightning.data.reading import DatasetOpener
from ssd_lightning.data.resize import placements_of, undo_targets
from ssd_lightning.data.split_annotations import Annotations
from ssd_lightning.data.stages import STAGES
from ssd_lightning.data_settings import use_data_settings
from ssd_lightning.devices import choose_device
from ssd_lightning.errors import ConfigurationError, DataError, listed
from ssd_lightning.inference.checkpoints import find_checkpoint
from ssd_lightning.inference.detector import Detector
from ssd_lightning.inference.names import UniqueNames
from ssd_lightning.inference.writers import identity
from ssd_lightning.memory import keep_freed_memory
from ssd_lightning.metrics.coco import COCOMeanAveragePrecision
from ssd_lightning.metrics.voc import VOCMeanAveragePrecision
from ssd_lightning.reporting.images import draw_image
from ssd_lightning.run_files import json_text
from ssd_lightning.visualization.sheet import Panel, lay_out
from ssd_lightning.visualization.tables import print_scores

log = logging.getLogger(__name__)

SAVED = "saved"
"""Value of a setting of the post-processing that stays as it was in the training."""
COLUMNS = {"AP 11-point": "ap_11point", "AP area": "ap_area"}
SUMMARY = ("map_11point", "map_area", "map_50", "map_75", "map")
LEAST_DRAWN_SCORE = 0.4


def evaluate(config: DictConfig) -> dict[str, Any]:
    """Score one detector on one split, and return the scores as they are written to `output`."""
    if config.get("data") is None:
        raise ConfigurationError("say which images to score, e.g. data=voc2007 or data=voc_folder data.root=FOLDER")
    require_choice("split", config.split, STAGES)
    require_number("num_visualizations", config.num_visualizations, 1, whole=True)
    if config.visualizations is None:
        warn_without("visualizations", "num_visualizations")
    device = choose_device(config.device)
    keep_freed_memory(device)
    detector = Detector.load(config.checkpoint, device, backend=config.backend)
    settings: Any = OmegaConf.to_container(config.postprocess)
    detector.use_postprocess(**{name: value for name, value in settings.items() if value != SAVED})
    data = open_data(config, detector)
    for name in ("output", "record", "visualizations"):
        if config[name] is not None:
            make_folder_of(name, Path(config[name]), is_file=name != "visualizations")
    if config.visualizations:
        refuse_images_in(Path(config.visualizations), data.dataset(config.split))
    voc = VOCMeanAveragePrecision(len(detector.class_names))
    scores = score(detector, data.evaluation_loader(config.split), voc)
    per_class = {column: scores[key] for column, key in COLUMNS.items()}
    print_scores(f"{config.split}: {scores['images']} images", per_class, {k: scores[k] for k in SUMMARY})
    print(f"checkpoint: {find_checkpoint(Path(config.checkpoint))}")
    if config.output:
        with writing_to("output", config.output):
            Path(config.output).write_text(json_text(scores))
        print(f"scores:     {config.output}")
    dataset = data.dataset(config.split)
    record = EvaluationRecord.of(voc, dataset, split=config.split, class_names=detector.class_names)
    if config.record:
        with writing_to("record", config.record):
            record.save(config.record)
        print(f"record:     {config.record}")
    if config.visualizations:
        folder = Path(config.visualizations)
        with writing_to("visualizations", folder):
            draw_images(record, dataset, folder, count=config.num_visualizations)
        print(f"images:     {folder / 'overview.jpg'} (true boxes dashed in white)")
    return scores


def open_data(config: DictConfig, detector: Detector) -> DetectionData:
    """Open the split `split=` of the data `data=`, with the classes of a detector and the settings of its training.

    Raises:
        DataError: the data cannot be read, all objects were skipped, or the detector has none of their classes.
    """
    is_of_training = use_data_settings(config, detector.data_settings, checkpoint=config.checkpoint)
    use_image_size(config, detector)
    # In place of its Lightning subclass, whose import takes longer than all others together.
    plain = f"{DetectionData.__module__}.{DetectionData.__qualname__}"
    data: DetectionData = instantiate(config.data.module, _target_=plain, _convert_="all")
    data.use_class_names(detector.class_names)
    data.use_resize(detector.resize)
    data.prepare_data()
    arguments = data.stages.arguments(config.split)
    if detector.data_settings is None and arguments.get("part", "all") != "all" and config.split != "train":
        log.warning(
            "%s does not say which images its training held out: the %s split is a part of the images that may be "
            "trained on, unless data.val_fraction, data.fold and data.test_fraction are those of the training",
            config.checkpoint,
            config.split,
        )
    splits = arguments["splits"]
    if is_of_training and config.split == "test" and "part" not in arguments:
        of_training = frozenset().union(*map(data.opener.files, data.stages.arguments("train")["splits"]))
        if any(data.opener.files(split) & of_training for split in splits):
            log.warning("images of the test split are in the training split too: scores on them are too high")
    found = data.opener.read(splits)
    _require_fitting_classes(config, detector.class_names, data.opener, found)
    dataset = data.dataset(config.split)
    if dataset.dropped:
        require_objects(dataset, config.split)
    objects = dataset.annotations.objects()
    num_objects = len(objects.labels)
    if num_objects and objects.difficult.all():
        log.warning(
            "all %d objects of the %s split are crowds or difficult: the metrics ignore them, and no class has a score",
            num_objects,
            config.split,
        )
    return data


def use_image_size(config: DictConfig, detector: Detector) -> None:
    """Fill in the input size of a detector. Raises `ConfigurationError` if `image_size=` is another one."""
    height, width = detector.image_size
    if config.image_size not in (None, [height, width], height if height == width else None):
        raise ConfigurationError(
            f"image_size is {config.image_size}, but the input of {config.checkpoint} is [{height}, {width}], which a "
            "training sets: leave it out"
        )
    OmegaConf.update(config, "image_size", [height, width])


def _require_fitting_classes(
    config: DictConfig, class_names: Sequence[str], opener: DatasetOpener, found: Annotations
) -> None:
    """Raise `DataError` if a detector knows no class of the split, or if files without names number them otherwise."""
    stated = config.data.class_names
    if found.is_numbered and stated is not None and list(stated) != list(class_names[: len(stated)]):
        raise DataError(
            f"{' and '.join(found.roots)}: the files name no classes, and data.class_names={list(stated)} numbers them "
            f"otherwise than the model, which knows {listed(class_names)}: write the names into a file of the data "
            "set, such as data.yaml"
        )
    others = [name for name in map(opener.classes, found.names[: found.num_declared]) if name is not None]
    if others and not found.is_numbered and not set(others) & set(class_names):
        raise DataError(
            f"the model knows {listed(class_names)}; the annotations of the {config.split} split have "
            f"{listed(others)}: they share none"
        )


def score(detector: Detector, loader: DataLoader, voc: VOCMeanAveragePrecision | None = None) -> dict[str, Any]:
    """Run a detector over a loader and return VOC and COCO scores in plain values; `voc` stores the detections."""
    voc = VOCMeanAveragePrecision(len(detector.class_names)) if voc is None else voc
    coco = COCOMeanAveragePrecision()
    num_images = 0
    for images, targets in track(loader, description="detecting", transient=True):
        detections, targets = detector.detect(images, placements_of(targets)), undo_targets(targets)
        voc.update(detections, targets)
        coco.update(detections, targets)
        num_images += len(images)
    scores = coco.compute() | voc.compute()
    means = {name: float(scores[name]) for name in ("map_11point", "map_area", "map", "map_50", "map_75")}
    of_classes = {
        name: dict(zip(detector.class_names, scores[name].tolist(), strict=True)) for name in COLUMNS.values()
    }
    return {"images": num_images, **means, **of_classes}


def refuse_images_in(folder: Path, dataset: DetectionDataset) -> None:
    """Raise `DataError` if a folder has an image of a data set, which a drawing of its name would replace."""
    present = {identity(path) for path in folder.iterdir()} - {None}
    for path in map(Path, dataset.annotations.image_paths if present else ()):
        if identity(path) in present:
            raise DataError(f"visualizations={folder}: the drawings could replace {path}; choose another folder")


def draw_images(record: EvaluationRecord, dataset: DetectionDataset, folder: Path, *, count: int) -> None:
    """Draw detections next to ground truth, for `count` images spread over the data set; `overview.jpg` has all."""
    folder.mkdir(parents=True, exist_ok=True)
    panels, names = [], UniqueNames()
    names.take("overview")
    for annotation in dataset.annotations[:: max(1, len(dataset) // count)][:count]:
        drawn = draw_image(record, record.image_ids.index(annotation.image_id), LEAST_DRAWN_SCORE)
        drawn.save(folder / f"{names.take(annotation.image_path.stem)}.jpg", quality=92)
        panels.append(Panel(np.asarray(drawn)))
    if panels:
        Image.fromarray(lay_out(panels, columns=4)).save(folder / "overview.jpg", quality=92)
