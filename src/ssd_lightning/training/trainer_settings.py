"""Checks of the settings of Lightning's trainer that Lightning itself takes as they are, or refuses too late."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from ssd_lightning.checks import require_choice, require_number
from ssd_lightning.errors import ConfigurationError, one_line

log = logging.getLogger(__name__)

LEAST = {
    "max_epochs": -1, "max_steps": -1, "min_epochs": 0, "min_steps": 0, "num_sanity_val_steps": -1,
    "log_every_n_steps": -1, "check_val_every_n_epoch": 1,
}  # fmt: skip
"""Smallest value of each whole number that may also be null."""


def check_trainer(settings: Mapping[str, Any]) -> None:
    """Check settings of the trainer that would be ignored, or end the run at its first step.

    Raises:
        ConfigurationError: a setting is invalid.
    """
    for name, least in LEAST.items():
        if settings.get(name) is not None:
            require_number(f"trainer.{name}", settings[name], least, whole=True)
    if settings.get("gradient_clip_val") is not None:
        require_number("trainer.gradient_clip_val", settings["gradient_clip_val"], 0)
    if settings.get("limit_train_batches") is not None:
        require_number("trainer.limit_train_batches", settings["limit_train_batches"], 0, above_low=True)
    if isinstance(settings.get("val_check_interval"), (int, float)):  # a text is a time
        require_number("trainer.val_check_interval", settings["val_check_interval"], 0, above_low=True)
    require_choice("trainer.deterministic", settings.get("deterministic"), (None, True, False, "warn"))


def warn_of_unvalidated_epochs(trainer: pl.Trainer) -> None:
    """Warn if epochs after the last validation can neither be scored nor become the best checkpoint."""
    every, epochs = trainer.check_val_every_n_epoch or 1, trainer.max_epochs or 0
    if epochs > 0 and (rest := epochs % every):
        end = f" after epoch {epochs - rest}" if epochs > rest else ""
        log.warning(
            "trainer.check_val_every_n_epoch=%d and trainer.max_epochs=%d: nothing is validated%s", every, epochs, end
        )


def warn_of_overfitting(overfit_batches: float, data: Mapping[str, Any]) -> None:
    """Warn if `trainer.overfit_batches` is set, and with it settings of the data that Lightning's own order ignores."""
    ignored = {"repeat_rare": False, "multiscale": None}
    given = [f"data.{name}={data[name]}".lower() for name, off in ignored.items() if data.get(name, off) != off]
    if overfit_batches and given:
        log.warning(
            "trainer.overfit_batches=%s trains on the first images in their order, so %s has no effect",
            *(overfit_batches, " and ".join(given)),
        )


@contextmanager
def refuse_settings() -> Iterator[None]:
    """Turn Lightning's refusals of settings that do not suit the number of batches into errors of the user.

    Raises:
        ConfigurationError: Lightning has refused a setting.
    """
    try:
        yield
    except (MisconfigurationException, ValueError) as error:
        if not isinstance(error, MisconfigurationException) and "`val_check_interval`" not in str(error):
            raise
        raise ConfigurationError(f"trainer: {one_line(str(error).strip())}") from error
