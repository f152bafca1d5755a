"""Growth of the cost of samples with their size, and of the loader's rate with its workers."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

import torch

from ssd_lightning.benchmarking.data import one_core, paper_augmentation, write_images
from ssd_lightning.benchmarking.growth import INPUT, INPUTS, Point
from ssd_lightning.data.augmentation import SSDAugmentation
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.timing import seconds_of
from ssd_lightning.training.datamodule import DetectionDataModule

WORKERS = (0, 1, 2, 4, 8, 16)
CPU = torch.device("cpu")


def measure_data(folder: Path, *, images: int = 64, samples: int = 1024, repeats: int = 3) -> Iterator[Point]:
    """Measure the paper's augmentation from JPEG files: on one core along `input`, in the loader along `workers`.

    Args:
        folder: folder for the images.
        images: number of generated images.
        samples: samples of an epoch of the loader, with repeated images.
        repeats: repetitions for each input size; the median counts.
    """
    records = write_images(folder, images)
    with one_core():
        for side in INPUTS:
            augment = paper_augmentation(records, side)
            augment()
            seconds = median(seconds_of(augment, CPU) for _ in range(repeats))
            yield Point("augmentation", "input", side, 1e3 * seconds / images)
    for workers in WORKERS:
        data = DetectionDataModule(
            dataset=partial(DetectionDataset, records=[records[index % images] for index in range(samples)]),
            train={},
            val=None,
            test=None,
            image_size=INPUT,
            class_names=["object"],
            augmentation=SSDAugmentation(image_size=INPUT),
            num_workers=workers,
        )
        loader = data.train_dataloader()
        seconds_of(lambda loader=loader: list(loader), CPU)  # type: ignore[misc]  # starts the workers
        seconds = seconds_of(lambda loader=loader: sum(len(batch) for batch, _ in loader), CPU)  # type: ignore[misc]
        yield Point("loader", "workers", workers, 1e3 * seconds / (len(loader) * loader.batch_size))  # type: ignore[operator]
