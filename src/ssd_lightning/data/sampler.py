"""The order of the samples of an epoch, their distribution over ranks, and the image size of each step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import distributed
from torch.utils.data import DistributedSampler

from ssd_lightning.data.annotations import AnnotationTable
from ssd_lightning.errors import ConfigurationError

MULTIPLE = 32
"""In pixels. The strides of most backbones divide it, so the cells are aligned at all sizes."""
STREAM = 2
"""Random stream, separate from those of order and samples."""


class SampleKey(NamedTuple):
    """One sample of an epoch."""

    epoch: int
    image: int
    """Index of the image."""
    copy: int = 0
    """Number of the copy of a repeated image; 0 for the first."""
    image_size: tuple[int, int] | None = None
    """(height, width) of its step in multi-scale training."""


def repeat_factors(annotations: AnnotationTable, *, threshold: float) -> np.ndarray:
    """Compute how often each image is repeated in an epoch to balance rare classes (LVIS, arXiv 1908.03195, 4.2).

    Args:
        annotations: annotations of the images.
        threshold: share of the images below which a class is rare.

    Returns:
        float64 `[N]`: the largest max(1, sqrt(threshold / share of the images)) over an image's classes; 1 if none.
    """
    objects = annotations.objects()
    images_of = np.bincount(np.unique(np.stack([objects.labels, objects.image]), axis=1)[0])
    of_class = np.sqrt(np.maximum(1.0, threshold * len(annotations) / np.maximum(1, images_of)))
    factors = np.ones(len(annotations))
    np.maximum.at(factors, objects.image, of_class[objects.labels])
    return factors


@dataclass(frozen=True)
class MultiScale:
    """Multi-scale training: every optimiser step uses one image size, drawn from a range.

    Attributes:
        sizes: (height, width), ascending.
        seed: base seed.
    """

    sizes: tuple[tuple[int, int], ...]
    seed: int

    def size_at(self, epoch: int, step: int) -> tuple[int, int]:
        """Draw the size of a step, counted from 0 in its epoch: the same on all ranks and in a resumed run."""
        rng = np.random.default_rng([self.seed, epoch, step, STREAM])
        return self.sizes[int(rng.integers(len(self.sizes)))]


def multiscale_sizes(sides: Sequence[int], image_size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """List the sizes of a range of the shorter side, with about the aspect ratio of the network's input.

    Returns:
        (height, width) of each, multiples of `MULTIPLE`, ascending.

    Raises:
        ConfigurationError: `sides` is not a range, or contains no multiple.
    """
    is_whole = len(sides) == 2 and all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if not is_whole or not 1 <= sides[0] <= sides[1]:
        raise ConfigurationError(
            f"data.multiscale is {list(sides)}; it must be null or the least and the largest side, such as [256,384]"
        )
    shorter = range(-(-sides[0] // MULTIPLE) * MULTIPLE, sides[1] + 1, MULTIPLE)
    if not shorter:
        raise ConfigurationError(f"data.multiscale is {list(sides)}; no multiple of {MULTIPLE} lies in this range")
    height, width = (side / min(image_size) for side in image_size)
    return tuple(
        (round(side * height / MULTIPLE) * MULTIPLE, round(side * width / MULTIPLE) * MULTIPLE) for side in shorter
    )


class EpochSampler(DistributedSampler[SampleKey]):
    """Yield the keys of an epoch, in an order determined by (seed, epoch).

    It is a `DistributedSampler` so that Lightning does not wrap it into one, which would divide the samples among the
    ranks a second time.

    The epoch is part of the key because persistent workers keep their copy of the data set and are not notified of a
    new epoch. `DetectionDataset` needs it for the seed of every sample in every epoch.

    Args:
        size: number of samples in the data set.
        seed: base seed of the order.
        shuffle: use a new permutation in every epoch; otherwise keep the order of the data set.
        pad: for training: all ranks get the same number of samples, and so the same number of steps. The order is
            cut to whole batches, so an epoch has the same steps on any number of ranks. A set smaller than a batch is
            repeated instead. Without it, for evaluation, every sample comes once, and ranks may differ by one. A set
            smaller than the number of ranks is repeated, because Lightning ends a run in which a rank has no samples.
            The metrics count an image once.
        batch_size: with `pad`: number of samples of a step over all ranks.
        multiscale: with `pad`: gives the size of each step; None yields no size.
        repeats: mean number of times that each sample comes in an epoch, for instance `repeat_factors`: at least its
            integer part and at most once more, drawn again in every epoch. An epoch has as many samples as the sum,
            rounded down.

    Attributes:
        samples: number of samples of an epoch, over all ranks, before it is cut to whole batches.
    """

    def __init__(
        self,
        *,
        size: int,
        seed: int = 0,
        shuffle: bool = True,
        pad: bool,
        batch_size: int = 1,
        multiscale: MultiScale | None = None,
        repeats: np.ndarray | None = None,
    ) -> None:
        self.size = size
        self.repeats = repeats
        self.samples = size if repeats is None else int(repeats.sum() + 1e-6)  # tolerates rounding in the sum
        self.seed = seed
        self.shuffle = shuffle
        self.pad = pad
        self.batch_size = batch_size
        self.multiscale = multiscale
        self.epoch = 0
        self._resumed_epoch = 0
        self._samples_seen = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration; called by Lightning. Without a call, it is the one after the last."""
        self.epoch = epoch

    def resume(self, *, epoch: int, samples_seen: int) -> None:
        """Continue in the middle of an epoch: skip its samples that were already seen. Other epochs are complete.

        The length stays that of the whole epoch, since Lightning counts the skipped batches as done.

        Args:
            epoch: the interrupted epoch.
            samples_seen: how many of its samples all ranks together have trained on; the number of ranks may have
                been different.

        Raises:
            ConfigurationError: an epoch has fewer samples, or they cannot be divided evenly among these ranks.
        """
        _, world_size = self._place()
        if not 0 <= samples_seen <= len(self) * world_size or samples_seen % world_size:
            raise ConfigurationError(
                f"cannot skip {samples_seen} samples of an epoch of {len(self)} on each of {world_size} ranks"
            )
        self.epoch = self._resumed_epoch = epoch
        self._samples_seen = samples_seen // world_size

    def __len__(self) -> int:
        rank, world_size = self._place()
        return len(range(rank, self._size(world_size), world_size))

    def __iter__(self) -> Iterator[SampleKey]:
        _, world_size = self._place()
        epoch = self.epoch
        start = self._samples_seen if epoch == self._resumed_epoch else 0
        for position, (image, copy) in enumerate(self._draws(epoch)[start:].tolist(), start):
            step = position * world_size // self.batch_size
            size = None if self.multiscale is None else self.multiscale.size_at(epoch, step)
            yield SampleKey(epoch, image, copy, size)
        self.epoch = epoch + 1

    def _draws(self, epoch: int) -> np.ndarray:
        """Return the rank's rows of index and copy, `[S, 2]`."""
        rank, world_size = self._place()
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(self.size) if self.shuffle else np.arange(self.size)
        draws = np.stack([order, np.zeros_like(order)], axis=1)
        if self.repeats is not None:
            draws = _repeated(order, self.repeats[order], rng)
        return np.resize(draws, (self._size(world_size), 2))[rank::world_size]

    def _size(self, world_size: int) -> int:
        """Return the number of samples of an epoch, over all ranks."""
        if not self.pad:
            return max(self.samples, world_size) if self.samples else 0
        wanted = self.samples // self.batch_size * self.batch_size or self.samples
        return -(-wanted // world_size) * world_size

    @staticmethod
    def _place() -> tuple[int, int]:
        """Return the rank and the number of ranks, which are known only after the construction."""
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1


def _repeated(order: np.ndarray, repeats: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw how often each index comes, and return rows of index and copy in random order.

    All fractional parts share one draw (systematic sampling). An index is added with the same probability as with
    separate draws, but the sum varies by less than one between epochs, so the steps can be counted ahead.
    """
    ends = np.floor(repeats.cumsum() + rng.random()).astype(np.int64)
    counts = np.diff(ends, prepend=0)
    copies = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
    return rng.permutation(np.stack([np.repeat(order, counts), copies], axis=1))
