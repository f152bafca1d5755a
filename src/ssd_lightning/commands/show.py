"""Draw priors, augmented images, and the priors that are matched to each object."""

import logging
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from ssd_lightning.analysis.matched_priors import matched_objects, summarise_matches
from ssd_lightning.assembly import make_data, make_net
from ssd_lightning.auto_settings import resolve_augmentation, resolve_priors
from ssd_lightning.checks import require_choice, require_number
from ssd_lightning.command_line import CommandLine
from ssd_lightning.commands.evaluate import use_image_size
from ssd_lightning.data.images import read_image
from ssd_lightning.data.resize import as_resize_mode, plain_mode
from ssd_lightning.data.sampler import EpochSampler, SampleKey
from ssd_lightning.errors import ConfigurationError, DataError, listed
from ssd_lightning.inference.detector import Detector
from ssd_lightning.models.ssd import SSD
from ssd_lightning.ops.priors import Clip, as_height_width, make_priors
from ssd_lightning.training import DetectionDataModule
from ssd_lightning.visualization.draw_matches import draw_match_sheet
from ssd_lightning.visualization.draw_priors import draw_prior_levels, draw_prior_overview, split_by_level
from ssd_lightning.visualization.draw_samples import Sample, draw_augmentation
from ssd_lightning.visualization.fonts import drawable_names
from ssd_lightning.visualization.sheet import save_png
from ssd_lightning.visualization.tables import TextTable, counted, print_table, share

log = logging.getLogger(__name__)

OF_NETWORK = ("model", "backbone", "extras", "neck", "head", "priors", "augmentation.resize")
"""Settings, and groups of settings, that a checkpoint replaces."""
CLIPPING: Mapping[Clip, str] = {
    False: "not clipped",
    True: "centres and sides clipped to the image's",
    "size": "sides clipped to the image's",
}


def show(config: DictConfig) -> list[Path]:
    """Draw the selected images, and return their paths."""
    subjects = {"priors": show_priors, "batch": show_batch, "matches": show_matches}
    require_choice("what", config.what, tuple(subjects))
    require_number("num", config.num, 1, whole=True)
    require_number("draws", config.draws, 1, whole=True)
    if config.image is not None and config.what != "priors":
        raise ConfigurationError(f"image= is for what=priors; what={config.what} takes images of the data")
    return write_images(subjects[config.what](config), Path(config.output))


def show_priors(config: DictConfig) -> dict[str, np.ndarray]:
    """Draw the priors of every level and of all levels, and print a table."""
    net = read_network(config)
    boxes_cxcywh = prior_boxes(net)
    levels = split_by_level(boxes_cxcywh.numpy(), net.levels, net.image_size)
    resize = as_resize_mode(OmegaConf.select(config, "augmentation.resize"))
    image, _ = resize.apply(_image_below_priors(config), net.image_size)
    clipping = CLIPPING[net.clip_priors]
    height, width = net.image_size
    title = f"{len(boxes_cxcywh):,} priors of an input of {width} x {height} pixels"
    rows = [
        (str(at), *level.cells(), level.ratio_texts(), f"{level.count:,}", f"{level.share_reaching_out:.0%}")
        for at, level in enumerate(levels, 1)
    ]
    print_table(TextTable(("level", "cells", "step px", "squares px", "a cell", "priors", "reach out"), rows))
    print(f"{title}; {clipping}")
    return {
        "priors": draw_prior_levels(image, levels, title=title, clipping=clipping),
        "priors_overview": draw_prior_overview(image, levels, title=title, clipping=clipping),
    }


def show_batch(config: DictConfig) -> dict[str, np.ndarray]:
    """Draw images as annotated, and as augmented in the first epochs."""
    if config.checkpoint is not None:
        read_network(config)  # which sets the input size
    height, width = image_size = as_height_width(config.image_size, "image_size")
    data = open_training_data(config)
    dataset = data.dataset("train")
    rows = []
    for index in first_indices(data, config.num, config.seed):
        record = dataset.annotations[index]
        sides_px = record.size_px[::-1] * 2
        original = Sample(
            read_image(record.image_path, record.size_px),
            record.boxes_xyxy_px / sides_px,
            record.labels,
            record.difficult,
            f"{sides_px[0]} x {sides_px[1]}, {counted(len(record.labels), 'object')}",
        )
        row = [original]
        for epoch in range(config.draws):
            image, target = dataset[SampleKey(epoch, index)]
            boxes, labels, difficult = (target[name].numpy() for name in ("boxes", "labels", "difficult"))
            pixels = image.permute(1, 2, 0).numpy()
            row.append(Sample(pixels, boxes, labels, difficult, counted(len(labels), "object")))
        rows.append(row)
    mosaics = config.data.mosaic_probability
    lines = [f"Seed {config.seed}" + (f", mosaics with probability {mosaics:g}" if mosaics else "")]
    header = ["as annotated", *(f"epoch {epoch + 1}" for epoch in range(config.draws))]
    title = f"Training images as the network sees them, {width} x {height} pixels"
    drawn = draw_augmentation(rows, data.class_names, image_size=image_size, title=title, lines=lines, header=header)
    return {"batch": drawn}


def show_matches(config: DictConfig) -> dict[str, np.ndarray]:
    """Draw images of the first batch with the priors of each object, and print counts for the whole batch."""
    net = read_network(config)
    priors_cxcywh = prior_boxes(net)
    matcher = instantiate(config.loss.matcher, _convert_="all")
    data = open_training_data(config)
    dataset = data.dataset("train")
    indices = first_indices(data, max(config.num, config.data.batch_size), config.seed)
    images, targets = zip(*(dataset[index] for index in indices), strict=True)
    threshold = matcher.iou_threshold
    matched = matched_objects(
        matcher(targets, priors_cxcywh),
        targets,
        priors_cxcywh,
        levels=net.levels,
        iou_threshold=threshold,
        class_names=drawable_names(data.class_names),
    )
    print_matches(summarise_matches(matched, net.levels), threshold)
    rows = [
        (image.permute(1, 2, 0).numpy(), objects)
        for image, objects in islice(zip(images, matched, strict=True), config.num)
    ]
    height, width = net.image_size
    lines = [
        f"{len(priors_cxcywh):,} priors, {type(matcher).__name__} from IoU {threshold:g} on; seed "
        f"{config.seed}. Red, with !: no prior reaches the object; its best one is forced on it."
    ]
    title = f"Which priors match which object, {width} x {height} pixels"
    return {"matches": draw_match_sheet(rows, title=title, lines=lines)}


def open_training_data(config: DictConfig) -> DetectionDataModule:
    """Open the data with the augmentation of the training."""
    data = make_data(config)
    resolve_augmentation(config, data)
    return data


def read_network(config: DictConfig) -> SSD:
    """Load the network of the checkpoint, or build the one that the configuration describes on the meta device.

    With a checkpoint, the configuration takes over its input size and resize mode.
    """
    if config.checkpoint is not None:
        detector = Detector.load(config.checkpoint)
        given = CommandLine.current().names
        if "image_size" not in given:
            config.image_size = None  # a default
        use_image_size(config, detector)
        if unused := [name for name in given if any(f"{name}.".startswith(f"{one}.") for one in OF_NETWORK)]:
            log.warning("checkpoint=%s brings its own network; no effect: %s", config.checkpoint, listed(unused))
        if OmegaConf.select(config, "augmentation.resize") is not None:
            OmegaConf.update(config, "augmentation.resize", plain_mode(detector.resize), force_add=True)
        return detector.network
    if config.priors.fit:
        resolve_priors(config, make_data(config), None)
    with torch.device("meta"):
        return make_net(config, num_classes=1, pretrained=False)


def prior_boxes(net: SSD) -> Tensor:
    """Compute the priors of a network, `[K, 4]`, normalised. On the meta device its own have no values."""
    return make_priors(net.levels, net.image_size, clip=net.clip_priors)


def first_indices(data: DetectionDataModule, count: int, seed: int) -> list[int]:
    """Return the indices of the first training images of a run on one device, at most `count`."""
    size = len(data.dataset("train"))
    order = EpochSampler(size=size, seed=seed, pad=True, repeats=data.repeats)
    return [key.image for key in islice(order, count)]


def print_matches(summary: Mapping[str, Any], iou_threshold: float) -> None:
    """Print how many priors match the objects of a batch, in total and by level."""
    objects = summary["objects"]
    counts = [(name, str(count), share(count, objects)) for name, count in summary["by_count"].items()]
    forced = (f"forced: best IoU below {iou_threshold:g}", str(summary["forced"]), share(summary["forced"], objects))
    print(f"{counted(summary['images'], 'image')}, {counted(objects, 'object')}, {summary['priors']} matched priors")
    print_table(TextTable(("objects with", "objects", "share"), [*counts, forced]))
    levels = [
        (str(number), f"{level['priors']} of {level['of']:,}", str(level["objects"]), str(level["forced"]))
        for number, level in enumerate(summary["levels"], 1)
    ]
    print_table(TextTable(("level", "matched priors", "objects", "of these forced"), levels))


def write_images(images: Mapping[str, np.ndarray], folder: Path) -> list[Path]:
    """Write each image as `NAME.png`, replacing existing files, and print the paths."""
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, image in images.items():
            paths.append(folder / f"{name}.png")
            size = save_png(image, paths[-1])
            height, width = image.shape[:2]
            print(f"{paths[-1]}: {width} x {height} pixels, {size / 1000:.0f} kB")
    except OSError as error:
        raise DataError(f"output={folder}: cannot write there: {error}") from error
    return paths


def _image_below_priors(config: DictConfig) -> np.ndarray:
    if config.image is not None:
        return read_image(Path(config.image))
    try:
        data = make_data(config)
        dataset = data.dataset("val" if data.stages.has("val") else "train")
    except DataError as error:
        raise DataError(f"{error}; or give an image of your own: image=FILE") from error
    record = next((record for record in dataset.annotations if len(record.labels)), dataset.annotations[0])
    return read_image(record.image_path, record.size_px)
