"""Where in its epochs a run stands."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl

from ssd_lightning.errors import WeightsError


class Position:
    """Where in its epochs a run stands, in samples that all ranks together have drawn.

    The order of an epoch is dealt out to the ranks, so that these samples are its first ones, whatever the number of
    ranks and of accumulated batches.

    Args:
        epoch: the current one.
        samples_seen: of it, by all ranks.
        batch_size: images of an optimiser step, see `data.batch_size`.
        images: in the training split.
    """

    def __init__(self, *, epoch: int, samples_seen: int, batch_size: int, images: int) -> None:
        self.epoch = epoch
        self.samples_seen = samples_seen
        self.batch_size = batch_size
        self.images = images

    @classmethod
    def of(cls, trainer: pl.Trainer, *, batch_size: int, images: int) -> "Position":
        """Read it off Lightning's counters, in a hook of a batch's, a validation's or an epoch's end."""
        epochs: Any = trainer.fit_loop.epoch_progress.current
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        # In `on_train_epoch_end`, which also comes where a run is ended in mid-epoch.
        is_over = epochs.processed > epochs.completed and batches.processed >= trainer.num_training_batches
        return cls(
            epoch=epochs.processed if is_over else epochs.completed,
            samples_seen=0 if is_over else batches.processed * batch_size // trainer.accumulate_grad_batches,
            batch_size=batch_size,
            images=images,
        )

    def check(self, *, batch_size: int, images: int) -> None:
        """Refuse to go on in mid-epoch where the rest of the epoch cannot be told.

        Raises:
            WeightsError: some of the epoch's samples are seen, and the images are others, or the batches now would
                begin in the middle of one.
        """
        if self.samples_seen == 0 or (self.images == images and self.samples_seen % batch_size == 0):
            return
        if (self.batch_size, self.images) == (batch_size, images):
            return
        raise WeightsError(
            f"the checkpoint was written in the middle of epoch {self.epoch}, after {self.samples_seen} of "
            f"{self.images} training images with data.batch_size={self.batch_size}; it cannot go on with "
            f"data.batch_size={batch_size} and {images} images: those left in the epoch would be others"
        )


class BatchCounters(pl.Callback):
    """Makes a run go on in mid-epoch where it was ended, also with other devices or accumulated batches than before.

    Lightning counts the batches of a rank. Where a batch now holds another part of an optimiser step, the batches that
    are behind the run are as many others.
    """

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Count them again before Lightning reads its counters."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        position: Mapping[str, int] = checkpoint.get("DetectionDataModule", {})
        if datamodule is None or not position.get("samples_seen"):
            return
        loop = checkpoint["loops"]["fit_loop"]
        epochs, progress = loop["epoch_progress"], loop["epoch_loop.batch_progress"]
        if epochs["current"]["processed"] > epochs["current"]["completed"]:
            # Ended in order in mid-epoch, which Lightning counts as an epoch that is over: as after any batch instead.
            for counts in ("current", "total"):
                epochs[counts]["processed"] -= 1
                progress[counts]["completed"] = progress[counts]["processed"] - 1
        batches = position["samples_seen"] * trainer.accumulate_grad_batches // datamodule.step_size
        current = progress["current"]
        unfinished = current["processed"] - current["completed"]  # one where it was saved at a batch's end
        current |= {"ready": batches, "started": batches, "processed": batches, "completed": batches - unfinished}
