"""Data sets and loaders of training, validation and test."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from ssd_lightning.checks import require_bool, require_number, require_object
from ssd_lightning.data.annotation_checks import check_class_names
from ssd_lightning.data.cache import CacheKind, ImageCaches
from ssd_lightning.data.dataset import DetectionDataset, ScalableTransform, Transform, collate, require_objects
from ssd_lightning.data.mosaic import Mosaic
from ssd_lightning.data.overlap import warn_of_training_images
from ssd_lightning.data.reading import DatasetOpener
from ssd_lightning.data.resize import Resize, ResizeMode
from ssd_lightning.data.sampler import EpochSampler, MultiScale, multiscale_sizes, repeat_factors
from ssd_lightning.data.stages import STAGES, Stage, Stages
from ssd_lightning.errors import ConfigurationError, DataError
from ssd_lightning.processes import end_with_parent

REDUCED_TO = 5
"""Reduced decoding keeps each side at least this many times the input's side, so that crops still have the input's
resolution: the smallest crop, of scale .3 and aspect 2, has .3 * sqrt(1 / 2) = .21 of a side."""
MOST_WORKERS = 16


class DetectionData:
    """Data sets and loaders for training, validation and test, of one annotation format.

    Args:
        dataset: opens the data set of a split, from the arguments of a split (`train`, `val` or `test` below) and
            `class_names`, `transform`, `seed`.
        train: arguments of the training split. `plan_stages` fills in the splits that are not given.
        val: arguments of the validation split, which selects the best checkpoint. None trains without validation.
        test: arguments of the test split. None if there is none.
        image_size: size of the network's input, (height, width) or one number.
        class_names: names of the classes 1..C. None takes them from the training split.
        augmentation: transform of the training images. None only resizes them.
        resize: resize mode of validation and test: `stretch`, `letterbox` or a `ResizeMode`. It must match the
            augmentation.
        multiscale: range of the shorter side of the input in training (smallest, largest). Every optimiser step draws a
            multiple of 32 in this range. None uses `image_size`. Validation and test always use `image_size`.
        mosaic: joins training images before the augmentation. None disables it.
        prepare: called once on each machine before files are read, for example to download them.
        batch_size: images of one optimiser step, over all devices and accumulated batches. Devices share them evenly.
        eval_batch_size: images of a validation or test batch on each device. None uses the device's training batch.
        num_workers: processes that read images. None uses the machine's spare cores.
        prefetch_factor: batches that each worker reads ahead. None uses torch's default.
        cache: where decoded training and validation images are kept after the first read: `none`, `ram`, `disk`.
        cache_folder: folder of the cache files, on a local disk. The next run uses them again. It must not be None if
            `cache` is `disk`.
        reduced_decoding: decode images much larger than the input at 1/2, 1/4 or 1/8.
        repeat_rare: repeat training images with rare classes within an epoch, see `repeat_factors`.
        repeat_threshold: a class is rare if fewer than this share of the training images contain it.
        seed: seed of the order and of the augmentation.

    Raises:
        ConfigurationError: a setting is invalid.
        DataError: `class_names` is not a list of distinct names.
    """

    def __init__(
        self,
        *,
        dataset: DatasetOpener,
        train: Mapping[str, Any],
        val: Mapping[str, Any] | None,
        test: Mapping[str, Any] | None,
        image_size: int | Sequence[int],
        class_names: Sequence[str] | None = None,
        augmentation: Transform | None = None,
        resize: Any = "stretch",
        multiscale: Sequence[int] | None = None,
        mosaic: Mosaic | None = None,
        prepare: Callable[[], None] | None = None,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int | None = None,
        prefetch_factor: int | None = None,
        cache: CacheKind = "none",
        cache_folder: str | Path | None = "outputs/cache",
        reduced_decoding: bool = False,
        repeat_rare: bool = False,
        repeat_threshold: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require_number("data.batch_size", batch_size, 1, whole=True)
        optional = {"eval_batch_size": eval_batch_size, "num_workers": num_workers, "prefetch_factor": prefetch_factor}
        for name, number in optional.items():
            if number is not None:
                require_number(f"data.{name}", number, 0 if name == "num_workers" else 1, whole=True)
        require_bool("data.reduced_decoding", reduced_decoding)
        require_bool("data.repeat_rare", repeat_rare)
        require_number("data.repeat_threshold", repeat_threshold, 0, 1, above_low=True)
        require_number("seed", seed, 0, whole=True)
        require_object("data.module.dataset", dataset, DatasetOpener)
        if class_names is not None:
            check_class_names(class_names)
        self.opener = dataset
        self.stages = Stages(dataset, {"train": train, "val": val, "test": test})
        self._class_names = None if class_names is None else tuple(class_names)
        self._is_for_detector = False
        self._resize = Resize(image_size=image_size, resize=resize)
        self._augmentation = augmentation
        self._multiscale = None
        if multiscale is not None:
            self._multiscale = MultiScale(multiscale_sizes(multiscale, self._resize.image_size), seed)
            if augmentation is not None and not isinstance(augmentation, ScalableTransform):
                raise ConfigurationError(
                    f"data.multiscale={list(multiscale)}: {type(augmentation).__name__} makes samples of one size; "
                    "give it a method at_size, or set data.multiscale=null"
                )
        self._mosaic = mosaic
        self._prepare = prepare
        self.batch_size = batch_size
        self._eval_batch_size = eval_batch_size
        self._num_workers = num_workers
        self._prefetch_factor = prefetch_factor
        self._caches = ImageCaches(kind=cache, folder=cache_folder)
        self._with_cache: set[Stage] = set()
        self._reduced_decoding = reduced_decoding
        self._repeat_threshold = repeat_threshold if repeat_rare else None
        self._seed = seed
        self._datasets: dict[Stage, DetectionDataset] = {}

    @property
    def device_batch_size(self) -> int:
        """Images of a training batch on each device."""
        return self.batch_size

    @property
    def step_size(self) -> int:
        """Images of an optimiser step: `batch_size`, or fewer if the training split is smaller."""
        return self.device_batch_size

    @property
    def processes(self) -> int:
        """Processes that read on this machine, each with workers of its own."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # torchrun sets the variable

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 1..C."""
        if self._class_names is None:
            self._class_names = tuple(self.dataset("train").class_names)
        return self._class_names

    def use_class_names(self, class_names: Sequence[str]) -> None:
        """Use the class numbers of a trained detector.

        Raises:
            DataError: the data have a class that the detector does not know.
        """
        unknown = [name for name in self._class_names or () if name not in class_names]
        if unknown:
            known = ", ".join(class_names)
            raise DataError(
                f"the data have the class '{unknown[0]}', which the detector does not know; it knows {known}"
            )
        self._class_names = tuple(class_names)
        self._is_for_detector = True

    @property
    def resize(self) -> ResizeMode:
        """Resize mode of validation and test."""
        return self._resize.mode

    def use_resize(self, resize: ResizeMode) -> None:
        """Resize images as a trained detector does. Call this before a split is opened."""
        self._resize = Resize(image_size=self._resize.image_size, resize=resize)

    def prepare_data(self) -> None:
        """Call `prepare`."""
        if self._prepare is not None:
            self._prepare()

    def dataset(self, stage: Stage) -> DetectionDataset:
        """Open a split. Every call returns the same object.

        Raises:
            DataError: there is no such split, or it cannot be read.
        """
        if stage in self._datasets:
            return self._datasets[stage]
        arguments, is_training = self.stages.arguments(stage), stage == "train"
        if is_training and not self._is_for_detector:
            used = [self.stages.arguments(one) for one in STAGES if self.stages.has(one)]
            self.opener.check_class_rules(used, self._class_names)
        dataset = self.opener(
            **arguments,
            class_names=self._class_names if is_training else self.class_names,
            transform=(self._augmentation if is_training else None) or self._resize,
            seed=self._seed,
        )
        dataset.mosaic = self._mosaic if is_training else None
        if self._reduced_decoding:
            of_steps = self._multiscale.sizes if self._multiscale is not None and is_training else ()
            height, width = map(max, zip(self._resize.image_size, *of_steps, strict=True))
            dataset.least_size_px = (REDUCED_TO * height, REDUCED_TO * width)
        if is_training:
            require_objects(dataset, stage)
        elif "train" in self._datasets:
            warn_of_training_images(dataset, stage, self._datasets["train"])
        self._datasets[stage] = dataset
        return dataset

    def use_augmentation(self, augmentation: Transform) -> None:
        """Replace the augmentation of the training split."""
        self._augmentation = augmentation
        if "train" in self._datasets:
            self._datasets["train"].transform = augmentation

    @cached_property
    def repeats(self) -> np.ndarray | None:
        """How often each training image appears in an epoch, on average. None if each appears once."""
        if self._repeat_threshold is None:
            return None
        factors = repeat_factors(self.dataset("train").annotations, threshold=self._repeat_threshold)
        return factors if (factors > 1).any() else None

    def train_sampler(self) -> EpochSampler:
        """Return the sampler of training images and multi-scale sizes. It is the same on all ranks."""
        return EpochSampler(
            size=len(self.dataset("train")),
            seed=self._seed,
            pad=True,
            batch_size=self.step_size,
            repeats=self.repeats,
            multiscale=self._multiscale,
        )

    def train_loader(self, *, epoch: int = 0, samples_seen: int = 0) -> DataLoader:
        """Return the shuffled, augmented loader. All ranks have the same number of steps.

        Of the first epoch, `samples_seen` samples that all ranks together have seen are skipped.
        """
        dataset, sampler = self._cached_dataset("train"), self.train_sampler()
        sampler.resume(epoch=epoch, samples_seen=samples_seen)
        return self._loader(dataset, sampler, batch_size=self.device_batch_size)

    def evaluation_loader(self, stage: Stage) -> DataLoader:
        """Return a loader that yields every image of a split once over all ranks, in order.

        Raises:
            DataError: there is no such split, or it cannot be read.
        """
        dataset = self._cached_dataset(stage)
        # Padding would count some images twice.
        sampler = EpochSampler(size=len(dataset), seed=self._seed, shuffle=False, pad=False)
        return self._loader(dataset, sampler, batch_size=self._eval_batch_size or self.device_batch_size)

    def _loader(self, dataset: DetectionDataset, sampler: EpochSampler, *, batch_size: int) -> DataLoader:
        num_workers = spare_workers(self.processes) if self._num_workers is None else self._num_workers
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=num_workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=num_workers > 0,
            prefetch_factor=self._prefetch_factor if num_workers > 0 else None,
            # A separate generator: creating an iterator must not draw from the global random state.
            generator=torch.Generator().manual_seed(self._seed),
            worker_init_fn=self.worker_init,
        )

    def _cached_dataset(self, stage: Stage) -> DetectionDataset:
        dataset = self.dataset(stage)
        if stage not in self._with_cache and stage != "test":  # the test split is read only once
            paths = [Path(path) for path in dataset.annotations.image_paths]
            dataset.cache = self._caches.open(paths, dataset.sizes_as_read_px, processes=self.processes)
            self._with_cache.add(stage)
        return dataset

    @staticmethod
    def worker_init(worker: int) -> None:
        """End a data worker when its process ends. torch does not end a worker that waits to send a batch."""
        end_with_parent()


def spare_workers(ranks: int) -> int:
    """Divide the available CPU cores among the ranks of this machine, leaving one core for each rank."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, cores // ranks - 1))
