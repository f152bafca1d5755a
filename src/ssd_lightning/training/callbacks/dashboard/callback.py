"""The dashboard callback."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from ssd_lightning.analysis.evaluation_record import EvaluationRecord
from ssd_lightning.analysis.matching import confusion_matrix
from ssd_lightning.analysis.pr_curves import pr_curves
from ssd_lightning.checks import require_number
from ssd_lightning.run_files import DASHBOARD
from ssd_lightning.training.callbacks.checkpointing import best_callback
from ssd_lightning.training.callbacks.dashboard.contents import (
    CURVE_POINTS,
    Validation,
    choose_images,
    count_levels,
    draw_batch,
    show_images,
)
from ssd_lightning.training.callbacks.dashboard.sinks import FileSink, Sink
from ssd_lightning.training.callbacks.dashboard.tensorboard_sink import TensorBoardSink
from ssd_lightning.training.callbacks.evaluations import collect_record, is_best, is_last_validation, logged_step
from ssd_lightning.training.loggers import SturdyWandbLogger, describe
from ssd_lightning.types import Target
from ssd_lightning.visualization.training_plots import draw_level_counts

log = logging.getLogger(__name__)

MATCHED_IMAGES = 256
"""Number of training images whose matches are counted."""


class Dashboard(pl.Callback):
    """Shows images in the folder `dashboard/`, and images, plots and tables in W&B and TensorBoard if they are used.

    The first training batch is drawn with its matched priors, and the matched priors of the first images are counted.
    The first, the last and every n-th validation are shown, always with the same images, also after a resume.

    Only the first training steps do extra work. The global random states are not changed. Errors are logged once and
    never stop the training. Without a data module nothing is shown.

    Args:
        every_n_validations: interval of the shown validations. The last one is always shown.
        num_images: number of validation images that are shown.
        score_threshold: minimum score of the detections that are drawn and counted in the confusion matrix.
        seed: seed of the choice of images, which is the same for all runs on the same data.

    Raises:
        ConfigurationError: a number is out of range.
    """

    def __init__(
        self, *, every_n_validations: int = 5, num_images: int = 16, score_threshold: float = 0.4, seed: int = 0
    ) -> None:
        require_number("callbacks.dashboard.every_n_validations", every_n_validations, 1, whole=True)
        require_number("callbacks.dashboard.num_images", num_images, 0, whole=True)
        require_number("callbacks.dashboard.score_threshold", score_threshold, 0, 1)
        require_number("callbacks.dashboard.seed", seed, 0, whole=True)
        self.every_n_validations = every_n_validations
        self.num_images = num_images
        self.score_threshold = score_threshold
        self.seed = seed
        self._image_ids: tuple[str, ...] | None = None
        self._validations = 0
        self._epochs: list[float] = []
        self._class_ap: list[list[float]] = []
        self._best_epoch = 0
        self._sinks: list[Sink] = []
        self._failed: set[str] = set()
        self._targets: list[Target] | None = None
        self._record: EvaluationRecord | None = None
        self._is_due = False

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a resumed run."""
        return {
            "image_ids": self._image_ids and list(self._image_ids),
            "validations": self._validations,
            "best_epoch": self._best_epoch,
            "epochs": list(self._epochs),
            "values": list(self._class_ap),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state."""
        self._image_ids = state_dict["image_ids"] and tuple(state_dict["image_ids"])
        self._validations, self._best_epoch = state_dict["validations"], state_dict["best_epoch"]
        self._epochs, self._class_ap = list(state_dict["epochs"]), list(state_dict["values"])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Create the sinks."""
        self._sinks, self._failed, self._targets = [], set(), []
        if trainer.is_global_zero and is_shown(trainer):
            self._sinks = [FileSink(Path(trainer.default_root_dir) / DASHBOARD)]
            for logger in trainer.loggers:
                if isinstance(logger, SturdyWandbLogger):
                    from ssd_lightning.training.callbacks.dashboard.wandb_sink import WandbSink

                    self._sinks.append(WandbSink(logger))
                elif isinstance(logger, TensorBoardLogger):
                    self._sinks.append(TensorBoardSink(logger))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: tuple[Tensor, list[Target]], batch_idx: int
    ) -> None:
        """Show the first batch, and keep the targets of the first batches."""
        if not self._sinks or self._targets is None or len(self._targets) >= MATCHED_IMAGES:
            return
        images, targets = batch
        if not self._targets:
            self._attempt("train/batch", self._show_batch, trainer, pl_module, images, targets)
        self._targets += targets

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the match counts, outside of training steps."""
        if is_validated(trainer):
            self._show_matches(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Collect the metric's state before the module resets it. A collective call."""
        if not is_validated(trainer):
            return
        if self._validations % self.every_n_validations == 0 or is_last_validation(trainer):
            self._record = collect_record(trainer, pl_module, "val")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the validation. Its scores are known now."""
        if not is_validated(trainer):
            return
        self._note_scores(trainer, pl_module)
        if self._record is not None:
            if self._image_ids is None:
                self._image_ids = choose_images(self._record, self.num_images, self.seed)
            if self._sinks:
                self._attempt("val", self._show_validation, trainer, self._record)
            self._is_due = True
        self._record = None
        self._validations += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After a shown validation, keep the best checkpoint, which has been written."""
        if self._is_due:
            self._show_progress(trainer, is_last=False)
            self._is_due = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the final state."""
        self._show_matches(trainer, pl_module)
        self._show_progress(trainer, is_last=True)

    def _show_batch(self, trainer: pl.Trainer, pl_module: Any, images: Tensor, targets: list[Target]) -> None:
        drawing = draw_batch(images, targets, net=pl_module.net, loss=pl_module.loss)
        self._show("show_batch", drawing, step=trainer.global_step)

    def _show_matches(self, trainer: pl.Trainer, pl_module: Any) -> None:
        targets, self._targets = self._targets, None
        if targets and self._sinks:
            self._attempt("train/matched_priors", self._show_counts, trainer, pl_module, targets)

    def _show_counts(self, trainer: pl.Trainer, pl_module: Any, targets: list[Target]) -> None:
        levels = count_levels(targets, net=pl_module.net, loss=pl_module.loss)
        drawing = draw_level_counts(levels, title=f"priors that {len(targets)} training images match")
        self._show("show_matches", levels, drawing, step=trainer.global_step)

    def _note_scores(self, trainer: pl.Trainer, pl_module: Any) -> None:
        scores = trainer.callback_metrics
        values = [float(scores.get(f"val/ap_11point/{name}", math.nan)) for name in pl_module.class_names]
        batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
        done = batches.processed / max(1, trainer.num_training_batches)
        self._epochs.append(round(trainer.current_epoch + min(1.0, done), 4))
        self._class_ap.append(values)
        best = best_callback(trainer)
        score = float(scores.get(str(best.monitor), math.nan)) if best is not None else math.nan
        if math.isfinite(score) and is_best(trainer):
            self._best_epoch = trainer.current_epoch
            self._show("show_best_score", score, step=logged_step(trainer))

    def _show_validation(self, trainer: pl.Trainer, record: EvaluationRecord) -> None:
        validation = Validation(
            epoch=trainer.current_epoch,
            step=logged_step(trainer),
            class_names=record.class_names,
            score_threshold=self.score_threshold,
            images=show_images(record, self._image_ids or ()),
            curves=tuple(curve.thinned(CURVE_POINTS) for curve in pr_curves(record)),
            confusion=confusion_matrix(record, score_threshold=self.score_threshold),
            epochs=tuple(self._epochs),
            class_ap=np.array(self._class_ap).reshape(-1, record.num_classes),
        )
        self._show("show_validation", validation)

    def _show_progress(self, trainer: pl.Trainer, *, is_last: bool) -> None:
        kept = best_callback(trainer)
        if self._sinks and kept is not None and kept.best_model_path and kept.best_model_score is not None:
            self._show(
                "keep_model",
                Path(kept.best_model_path),
                epoch=self._best_epoch,
                monitor=str(kept.monitor),
                score=float(kept.best_model_score),
                is_last=is_last,
            )

    def _show(self, method: str, *content: Any, **settings: Any) -> None:
        for sink in self._sinks:
            self._attempt(type(sink).__name__, getattr(sink, method), *content, **settings)

    def _attempt(self, name: str, action: Callable[..., None], *arguments: Any, **settings: Any) -> None:
        """Run an action that may fail, and restore the random states after it."""
        with isolate_rng():
            try:
                action(*arguments, **settings)
            except Exception as error:
                if name not in self._failed:
                    self._failed.add(name)
                    log.warning("dashboard: %s cannot be shown; training continues: %s", name, describe(error))


def is_shown(trainer: pl.Trainer) -> bool:
    """Whether the run is shown: it has a data module and is not a `fast_dev_run`."""
    return trainer.datamodule is not None and not trainer.fast_dev_run  # type: ignore[attr-defined]


def is_validated(trainer: pl.Trainer) -> bool:
    """Whether this is a validation during a training that is shown. The same on all ranks."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and is_shown(trainer)
