"""The position of a run in its epochs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl

from ssd_lightning.errors import WeightsError


@dataclass(frozen=True)
class DataState:
    """The position of a run in its epochs, in samples drawn by all ranks together.

    The samples of an epoch are distributed to the ranks in turn. The seen samples are therefore the first ones of the
    epoch, for any number of ranks and accumulated batches.
    """

    epoch: int
    samples_seen: int
    batch_size: int
    """Images of an optimiser step, see `data.batch_size`."""
    images: int
    """Samples of an epoch."""

    @classmethod
    def of(cls, trainer: pl.Trainer, *, batch_size: int, images: int) -> "DataState":
        """Read the position from Lightning's counters. Call it in a hook at the end of a batch, validation or epoch."""
        epochs: Any = trainer.fit_loop.epoch_progress.current
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        # In `on_train_epoch_end`, which is also called when a run ends within an epoch.
        is_over = epochs.processed > epochs.completed and batches.processed >= trainer.num_training_batches
        return cls(
            epoch=epochs.processed if is_over else epochs.completed,
            samples_seen=0 if is_over else batches.processed * batch_size // trainer.accumulate_grad_batches,
            batch_size=batch_size,
            images=images,
        )

    def check(self, *, batch_size: int, images: int) -> None:
        """Check that the rest of a partly finished epoch is well defined.

        Raises:
            WeightsError: the epoch is partly finished, and the images have changed or the position is not a multiple
                of the new batch size.
        """
        if self.samples_seen == 0 or (self.images == images and self.samples_seen % batch_size == 0):
            return
        if (self.batch_size, self.images) == (batch_size, images):
            return
        raise WeightsError(
            f"the checkpoint was written in the middle of epoch {self.epoch}, after {self.samples_seen} of "
            f"{self.images} training images with data.batch_size={self.batch_size}; it cannot continue with "
            f"data.batch_size={batch_size} and {images} images: the rest of the epoch would be different"
        )


class BatchCounters(pl.Callback):
    """Resumes a run within an epoch, also with a different number of devices or accumulated batches.

    Lightning counts the batches of a rank. If the share of an optimiser step in a batch has changed, the number of
    completed batches has to be recalculated.
    """

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Recalculate the counters before Lightning reads them."""
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        position: Mapping[str, int] = checkpoint.get("DetectionDataModule", {})
        if datamodule is None or not position.get("samples_seen"):
            return
        loop = checkpoint["loops"]["fit_loop"]
        epochs, progress = loop["epoch_progress"], loop["epoch_loop.batch_progress"]
        if epochs["current"]["processed"] > epochs["current"]["completed"]:
            # The run ended regularly within an epoch. Lightning counts the epoch as complete, which is undone here. It
            # also counts the last step for its logs once more, as after a checkpoint at the end of a batch.
            loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
            for counts in ("current", "total"):
                epochs[counts]["processed"] -= 1
                progress[counts]["completed"] = progress[counts]["processed"] - 1
        batches = position["samples_seen"] * trainer.accumulate_grad_batches // datamodule.step_size
        current = progress["current"]
        unfinished = current["processed"] - current["completed"]  # 1 if saved at the end of a batch
        current |= {"ready": batches, "started": batches, "processed": batches, "completed": batches - unfinished}
