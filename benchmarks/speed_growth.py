"""Growth of time and memory per image with batch, classes, boxes, input and workers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch
from results import Point
from speed_images import MEAN, write_images

from helpers.datasets import FunctionOpener
from helpers.random_ssd import random_output, random_targets
from ssd_lightning.data.augmentation import SSDAugmentation
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.losses import MultiBoxLoss
from ssd_lightning.memory import peak_memory_mib
from ssd_lightning.models.postprocess import PostProcess
from ssd_lightning.models.ssd import SSD
from ssd_lightning.timing import seconds_of
from ssd_lightning.training.datamodule import DetectionDataModule
from ssd_lightning.types import SSDOutput

Work = Callable[[], object]
AXES = {
    "batch": (1, 4, 16, 64, 256),
    "classes": (1, 20, 80, 600),
    "boxes": (0, 1, 10, 100, 500),
    "input": (300, 512, 1024),
    "workers": (0, 1, 2, 4, 8, 16),
}
BASE = {"batch": 8, "classes": 20, "boxes": 4, "input": 300}
"""Values of the other axes while one grows."""
CPU_NETWORK_BATCH = 64
"""Largest batch of the network on a CPU: one image takes a fifth of a second."""


def measure_growth(
    network: Callable[[int], SSD],
    *,
    device: torch.device,
    folder: Path,
    axes: Mapping[str, Sequence[int]] = AXES,
    repeats: int = 3,
    samples: int = 1024,
) -> Iterator[Point]:
    """Measure every part along every axis that affects it, curve by curve.

    Args:
        network: builds the network for an input size and 20 classes.
        device: device of the measurement.
        folder: folder for images.
        axes: sizes of each axis.
        repeats: repetitions for each point; the median counts.
        samples: samples of an epoch of the loader.
    """
    for part, make, base, names in (
        ("loss", _loss, BASE, ("batch", "classes", "boxes", "input")),
        ("postprocess", _postprocess, BASE, ("batch", "classes", "input")),
        ("network", _forward, BASE | {"batch": 1}, ("batch", "input")),
    ):
        for axis in names:
            for size in axes[axis]:
                at = base | {axis: size}
                if part == "network" and device.type == "cpu" and at["batch"] > CPU_NETWORK_BATCH:
                    continue
                work = make(network(at["input"]).to(device, memory_format=torch.channels_last), at)
                mib = peak_memory_mib(work, device)  # warms up too
                seconds = median(seconds_of(work, device) for _ in range(repeats))
                yield Point(part, axis, size, seconds * 1e3 / at["batch"], None if mib is None else mib / at["batch"])
    yield from _measure_loader(folder, axes["workers"], samples)


def _loss(net: SSD, at: Mapping[str, int]) -> Work:
    output = random_output(at["batch"], net.priors_cxcywh, at["classes"])
    targets = random_targets(at["batch"], at["classes"], (at["boxes"], at["boxes"]))
    loss = MultiBoxLoss()

    def work() -> None:
        output.box_offsets.grad = output.class_logits.grad = None
        losses = loss(output, targets)
        (losses["loss_box"] + losses["loss_cls"]).backward()

    return work


def _postprocess(net: SSD, at: Mapping[str, int]) -> Work:
    drawn = random_output(at["batch"], net.priors_cxcywh, at["classes"])
    return partial(PostProcess(), SSDOutput(*(tensor.detach() for tensor in drawn)))


def _forward(net: SSD, at: Mapping[str, int]) -> Work:
    images = torch.zeros(at["batch"], 3, *net.image_size, dtype=torch.uint8, device=net.priors_cxcywh.device)
    return torch.inference_mode()(partial(net.eval(), images))


def _measure_loader(folder: Path, workers: Sequence[int], samples: int, images: int = 64) -> Iterator[Point]:
    """Measure the paper's augmentation from JPEG files in the loader, with repeated images."""
    records = write_images(folder, images)
    annotations = [records[index % images] for index in range(samples)]
    for count in workers:
        data = DetectionDataModule(
            dataset=FunctionOpener(make=partial(DetectionDataset, annotations=annotations)),
            train={},
            val=None,
            test=None,
            image_size=BASE["input"],
            class_names=["object"],
            augmentation=SSDAugmentation(image_size=BASE["input"], fill=MEAN),
            num_workers=count,
        )
        loader = data.train_dataloader()
        for _ in range(2):  # the first epoch starts the workers
            seconds = seconds_of(lambda loader=loader: sum(len(batch) for batch, _ in loader), torch.device("cpu"))
        yield Point("loader", "workers", count, 1e3 * seconds / samples)
