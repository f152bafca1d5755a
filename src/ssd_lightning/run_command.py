"""What all commands share: from the command line to a configuration, to the task, to an exit code."""

import gc
import logging
import os
import pkgutil
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ssd_lightning.command_line import CONFIG_NAME_FLAGS, HELP_FLAGS, REPEATED, CommandLine, spell_out
from ssd_lightning.config import check_overrides, find_folder, register_experiments
from ssd_lightning.errors import ConfigurationError, UserError, find_user_error
from ssd_lightning.overrides import REFUSALS, check_each, check_references, missing_keys, refuse_sweep
from ssd_lightning.run_dirs import saved_config
from ssd_lightning.setting_types import check_types

OF_TRAINING = ("train", "doctor", "show")
"""Commands that import the training, which needs signals and limits of Unix."""


def run_command(
    config_name: str,
    task: Callable[[DictConfig], Any] | None = None,
    *,
    plan: Callable[[CommandLine], CommandLine] = lambda line: line,
) -> None:
    """Compose the configuration from the command line and call the task with it.

    A user error is printed as one message without a stack trace, and exits with code 2.

    Args:
        config_name: `train`, `evaluate` or another command.
        task: called with the composed configuration. None: the function of this name in `ssd_lightning.commands`,
            which is imported just before, so that `--help` is fast.
        plan: rewrites the command line before Hydra reads it.
    """
    # OpenMP threads that spin while they wait halve the speed of a training that shares its cores with its
    # data workers. This must be set before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    with exit_at_user_errors():
        line = plan(CommandLine(tuple(spell_out(sys.argv[1:])))).with_absolute_config_path(config_name)
        helps = line.has(HELP_FLAGS)
        if sys.platform == "win32" and config_name in OF_TRAINING and not helps:
            raise ConfigurationError(f"{config_name} does not run on Windows: run it in WSL, the Linux inside Windows")
        register_experiments(config_name, [] if helps else None if line.has_own_config else line.arguments)
        if (run := line.repeated_run) is not None:
            line = store_repeated_run(config_name, line, run)
        elif not (helps or line.is_plain):
            check_overrides(config_name, line.overrides)
        if not (helps or line.is_plain or line.is_multirun):
            refuse_sweep(line.overrides)
        line.use()

    def guarded(config: DictConfig) -> Any:
        quieten_libraries()
        with exit_at_user_errors():  # not a decorator: launchers of jobs pickle this function
            for missing in sorted(missing_keys(config)):
                raise ConfigurationError(f"{missing} is required: add {missing}=VALUE")
            if config_name != "train" or HydraConfig.get().mode != RunMode.MULTIRUN:
                # Each job of a sweep of trainings is checked in its own process.
                check_references(config, line.overrides)
                check_types(config, config_name)
            return (task or _import(f"ssd_lightning.commands.{config_name}:{config_name}"))(config)

    try:
        with exit_at_user_errors():  # of the run directory or its log too, which Hydra makes
            if line.is_plain:
                compose_and_run(config_name, line.overrides, guarded)
            else:
                folder = str(find_folder("conf"))
                hydra.main(version_base="1.3", config_path=folder, config_name=config_name)(guarded)()
    except KeyboardInterrupt:  # before or after training, which saves a checkpoint first
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def compose_and_run(config_name: str, overrides: list[str], task: Callable[[DictConfig], Any]) -> None:
    """Compose once and run the task, for a command line without flags. What Hydra refuses is explained afterwards.

    `hydra.main` would compose twice, the first time only to find `hydra.mode`, and a check before it a third time.
    """
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(find_folder("conf")), job_name=config_name, version_base="1.3"):
        composing = GlobalHydra.instance().hydra
        assert composing is not None
        try:
            composing.run(config_name, task, overrides)
        except REFUSALS:
            check_overrides(config_name, overrides)
            refuse_sweep(overrides)
            raise


@contextmanager
def exit_at_user_errors() -> Iterator[None]:
    """Print an error that the user can fix as one message, and exit with code 2. `HYDRA_FULL_ERROR=1` raises it."""
    try:
        yield
    except Exception as error:
        user_error = find_user_error(error) or refused_value(error)
        if user_error is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        logging.getLogger(__name__).debug("stack trace of the error below", exc_info=True)
        print(f"error: {user_error}", file=sys.stderr)
        sys.exit(2)


def _import(task: str) -> Callable[[DictConfig], Any]:
    gc.disable()  # a fifth of the start is a search for garbage among the objects that imports make
    try:
        return pkgutil.resolve_name(task)
    finally:
        gc.enable()


def store_repeated_run(config_name: str, line: CommandLine, run: Path) -> CommandLine:
    """Register the configuration of the repeated run, and return the command line that names it.

    It gets this command's Hydra settings: new directory, own log. Hydra does not save them with a configuration.

    Raises:
        ConfigurationError: the configuration cannot be read, or lacks a setting that the command line changes.
    """
    saved = saved_config(run)
    if "resume" in saved:
        saved.resume = None  # a repetition starts from scratch
    if not line.has(HELP_FLAGS):
        check_each(line.overrides, {}, lambda overrides: saved)
    settings: Any = OmegaConf.load(find_folder("conf") / f"{config_name}.yaml")
    node = OmegaConf.create({"hydra": settings.get("hydra", {}), **saved})
    ConfigStore.instance().store(name=REPEATED, node=node, provider="repeated run")
    return line if line.has(CONFIG_NAME_FLAGS) else CommandLine((f"--config-name={REPEATED}", *line.arguments))


def quieten_libraries() -> None:
    """Remove progress messages of libraries from the log. Their warnings stay."""
    for name in (
        "faster_coco_eval",
        "pytorch_lightning.utilities.rank_zero",
        "pytorch_lightning.trainer.connectors",
        "lightning_fabric.utilities",  # the package resets its level on import
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*isinstance.treespec, LeafSpec.* is deprecated",  # Lightning with the newest torch
        "Experiment logs directory .* exists and is not empty",  # the run directory holds more than the log
        "The dirpath has changed from",  # a resumed run has a directory of its own
        ".*It is recommended to use .self.log.*sync_dist=True",  # mAP is counted over all ranks
        ".*does not have many workers which may be a bottleneck",  # the data module counts the cores
        "Checkpoint directory .* exists and is not empty",  # when a run is resumed
        ".*dataloader is not resumable",  # the data module stores its position
        "The number of training batches .* is smaller than the logging interval",  # epochs are still logged
        ".*ModelCheckpoint.monitor=.* could not find the monitored key",  # the run reports it itself
        "Found .* in eval mode at the start of training",  # frozen batch norms, which the start of the run reports
        "Total length of .* across ranks is zero",  # without validation, which the start of the run reports
        "You have overridden `transfer_batch_to_device` in `LightningModule`",  # the override is intended
    ):
        warnings.filterwarnings("ignore", message)


INTERPOLATED = {"data.module.augmentation": "augmentation", "levels": "priors.levels"}
"""Nodes that are built under another key than that of their settings."""


def refused_value(error: BaseException) -> UserError | None:
    """Describe a file access that the system denied, or a config node that failed to build; else None."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return ConfigurationError(f"{os.fsdecode(error.filename)}: {error.strerror}")
    if not isinstance(error, InstantiationException):
        return None
    target, _, key = str(error).replace("full_key:", "\0").partition("\0")
    cause = str(error.__cause__ or target).strip().splitlines()
    named = re.search(r"'[\w.]*?(\w+)'", target)
    where = key.strip() or (named[1] if named else target.strip().splitlines()[0])
    where = INTERPOLATED.get(where, where)
    message = f"{where}: {cause[0] if cause else type(error.__cause__).__name__}"
    if key and (unknown := re.search(r"unexpected keyword argument '(\w+)'", message)):
        group = where.rpartition(".")[2]
        message += f"; a recipe or an override sets it for another {group}: remove it with ~{where}.{unknown[1]}"
    return ConfigurationError(message)
