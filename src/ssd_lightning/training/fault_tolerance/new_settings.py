"""Applies a new learning rate or weight decay when a run is resumed."""

import logging
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from torch.optim.lr_scheduler import LambdaLR

from ssd_lightning.errors import ConfigurationError

log = logging.getLogger(__name__)

HOW_NOT_WHAT = ("params", "lr", "fused", "foreach", "capturable", "differentiable")
"""Keys of a parameter group that control how a step is computed, or that the schedule sets. They keep the saved values,
which match the optimiser's saved state."""


class NewSettings(pl.Callback):
    """Applies the settings of this command to what Lightning restores: optimiser, schedule, and a moving average.

    Lightning restores the saved settings together with the optimiser's state. The new settings apply from the next
    step, as if the schedule had used them from the start.
    """

    def __init__(self) -> None:
        self._saved: list[dict[str, Any]] = []
        self._groups: list[dict[str, Any]] = []
        self._base_rates: list[Any] = []

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        """Keep the optimiser's saved state. A run without a moving average goes on with the weights of that state."""
        self._saved = checkpoint.get("optimizer_states", [])
        trained, callbacks = checkpoint.get("current_model_state"), trainer.callbacks  # type: ignore[attr-defined]
        averages = any(isinstance(callback, WeightAveraging) for callback in callbacks)
        if trained is not None and not averages and trainer.state.fn == TrainerFn.FITTING:
            log.warning(
                "the checkpoint's moving average of the weights is dropped: callbacks=[default,ema] continues it"
            )
            pl_module.load_state_dict(trained)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the new settings before the saved ones are restored.

        Raises:
            ConfigurationError: the checkpoint has the state of a different optimiser or of different parameters.
        """
        if not self._saved:
            return
        groups = trainer.optimizers[0].param_groups
        require_same_kind(groups, self._saved[0]["param_groups"])
        self._groups = [{key: group[key] for key in group if key not in HOW_NOT_WHAT} for group in groups]
        self._base_rates = list(trainer.lr_scheduler_configs[0].scheduler.base_lrs)
        self._saved = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Apply the new settings."""
        if not self._groups:
            return
        for group, settings in zip(trainer.optimizers[0].param_groups, self._groups, strict=True):
            group.update(settings)
        _set_base_rates(trainer.lr_scheduler_configs[0].scheduler, self._base_rates)
        self._groups = []


def require_same_kind(groups: list[dict[str, Any]], saved: list[dict[str, Any]]) -> None:
    """Check that an optimiser with these parameter groups can load the saved ones.

    Raises:
        ConfigurationError: their settings or parameters do not match.
    """
    counts, saved_counts = ([len(group["params"]) for group in of] for of in (groups, saved))
    if counts != saved_counts:
        raise ConfigurationError(
            f"resume= continues with the optimiser of the checkpoint, which has {saved_counts} parameters in its "
            f"groups; this run trains {counts}. The same layers must be trained (backbone.freeze=); init_from= starts "
            "a new run from the weights"
        )
    ours, theirs = ({key for group in of for key in group} - {"initial_lr"} for of in (groups, saved))
    if ours - theirs and theirs - ours:  # keys missing on one side only may come from another torch release
        raise ConfigurationError(
            "resume= continues with the optimiser of the checkpoint, which is a different one: it has "
            f"{', '.join(sorted(theirs - ours))}, this one {', '.join(sorted(ours - theirs))}. init_from= starts a new "
            "run from the weights"
        )


def _set_base_rates(scheduler: Any, base_rates: list[Any]) -> None:
    if isinstance(scheduler, LambdaLR):  # as in its `step`
        scheduler.base_lrs = base_rates
        factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
        rates: list[Any] = [base_rate * factor for base_rate, factor in zip(base_rates, factors, strict=True)]
        for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        scheduler._last_lr = rates
    elif list(scheduler.base_lrs) != base_rates:
        log.warning(
            "the learning rate stays as in the checkpoint (%s instead of %s): the schedule %s cannot change it during "
            "a run; init_from= starts a new run from the weights",
            scheduler.base_lrs[0],
            base_rates[0],
            type(scheduler).__name__,
        )
