"""Applies a new learning rate or weight decay when a run is resumed."""

import logging
from typing import Any

import pytorch_lightning as pl
from torch.optim.lr_scheduler import LambdaLR

from ssd_lightning.errors import ConfigurationError

log = logging.getLogger(__name__)

HOW_NOT_WHAT = ("params", "lr", "fused", "foreach", "capturable", "differentiable")
"""Keys of a parameter group that control how a step is computed, or that the schedule sets. They keep the saved values,
which match the optimiser's saved state."""


class NewSettings(pl.Callback):
    """Applies the settings of this command to the optimiser and schedule that Lightning restores.

    Lightning restores the saved settings together with the optimiser's state. The new settings apply from the next
    step, as if the schedule had used them from the start.
    """

    def __init__(self) -> None:
        self._saved: list[dict[str, Any]] = []
        self._groups: list[list[dict[str, Any]]] = []
        self._base_rates: list[list[Any]] = []

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the saved optimiser states."""
        self._saved = checkpoint.get("optimizer_states", [])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the new settings before the saved ones are restored.

        Raises:
            ConfigurationError: the checkpoint has the state of a different optimiser or of different parameters.
        """
        if not self._saved:
            return
        for optimizer, state in zip(trainer.optimizers, self._saved, strict=True):
            require_same_kind(optimizer.param_groups, state["param_groups"])
        self._groups = [[_settings(group) for group in optimizer.param_groups] for optimizer in trainer.optimizers]
        self._base_rates = [list(config.scheduler.base_lrs) for config in trainer.lr_scheduler_configs]
        self._saved = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Apply the new settings."""
        for optimizer, groups in zip(trainer.optimizers, self._groups, strict=False):
            for group, settings in zip(optimizer.param_groups, groups, strict=True):
                group.update(settings)
        for config, base_rates in zip(trainer.lr_scheduler_configs, self._base_rates, strict=False):
            _set_base_rates(config.scheduler, base_rates)
        self._groups, self._base_rates = [], []


def require_same_kind(groups: list[dict[str, Any]], saved: list[dict[str, Any]]) -> None:
    """Check that an optimiser can load a saved state.

    Args:
        groups: parameter groups of the optimiser.
        saved: parameter groups of the saved state.

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


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in HOW_NOT_WHAT}


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
