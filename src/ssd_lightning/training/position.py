"""Where in its epochs a run stands."""

from typing import Any

import pytorch_lightning as pl

from ssd_lightning.errors import WeightsError


class Position:
    """Where in its epochs a run stands, in samples that each rank has drawn.

    Args:
        epoch: the current one.
        samples_seen: of it, by every rank.
        batch_size: pictures a step on each rank.
        ranks: number of processes.
        pictures: in the training split.
    """

    def __init__(self, *, epoch: int, samples_seen: int, batch_size: int, ranks: int, pictures: int) -> None:
        self.epoch = epoch
        self.samples_seen = samples_seen
        self.pictures = pictures
        self.batch_size = batch_size
        self.ranks = ranks

    @classmethod
    def of(cls, trainer: pl.Trainer, *, batch_size: int, pictures: int) -> "Position":
        """Read it off Lightning's counters, in a hook of a batch's, a validation's or an epoch's end."""
        epochs: Any = trainer.fit_loop.epoch_progress.current
        is_over = epochs.processed > epochs.completed  # `on_train_epoch_end`
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        return cls(
            epoch=epochs.processed,
            samples_seen=0 if is_over else batches.processed * batch_size,
            batch_size=batch_size,
            ranks=trainer.world_size,
            pictures=pictures,
        )

    def check(self, *, batch_size: int, ranks: int, pictures: int) -> None:
        """Refuse to go on in mid-epoch with other batches than those it was begun with.

        Raises:
            WeightsError: another batch size, number of ranks or of pictures, and some of the epoch's batches are done.
        """
        if self.samples_seen and (self.batch_size, self.ranks, self.pictures) != (batch_size, ranks, pictures):
            raise WeightsError(
                f"the checkpoint was written in the middle of epoch {self.epoch}, with data.batch_size="
                f"{self.batch_size} on {self.ranks} rank(s) and {self.pictures} training pictures; it cannot go on "
                f"with {batch_size} on {ranks} and {pictures} pictures: those left in the epoch would be others"
            )
