"""In which order, and on which rank, the samples of an epoch come."""

from collections.abc import Iterator

import numpy as np
from torch import distributed
from torch.utils.data import Sampler

from ssd_lightning.data.multiscale import MultiScale
from ssd_lightning.errors import ConfigurationError

SampleKey = tuple[int, int] | tuple[int, int, tuple[int, int]]
"""(epoch, index), and in multi-scale training the (height, width) that the sample gets."""


class EpochSampler(Sampler[SampleKey]):
    """Yield (epoch, index), in an order that follows from (seed, epoch) alone.

    The epoch travels with the index because persistent workers keep their copy of the data set and never hear
    of a new epoch: `DetectionDataset` needs it to give every sample of every epoch a seed of its own.

    Args:
        size: number of samples in the data set.
        seed: root of the order.
        shuffle: permute anew in every epoch; otherwise the order of the data set.
        rank: this process among `world_size`; None asks torch.distributed when the sampler is used.
        world_size: number of processes; None as above.
        pad: for training: all ranks have equally many samples, and so make equally many steps. The order is cut to
            whole batches, so that an epoch has the same steps on any number of ranks; a set smaller than a batch
            wraps around instead. Without it, for evaluation, every sample comes once, and ranks may differ by one.
        batch_size: with `pad`: samples of a step over all ranks.
        multiscale: with `pad`: says which size each step has, which is yielded too; None yields none.

    Raises:
        ConfigurationError: a negative size, or a rank that is not below the world size.
    """

    def __init__(
        self,
        *,
        size: int,
        seed: int = 0,
        shuffle: bool = True,
        rank: int | None = None,
        world_size: int | None = None,
        pad: bool,
        batch_size: int = 1,
        multiscale: MultiScale | None = None,
    ) -> None:
        if size < 0:
            raise ConfigurationError(f"a sampler cannot have {size} samples")
        if (rank is None) != (world_size is None):
            raise ConfigurationError(f"rank and world_size go together, got rank={rank} and world_size={world_size}")
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise ConfigurationError(f"rank {rank} is not among the {world_size} ranks 0..{world_size - 1}")
        self.size = size
        self.seed = seed
        self.shuffle = shuffle
        self.pad = pad
        self.batch_size = batch_size
        self.multiscale = multiscale
        self.epoch = 0
        self._rank = rank
        self._world_size = world_size
        self._resumed_epoch = 0
        self._samples_seen = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws; Lightning calls this."""
        self.epoch = epoch

    def resume(self, *, epoch: int, samples_seen: int) -> None:
        """Continue in mid-epoch: skip what the ranks have seen of that epoch; other epochs are whole.

        The length stays that of the whole epoch, since Lightning counts the skipped batches as done.

        Args:
            epoch: the epoch that was interrupted.
            samples_seen: how many of its samples all ranks together have trained on; they may have been more or
                fewer ranks than now.

        Raises:
            ConfigurationError: more samples than an epoch has, or these ranks cannot have seen equally many of them.
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
        if self.pad:
            return self._padded_size(world_size) // world_size
        return len(range(rank, self.size, world_size))

    def __iter__(self) -> Iterator[SampleKey]:
        _, world_size = self._place()
        epoch = self.epoch
        start = self._samples_seen if epoch == self._resumed_epoch else 0
        for position, index in enumerate(self._indices(epoch)[start:], start):
            if self.multiscale is None:
                yield epoch, int(index)
            else:
                step = position * world_size // self.batch_size
                yield epoch, int(index), self.multiscale.size_at(epoch, step)

    def _indices(self, epoch: int) -> np.ndarray:
        rank, world_size = self._place()
        order = np.arange(self.size)
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.size)
        if self.pad:
            order = np.resize(order, self._padded_size(world_size))
        return order[rank::world_size]

    def _padded_size(self, world_size: int) -> int:
        wanted = self.size // self.batch_size * self.batch_size or self.size
        return -(-wanted // world_size) * world_size

    def _place(self) -> tuple[int, int]:
        if self._rank is not None and self._world_size is not None:
            return self._rank, self._world_size
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1
