"""Turn annotated images into samples: the code that all annotation formats share."""

import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ssd_lightning.data.cache import ImageCache
from ssd_lightning.data.colour import to_planes
from ssd_lightning.data.images import choose_reduction, read_image, reduced_size_px
from ssd_lightning.data.mosaic import Mosaic, Sample
from ssd_lightning.data.resize import WHOLE, Resize
from ssd_lightning.data.sampler import SampleKey, read_key
from ssd_lightning.errors import ConfigurationError, DataError, one_line
from ssd_lightning.types import Target

log = logging.getLogger(__name__)

Subset = Literal["all", "train", "val"]
OnError = Literal["raise", "skip"]


@dataclass(frozen=True)
class ImageAnnotation:
    """One annotated image, before it is read from disk."""

    image_id: str
    image_path: Path
    size_px: tuple[int, int]
    """(height, width) of the image that the boxes refer to."""
    boxes_xyxy_px: np.ndarray
    """float32 `[N, 4]`, xyxy, 0-based, within [0, width] and [0, height]. The reader's settings say what is subtracted
    from the file's coordinates. Nothing is added for inclusive right and bottom edges."""
    labels: np.ndarray
    """int64 `[N]`, 1..C."""
    difficult: np.ndarray
    """bool `[N]`."""
    num_skipped: int = 0
    """Number of crowds and difficult objects that the reader skipped on request."""


class Transform(Protocol):
    """Turns an image and its boxes into a training or test sample."""

    def __call__(
        self, image: np.ndarray, boxes_xyxy: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Transform one sample.

        Args:
            image: uint8 `[H, W, 3]`, RGB.
            boxes_xyxy: float32 `[N, 4]`, normalised, valid.
            seed: seed of the sample; the same seed gives the same result in any process.

        Returns:
            The new image uint8 `[H', W', 3]`, the remaining boxes, float32 `[N', 4]` normalised, and
            their indices into the given boxes, int64 `[N']`.
        """
        ...


@runtime_checkable
class ScalableTransform(Transform, Protocol):
    """A transform that multi-scale training can use."""

    def at_size(self, image_size: tuple[int, int]) -> Transform:
        """Return the same transform for another output size (height, width)."""
        ...


def in_subset(image_id: str, part: Subset, val_fraction: float) -> bool:
    """Tell whether an image belongs to a part of its data set.

    The result depends only on the image's name. Reordered lists, new images or another seed do not change it.
    """
    if part == "all":
        return True
    held_out = zlib.crc32(image_id.encode(errors="surrogateescape")) / 2**32 < val_fraction
    return held_out == (part == "val")


def sample_seed(seed: int, epoch: int, index: int, copy: int = 0) -> int:
    """Return the seed of a sample in an epoch; it does not depend on the worker or rank.

    Copies of a sample within an epoch have different seeds. The 2 separates them from the seeds of mosaics.
    """
    return int(np.random.SeedSequence([seed, epoch, index, *([2, copy] if copy else [])]).generate_state(1)[0])


class DetectionDataset(Dataset[tuple[Tensor, Target]]):
    """Annotated images as (image uint8 `[3, H, W]` RGB, `Target`).

    Args:
        records: annotations of the images, in a fixed order.
        class_names: names of the classes 1..C.
        transform: transform of each sample; None returns the image unchanged.
        seed: root of all samples' seeds.
        on_error: `raise` stops at the first image that cannot be read. `skip` reads all images once at the
            start, drops those that fail, and lists them in `dropped` and in a warning.
        part: `train` and `val` are complementary parts of the data, `all` is the whole set.
        val_fraction: share of the images that `val` holds.
        dropped: a sentence for everything that was skipped while reading the annotations.

    Attributes:
        dropped: a sentence for every object and image that was skipped.
        mosaic: joins samples with others before the transform; None (the default) disables it.
        least_size_px: images of at least twice this (height, width) are read at 1/2, 1/4 or 1/8, but not smaller than
            this; None (the default) reads them at full size.
        cache: keeps images after the first read; None (the default) disables it. It uses the numbering of `records`
            and the sizes of `sizes_as_read_px`.

    Raises:
        ConfigurationError: `on_error`, `part` or `val_fraction` has an invalid value.
        DataError: no image is left. While reading a sample: its image is broken.
    """

    def __init__(
        self,
        *,
        records: Sequence[ImageAnnotation],
        class_names: Sequence[str],
        transform: Transform | None = None,
        seed: int = 0,
        on_error: OnError = "raise",
        part: Subset = "all",
        val_fraction: float = 0.0,
        dropped: Sequence[str] = (),
    ) -> None:
        if on_error not in get_args(OnError) or part not in get_args(Subset) or not 0 <= val_fraction <= 1:
            raise ConfigurationError(
                f"on_error={on_error!r}, part={part!r}, val_fraction={val_fraction!r}: on_error is one of "
                f"{get_args(OnError)}, part one of {get_args(Subset)}, val_fraction a number from 0 to 1"
            )
        self.class_names = tuple(class_names)
        self.transform = transform
        self._transform_at_size: dict[tuple[int, int], Transform] = {}
        self.seed = seed
        self.mosaic: Mosaic | None = None
        self.least_size_px: tuple[int, int] | None = None
        self.cache: ImageCache | None = None
        self.records = [record for record in records if in_subset(record.image_id, part, val_fraction)]
        self.dropped = [one_line(sentence) for sentence in dropped]
        if on_error == "skip":
            self._drop_unreadable()
        if self.dropped:
            log.warning("skipped %d objects or images:\n  %s", len(self.dropped), _shortened(self.dropped))
        if self.skipped:
            log.info("%s", self.skipped)
        shared = list(shared_files(self.records))
        if shared:
            log.warning("%d image files have more than one entry:\n  %s", len(shared), _shortened(shared))
        if not self.records:
            hint = "" if part == "train" else "; in a small set a larger data.val_fraction= holds some"
            raise DataError(
                f"no image is left in part '{part}' (val_fraction={val_fraction}; {len(self.dropped)} skipped){hint}"
            )

    def __len__(self) -> int:
        return len(self.records)

    @property
    def skipped(self) -> str:
        """A sentence with the number of crowds and difficult objects skipped on request; empty if there are none."""
        number = sum(record.num_skipped for record in self.records)
        return f"{number} crowds or difficult objects are skipped; data.train_difficult=true keeps them" * bool(number)

    @property
    def sizes_as_read_px(self) -> list[tuple[int, int]]:
        """(height, width) of every image as read, possibly reduced."""
        return [reduced_size_px(record.size_px, self._reduction(record)) for record in self.records]

    def __getitem__(self, key: int | SampleKey) -> tuple[Tensor, Target]:
        """Read one sample. The key is an index or a key of `EpochSampler`."""
        epoch, index, copy, image_size = (0, key, 0, None) if isinstance(key, int) else read_key(key)
        index = range(len(self.records))[index]  # supports dataset[-1], while seeds stay non-negative
        record = self.records[index]
        image, boxes, labels, difficult = self._read(epoch, index, copy)
        kept, read_size_px = np.arange(len(boxes)), (image.shape[0], image.shape[1])
        transform = self._transform_to(image_size) if image_size else self.transform
        if transform is not None:
            image, boxes, kept = transform(image, boxes, sample_seed(self.seed, epoch, index, copy))
        target = Target(
            boxes=torch.from_numpy(np.ascontiguousarray(boxes, dtype=np.float32)).reshape(-1, 4),
            labels=torch.from_numpy(labels[kept]),
            difficult=torch.from_numpy(difficult[kept]),
            image_id=record.image_id,
            size_px=record.size_px,
        )
        if isinstance(transform, Resize) and (placement := transform.placement(read_size_px)) != WHOLE:
            target["placement"] = placement
        return torch.from_numpy(to_planes(image)), target

    def _transform_to(self, image_size: tuple[int, int]) -> Transform:
        if image_size not in self._transform_at_size:
            assert isinstance(self.transform, ScalableTransform)
            self._transform_at_size[image_size] = self.transform.at_size(image_size)
        return self._transform_at_size[image_size]

    def _read(self, epoch: int, index: int, copy: int) -> Sample:
        if self.mosaic is not None and self.mosaic.acts_in(epoch):
            # The mosaic has its own random stream, separate from the transform's.
            rng = np.random.default_rng([self.seed, epoch, index, 1, *([copy] if copy else [])])
            partners = self.mosaic.partners(rng, len(self))
            if partners is not None:
                return self.mosaic.join(rng, [self._read_alone(i) for i in (index, *partners)])
        return self._read_alone(index)

    def _read_alone(self, index: int) -> Sample:
        record = self.records[index]
        height, width = record.size_px
        boxes = record.boxes_xyxy_px / np.array([width, height, width, height], dtype=np.float32)
        read = partial(read_image, record.image_path, record.size_px, reduction=self._reduction(record))
        image = read() if self.cache is None else self.cache.get(index, read)
        return Sample(image, boxes, record.labels, record.difficult)

    def _reduction(self, record: ImageAnnotation) -> int:
        return 1 if self.least_size_px is None else choose_reduction(record.size_px, self.least_size_px)

    def _drop_unreadable(self) -> None:
        with ThreadPoolExecutor() as pool:
            problems = list(pool.map(_problem_with, self.records))
        self.dropped += [problem for problem in problems if problem]
        self.records = [record for record, problem in zip(self.records, problems, strict=True) if not problem]


def _problem_with(record: ImageAnnotation) -> str | None:
    try:
        read_image(record.image_path, record.size_px)
    except DataError as error:
        return str(error)
    return None


def shared_files(records: Sequence[ImageAnnotation]) -> Iterator[str]:
    """Yield a sentence for each image file that several records share."""
    ids: dict[Path, list[str]] = {}
    for record in records:
        ids.setdefault(record.image_path, []).append(record.image_id)
    for path, names in ids.items():
        if len(names) > 1:
            shown = ", ".join(f"'{name}'" for name in dict.fromkeys(names))
            yield one_line(f"{path}: the split names it {len(names)} times (as {shown}); each counts")


def _shortened(lines: Sequence[str], at_most: int = 20) -> str:
    more = [f"and {len(lines) - at_most} more"] if len(lines) > at_most else []
    return "\n  ".join([*lines[:at_most], *more])


def collate(samples: Sequence[tuple[Tensor, Target]]) -> tuple[Tensor, list[Target]]:
    """Stack images to `[B, 3, H, W]`; targets stay a list, since images differ in their number of boxes."""
    images, targets = zip(*samples, strict=True)
    return torch.stack(images), list(targets)


Prepare = Callable[[], None]
"""Prepares the files before they are read: a download, or a generated set."""
