"""Which training steps are logged. Only they may wait for the device."""

import pytorch_lightning as pl


def is_logged(trainer: pl.Trainer, batch_index: int, *, before_step: bool = False) -> bool:
    """Whether a batch's values are logged or shown. Only such a batch may wait for the device.

    Lightning logs at every `log_every_n_steps`-th optimiser step, counted over all epochs. The values of an epoch's
    last batch stay visible in the progress bar. `before_step` tells that its optimiser step has not been taken.
    """
    is_last = batch_index + 1 == trainer.num_training_batches
    has_step = is_last or (batch_index + 1) % trainer.accumulate_grad_batches == 0
    step = trainer.global_step + (1 if before_step else 0)
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return is_last or (has_step and every > 0 and step % every == 0)


class LogShortRuns(pl.Callback):
    """Logs every step of a run that is shorter than `log_every_n_steps`. Otherwise no step would be logged."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Shorten the logging interval of a short run."""
        if trainer.estimated_stepping_batches < trainer.log_every_n_steps:  # type: ignore[attr-defined]
            trainer.log_every_n_steps = 1  # type: ignore[attr-defined]
