"""The LightningDataModule: the loaders of `DetectionData` for the ranks of a run."""

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from ssd_lightning.data.detection_data import DetectionData
from ssd_lightning.training.devices import device_batch_size
from ssd_lightning.training.fault_tolerance.data_state import DataState
from ssd_lightning.training.fault_tolerance.signals import outlive_signals


class DetectionDataModule(DetectionData, pl.LightningDataModule):
    """Divides batches among the ranks of a run, and resumes within an epoch. `DetectionData` explains the arguments."""

    _resumed: DataState | None = None

    def state_dict(self) -> dict[str, int]:
        """Return the run's position in its epochs."""
        if self.trainer is None or not (self.trainer.training or self.trainer.validating):
            return {}
        return vars(DataState.of(self.trainer, batch_size=self.step_size, images=self.train_sampler().samples))

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Store the saved position before the loaders are created.

        Raises:
            WeightsError: the position is inside an epoch that cannot be continued with these images and batches.
        """
        self._resumed = DataState(**state_dict)
        self._resumed.check(batch_size=self.step_size, images=self.train_sampler().samples)

    @property
    def step_size(self) -> int:
        """Images of an optimiser step: `batch_size`, or fewer if the training split is smaller."""
        if self.trainer is None:
            return self.device_batch_size
        return self.device_batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches

    @property
    def device_batch_size(self) -> int:
        """Images of a training batch on each device.

        Raises:
            ConfigurationError: the devices cannot share `batch_size` evenly.
        """
        if self.trainer is None:
            return self.batch_size
        return device_batch_size(
            self.batch_size,
            ranks=self.trainer.world_size,
            accumulate=self.trainer.accumulate_grad_batches,
            images=len(self.dataset("train")),
        )

    @property
    def processes(self) -> int:
        """Ranks on this machine."""
        return super().processes if self.trainer is None else self.trainer.num_devices

    def train_dataloader(self) -> DataLoader:
        """Return the loader of training, from the position of a resumed run."""
        if self._resumed is None:
            return self.train_loader()
        return self.train_loader(epoch=self._resumed.epoch, samples_seen=self._resumed.samples_seen)

    def val_dataloader(self) -> DataLoader | list:
        """Return a loader that yields every image once over all ranks."""
        return self.evaluation_loader("val") if self.stages.has("val") else []

    def test_dataloader(self) -> DataLoader:
        """Return a loader that yields every image once over all ranks."""
        return self.evaluation_loader("test")

    @staticmethod
    def worker_init(worker: int) -> None:
        """End a data worker when its rank ends, not when a signal arrives."""
        outlive_signals()
        DetectionData.worker_init(worker)
