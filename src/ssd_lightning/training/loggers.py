"""Loggers whose failures do not stop a run. What they cannot write is lost."""

import logging
import netrc
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlparse

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

from ssd_lightning.checks import require_choice
from ssd_lightning.errors import one_line
from ssd_lightning.training._compat import GrowingCSVLogger, set_wandb_mode, started_wandb_run, wandb_mode

log = logging.getLogger(__name__)


class Sturdy:
    """Mixin that turns a logger's errors (a full disk, an unreachable service) into one warning.

    It also escapes names that are not valid UTF-8, such as class names from file names. Otherwise one such name would
    lose the whole row.
    """

    _has_failed = False

    @property
    def experiment(self) -> Any:
        """The logger's experiment, created at the first use. Raises `AttributeError` if it cannot be created.

        Lightning reads this attribute before training. Any other error would end the run.
        """
        try:
            return super().experiment  # type: ignore[misc]
        except Exception as error:
            raise AttributeError("the logger cannot write") from error

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Log numbers by name."""
        named = {key.encode(errors="backslashreplace").decode(): value for key, value in metrics.items()}
        self.attempt(super().log_metrics, named, step)  # type: ignore[misc]

    def log_hyperparams(self, params: Any = None, *arguments: Any, **settings: Any) -> None:
        """Log settings."""
        self.attempt(super().log_hyperparams, params, *arguments, **settings)  # type: ignore[misc]

    def save(self) -> None:
        """Write buffered values."""
        self.attempt(super().save)  # type: ignore[misc]

    def finalize(self, status: str) -> None:
        """Finish the log."""
        self.attempt(super().finalize, status)  # type: ignore[misc]

    def attempt(self, action: Callable[..., Any], *arguments: Any, **settings: Any) -> None:
        """Run an action that may fail, and log its first error."""
        try:
            action(*arguments, **settings)
        except Exception as error:
            if not self._has_failed:
                self._has_failed = True
                kind = type(self).__name__.removeprefix("Sturdy")
                sentence = "%s failed; training continues, but its output is lost: %s"
                log.warning(sentence, kind, describe(error))


def describe(error: BaseException) -> str:
    """Describe an error, or its cause, in one line."""
    error = error.__cause__ or error
    return one_line(f"{type(error).__name__}: {error}")


class SturdyCSVLogger(Sturdy, GrowingCSVLogger):
    """Writes `metrics.csv`. Rows that could not be written are retried with the next ones."""


class SturdyTensorBoardLogger(Sturdy, TensorBoardLogger):
    """Writes TensorBoard's event files."""


ModelLogging = Literal["best", "end", "none"]
MODES = ("online", "offline", "disabled")


class SturdyWandbLogger(Sturdy, WandbLogger):
    """Writes to Weights & Biases. If a run cannot be started online, it is started offline.

    Without an account it logs a warning and records offline, without a prompt. A run that is resumed in its own
    directory continues the same W&B run.

    Args:
        log_model: when `best.ckpt` is uploaded as an artifact. `best`: at the validations whose images are logged, if
            the score has improved, and at the end. `end`: only at the end. `none`: never. In an offline run `best`
            acts as `end`, because every artifact would be a copy on the local disk.
        tags: tags of the run. Those in `WANDB_TAGS` are added.
        **settings: other arguments of `pytorch_lightning.loggers.WandbLogger`.

    Raises:
        ConfigurationError: `log_model` has another value.
    """

    def __init__(self, *, log_model: ModelLogging = "best", tags: Sequence[str] | None = None, **settings: Any) -> None:
        require_choice("logger.wandb.log_model", log_model, get_args(ModelLogging))
        if "WANDB_MODE" not in os.environ and not settings.get("offline") and not has_wandb_account():
            log.warning(
                "wandb: no account on this machine, so the run is recorded offline; to upload it, use `wandb login` "
                "before the run or `wandb sync` after it"
            )
            settings["offline"] = True
        more = [tag for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag]
        settings["tags"] = list(dict.fromkeys([*(tags or ()), *more]))  # W&B uses only one of the two
        if settings.get("id") is None and settings.get("version") is None and "WANDB_RUN_ID" not in os.environ:
            settings["id"] = earlier_id(Path(settings.get("save_dir") or "."))
        super().__init__(**settings)
        self.log_model = log_model

    @property
    def is_offline(self) -> bool:
        """Whether nothing is sent during the run."""
        return (wandb_mode(self) or os.environ.get("WANDB_MODE", "online")) not in ("online", "shared")

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, created at the first use, on the rank that logs."""
        if (started := started_wandb_run(self)) is not None:
            return started
        first = "offline" if self.is_offline else "online"
        for mode in MODES[MODES.index(first) :]:
            if mode != first:
                set_wandb_mode(self, mode)
            try:
                run = super().experiment
            except Exception as error:
                instead = "it is recorded offline" if mode == "online" else "nothing is recorded"
                log.warning("wandb: a run cannot be started %s, so %s: %s", mode, instead, describe(error))
                continue
            run.define_metric("val/map*", summary="last,max", step_metric="trainer/global_step")
            return run
        raise AttributeError("wandb cannot be used at all")

    def close(self) -> None:
        """End the W&B run, and wait until all of it is written or sent.

        W&B would do this when the process ends, but not reliably if there are child processes: a rank 0 that ended
        normally left an offline run without its end.
        """
        if (started := started_wandb_run(self)) is not None:
            import wandb

            self.attempt(started.finish)
            self.attempt(wandb.teardown)  # `finish` may return before the file's last block is on the disk


def close_loggers(loggers: Iterable[Any]) -> None:
    """Close the loggers that would otherwise still write when the process ends."""
    for logger in loggers:
        if isinstance(logger, SturdyWandbLogger):
            logger.close()


def earlier_id(directory: Path) -> str | None:
    """Find the id of the W&B run that was recorded in a directory. None if the run there starts from scratch.

    A run that starts from scratch has no checkpoints: old ones are removed before the loggers are created.
    """
    if not any((directory / "checkpoints").glob("*.ckpt")):
        return None
    recorded = [*directory.glob("wandb/run-*-*"), *directory.glob("wandb/offline-run-*-*")]
    newest = max(recorded, key=lambda path: path.name.removeprefix("offline-"), default=None)
    return None if newest is None else newest.name.rpartition("-")[2]


def has_wandb_account() -> bool:
    """Whether W&B finds a key without a prompt, in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
