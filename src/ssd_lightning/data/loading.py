"""Read batches in processes."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader

from ssd_lightning.checks import require_number
from ssd_lightning.data.dataset import DetectionDataset, collate
from ssd_lightning.data.sampler import EpochSampler

MOST_WORKERS = 16


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Makes the loaders of a run.

    Args:
        num_workers: processes that read images. None uses the machine's spare cores.
        prefetch_factor: batches that each worker reads ahead. None uses torch's default.
        seed: seed of the loaders' random generators.
        worker_init: called in each worker with its number.

    Raises:
        ConfigurationError: a setting is invalid.
    """

    num_workers: int | None
    prefetch_factor: int | None
    seed: int
    worker_init: Callable[[int], None]

    def __post_init__(self) -> None:
        if self.num_workers is not None:
            require_number("data.num_workers", self.num_workers, 0, whole=True)
        if self.prefetch_factor is not None:
            require_number("data.prefetch_factor", self.prefetch_factor, 1, whole=True)

    def loader(self, dataset: DetectionDataset, sampler: EpochSampler, *, batch_size: int, ranks: int) -> DataLoader:
        """Return a loader; `ranks` is the number of processes on this machine that have one of their own."""
        num_workers = spare_workers(ranks) if self.num_workers is None else self.num_workers
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=num_workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=num_workers > 0,
            prefetch_factor=self.prefetch_factor if num_workers > 0 else None,
            # A separate generator: creating an iterator must not draw from the global random state.
            generator=torch.Generator().manual_seed(self.seed),
            worker_init_fn=self.worker_init,
        )


def spare_workers(ranks: int) -> int:
    """Divide the available CPU cores among the ranks of this machine, leaving one core for each rank."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, cores // ranks - 1))
