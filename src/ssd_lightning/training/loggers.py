"""Loggers that a run survives: what they cannot write is lost, and the training goes on."""

import logging
import netrc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

from ssd_lightning.checks import require_choice
from ssd_lightning.errors import one_line
from ssd_lightning.training.csv_log import GrowingCSVLogger

log = logging.getLogger(__name__)


class Sturdy:
    """Stands before a logger: where that fails (a full disk, a service that died), it warns once and goes on.

    It also spells names that are no UTF-8, as those of files can be, so that one class does not cost a whole row.
    """

    _has_failed = False

    @property
    def experiment(self) -> Any:
        """What the logger writes with, made at the first use; where it cannot be made there is no such attribute.

        Lightning asks for it before the training, and takes every other error for the run's.
        """
        try:
            return super().experiment  # type: ignore[misc]
        except Exception as error:
            raise AttributeError("there is nothing to write with") from error

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Write numbers by name."""
        named = {key.encode(errors="backslashreplace").decode(): value for key, value in metrics.items()}
        self.attempt(super().log_metrics, named, step)  # type: ignore[misc]

    def log_hyperparams(self, params: Any = None, *arguments: Any, **settings: Any) -> None:
        """Write settings."""
        self.attempt(super().log_hyperparams, params, *arguments, **settings)  # type: ignore[misc]

    def save(self) -> None:
        """Write what is held back."""
        self.attempt(super().save)  # type: ignore[misc]

    def finalize(self, status: str) -> None:
        """Write the end."""
        self.attempt(super().finalize, status)  # type: ignore[misc]

    def attempt(self, action: Callable[..., Any], *arguments: Any, **settings: Any) -> None:
        """Do something that may fail."""
        try:
            action(*arguments, **settings)
        except Exception as error:
            if not self._has_failed:
                self._has_failed = True
                kind = type(self).__name__.removeprefix("Sturdy")
                told = "%s fails; the training goes on, and what it should write is lost: %s"
                log.warning(told, kind, describe(error))


def describe(error: BaseException) -> str:
    """Say in one line what went wrong, or what is behind it."""
    error = error.__cause__ or error
    return one_line(f"{type(error).__name__}: {error}")


class SturdyCSVLogger(Sturdy, GrowingCSVLogger):
    """Writes `metrics.csv`; rows that could not be written are tried again with the next ones."""


class SturdyTensorBoardLogger(Sturdy, TensorBoardLogger):
    """Writes TensorBoard's event files."""


ModelLogging = Literal["best", "end", "none"]
MODEL_LOGGING = ("best", "end", "none")
MODES = ("online", "offline", "disabled")


class SturdyWandbLogger(Sturdy, WandbLogger):
    """Writes to Weights & Biases; a run that cannot be begun online is begun offline.

    Args:
        log_model: see `wandb_logger`.
        **settings: of `pytorch_lightning.loggers.WandbLogger`.
    """

    def __init__(self, *, log_model: ModelLogging, **settings: Any) -> None:
        super().__init__(**settings)
        self.log_model = log_model

    @property
    def is_offline(self) -> bool:
        """Whether nothing is sent while the run goes on."""
        mode = self._wandb_init.get("mode") or os.environ.get("WANDB_MODE", "online")
        return self._offline or mode not in ("online", "shared")

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run; made at the first use, on the rank that logs."""
        if self._experiment is not None:
            return self._experiment
        first = "offline" if self.is_offline else "online"
        for mode in MODES[MODES.index(first) :]:
            if mode != first:
                self._wandb_init["mode"] = mode
            try:
                run = super().experiment
            except Exception as error:
                instead = "it is recorded offline" if mode == "online" else "nothing is recorded"
                log.warning("wandb: a run cannot be begun %s, so %s: %s", mode, instead, describe(error))
                continue
            run.define_metric("val/map*", summary="last,max", step_metric="trainer/global_step")
            return run
        raise AttributeError("wandb cannot be used at all")


def wandb_logger(*, log_model: ModelLogging = "best", **settings: Any) -> SturdyWandbLogger:
    """Make a Weights & Biases logger; without an account it records offline and says so, and never asks.

    A run that goes on in its own directory goes on in W&B, too.

    Args:
        log_model: what becomes of `best.ckpt`. `best` makes it an artifact at those validations whose images are
            logged, if it has got better, and at the end; `end` at the end alone, and so does `best` while the run is
            recorded offline, where every artifact would be a copy on this disk; `none` never.
        **settings: of `pytorch_lightning.loggers.WandbLogger`; the tags of `WANDB_TAGS` are added to its own.

    Raises:
        ConfigurationError: `log_model` is none of these.
    """
    require_choice("logger.wandb.log_model", log_model, MODEL_LOGGING)
    mode = os.environ.get("WANDB_MODE")
    if mode is None and not settings.get("offline") and not has_wandb_account():
        log.warning(
            "wandb: no account on this machine, so the run is recorded offline; `wandb login` before the run, or "
            "`wandb sync` after it, brings it online"
        )
        settings["offline"] = True
    more = [tag for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag]
    settings["tags"] = list(dict.fromkeys([*settings.get("tags", []), *more]))  # W&B itself takes one of the two
    if settings.get("id") is None and settings.get("version") is None and "WANDB_RUN_ID" not in os.environ:
        settings["id"] = earlier_id(Path(settings.get("save_dir") or "."))
    return SturdyWandbLogger(log_model=log_model, **settings)


def earlier_id(directory: Path) -> str | None:
    """Find the id of the W&B run that was recorded in a directory before; None if the run there starts from scratch.

    A run that starts from scratch has no checkpoints: those of an earlier one are removed before the loggers are made.
    """
    if not any((directory / "checkpoints").glob("*.ckpt")):
        return None
    recorded = [*directory.glob("wandb/run-*-*"), *directory.glob("wandb/offline-run-*-*")]
    newest = max(recorded, key=lambda path: path.name.removeprefix("offline-"), default=None)
    return None if newest is None else newest.name.rpartition("-")[2]


def has_wandb_account() -> bool:
    """Say whether W&B finds a key without asking: in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
