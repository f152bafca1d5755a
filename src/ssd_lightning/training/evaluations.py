"""Keeps what a run's evaluations found, image by image."""

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_only

from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.data.dataset import DetectionDataset
from ssd_lightning.metrics.detection_state import DetectionMetric, image_key
from ssd_lightning.run_files import EVALUATIONS
from ssd_lightning.training.checkpointing import BestCheckpoint

log = logging.getLogger(__name__)

Split = Literal["train", "val", "test"]


class Evaluations(pl.Callback):
    """Writes `evaluations/val.npz`, of the validation that chose the best checkpoint, and `evaluations/test.npz`.

    Without a `BestCheckpoint`, or a finite score, the first is of the last validation. Both lie in the trainer's
    `default_root_dir`; what an earlier run left there is removed when another begins, and a run that goes on elsewhere
    takes `val.npz` along, as it takes the checkpoint. Nothing is written where the trainer has no data module: its
    images have no names then.
    """

    def __init__(self) -> None:
        self._record: EvaluationRecord | None = None

    @rank_zero_only
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave in the directory what belongs to the run."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        kept = record_path(trainer, "val")
        record_path(trainer, "test").unlink(missing_ok=True)
        if trainer.ckpt_path is None:
            kept.unlink(missing_ok=True)
            return
        earlier = Path(trainer.ckpt_path).parent.parent / EVALUATIONS / kept.name
        if earlier.is_file() and earlier.resolve() != kept.resolve():
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(earlier, kept)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take what the metric has, which the module empties after this."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._collect(trainer, pl_module, "val")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write it, now that the score is known, if the checkpoint is going to be the best one."""
        if is_best(trainer):
            self._write(trainer)
        self._record = None

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take what the metric has, which the module empties after this."""
        self._collect(trainer, pl_module, "test")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write it."""
        self._write(trainer)
        self._record = None

    def _collect(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: Split) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if data is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        metric = pl_module.metrics[split]["voc"]  # type: ignore[index]
        self._record = make_record(metric, data.dataset(split), split=split, class_names=pl_module.class_names)  # type: ignore[arg-type]

    def _write(self, trainer: pl.Trainer) -> None:
        if self._record is None or not trainer.is_global_zero:
            return
        path = record_path(trainer, self._record.split)
        try:
            self._record.save(path)
        except OSError as error:  # a training is worth more than a report
            log.warning("%s is not written: %s", path, error)


def record_path(trainer: pl.Trainer, split: str) -> Path:
    """Name the file of a split in the directory of a run."""
    return Path(trainer.default_root_dir) / EVALUATIONS / f"{split}.npz"


def is_best(trainer: pl.Trainer) -> bool:
    """Say whether the best checkpoint is about to be that of the validation that has just ended; yes if none is kept.

    Lightning decides this later, and saves last of all: a power cut between the two files leaves a run that goes on
    before this validation, and writes both again.
    """
    best = next((callback for callback in trainer.checkpoint_callbacks if isinstance(callback, BestCheckpoint)), None)
    if best is None or best.best_model_score is None:
        return True
    score = trainer.callback_metrics.get(str(best.monitor))
    return score is not None and bool(score >= best.best_model_score)  # never, where it is not finite


def make_record(
    metric: DetectionMetric, dataset: DetectionDataset, *, split: Split, class_names: Sequence[str]
) -> EvaluationRecord:
    """Put together what a metric has seen of a data set; all ranks have to ask.

    Args:
        metric: that was updated since its reset.
        dataset: has all the images that it was updated with.
        split: that the data set is.
        class_names: of the detector.
    """
    keys, evaluation = metric.seen_by_all()
    images = {image_key(record.image_id): record for record in dataset.records}
    records = [images[key] for key in keys.tolist()]
    return EvaluationRecord(
        split=split,
        class_names=tuple(class_names),
        image_ids=tuple(record.image_id for record in records),
        image_paths=tuple(os.path.abspath(record.image_path) for record in records),
        sizes_px=evaluation.sizes_px,
        detections=evaluation.detections,
        objects=evaluation.objects,
    )
