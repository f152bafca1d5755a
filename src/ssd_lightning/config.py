"""Find and compose configurations. This module does not import torch, so that `--help` is fast."""

import gc
import logging
import os
import pkgutil
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ssd_lightning.command_line import (
    CONFIG_DIR_FLAGS,
    CONFIG_NAME_FLAGS,
    CONFIG_PATH_FLAGS,
    HELP_FLAGS,
    REPEATED,
    CommandLine,
    spell_out,
)
from ssd_lightning.errors import ConfigurationError, UserError, find_user_error
from ssd_lightning.list_settings import check_lists
from ssd_lightning.overrides import check_each, missing_keys, refuse_sweep
from ssd_lightning.run_dirs import run_dir, saved_config

PACKAGE = Path(__file__).resolve().parent
EXPERIMENT_GROUP = "experiment"


def find_folder(name: str) -> Path:
    """Find `conf`, `experiments` or `demo_data`: in the package for a wheel, else in the checkout.

    Raises:
        ConfigurationError: the folder is in neither place.
    """
    for folder in (PACKAGE / name, PACKAGE.parents[1] / name):
        if folder.is_dir():
            return folder
    raise ConfigurationError(f"the installation is incomplete: no folder {name} in {PACKAGE} or {PACKAGE.parents[1]}")


def register_experiments(config_name: str, *, names_only: bool = False) -> None:
    """Register every file of `experiments/` as a choice of the group `experiment`, for commands that have this group.

    Args:
        config_name: configuration of the command.
        names_only: register names without content. Hydra copies the content over a hundred times to print its help.
    """
    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)
    OmegaConf.register_new_resolver("packaged_folder", lambda name: str(find_folder(name)), replace=True)
    packaged = find_folder("conf") / f"{config_name}.yaml"
    if packaged.is_file() and EXPERIMENT_GROUP not in packaged.read_text():
        return  # predict and others start faster without
    _store_experiments(find_folder("experiments"), names_only)


@lru_cache(maxsize=1)  # the store holds what was registered last
def _store_experiments(folder: Path, names_only: bool) -> None:
    for path in sorted(folder.glob("*.yaml")):
        node: Any = {} if names_only else OmegaConf.load(path)
        ConfigStore.instance().store(
            group=EXPERIMENT_GROUP, name=path.stem, node=node, package="_global_", provider="experiments"
        )


def compose_config(
    config_name: str,
    overrides: list[str] | None = None,
    *,
    folder: Path | None = None,
    return_hydra_config: bool = False,
) -> DictConfig:
    """Compose a configuration as the given command does, without running the command.

    Args:
        config_name: name of the command, such as `train`.
        overrides: `key=value` and `group=choice`, as on the command line.
        folder: folder of the configurations; None for `conf`.
        return_hydra_config: include Hydra's own settings as `hydra`.
    """
    register_experiments(config_name)
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=os.path.abspath(folder or find_folder("conf")), version_base="1.3"):
        return compose(config_name, overrides=spell_out(overrides or []), return_hydra_config=return_hydra_config)


def run_command(
    config_name: str,
    task: str | Callable[[DictConfig], Any],
    *,
    plan: Callable[[CommandLine], CommandLine] = lambda line: line,
) -> None:
    """Compose the configuration from the command line and call the task with it.

    A user error is printed as one message without a stack trace, and exits with code 2.

    Args:
        config_name: `train`, `evaluate` or another command.
        task: called with the composed configuration. `MODULE:FUNCTION` is imported just before, so `--help` is fast.
        plan: rewrites the command line before Hydra reads it.
    """
    # OpenMP threads that spin while they wait halve the speed of a training that shares its cores with its
    # data workers. This must be set before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        line = plan(CommandLine(tuple(spell_out(sys.argv[1:])))).with_absolute_config_path(config_name)
        helps = line.has(HELP_FLAGS)
        register_experiments(config_name, names_only=helps)
        if (run := line.repeated_run) is not None:
            line = store_repeated_run(config_name, line, run)
        elif not helps:
            check_overrides(config_name, line.overrides)
        if not helps and not line.is_multirun:
            refuse_sweep(line.overrides)
        line.use()
    except UserError as error:
        _exit_with(error)

    def guarded(config: DictConfig) -> Any:
        quieten_libraries()
        try:
            for missing in sorted(missing_keys(config)):
                raise ConfigurationError(f"{missing} is required: add {missing}=VALUE")
            if HydraConfig.get().mode != RunMode.MULTIRUN:  # each job of a sweep is checked in its own process
                check_lists(config)
            return (_import(task) if isinstance(task, str) else task)(config)
        except Exception as error:
            user_error = find_user_error(error) or refused_value(error)
            if user_error is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            logging.getLogger(__name__).debug("stack trace of the error below", exc_info=True)
            _exit_with(user_error)

    command = hydra.main(version_base="1.3", config_path=str(find_folder("conf")), config_name=config_name)(guarded)
    try:
        command()
    except KeyboardInterrupt:  # before or after training, which saves a checkpoint first
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _import(task: str) -> Callable[[DictConfig], Any]:
    gc.disable()  # a fifth of the start is a search for garbage among the objects that imports make
    try:
        return pkgutil.resolve_name(task)
    finally:
        gc.enable()


def store_repeated_run(config_name: str, line: CommandLine, run: Path) -> CommandLine:
    """Register the configuration of the repeated run, with this command's Hydra settings: new directory, own log.

    Hydra does not save its own settings with the configuration, so it would fall back to its defaults.

    Returns:
        The command line that names this configuration.

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
        "You have overridden `transfer_batch_to_device` in `LightningModule`",  # the override is intended
    ):
        warnings.filterwarnings("ignore", message)


def refused_value(error: BaseException) -> UserError | None:
    """Describe a file access that the system denied, or a config node that failed to build; else None."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return ConfigurationError(f"{os.fsdecode(error.filename)}: {error.strerror}")
    if not isinstance(error, InstantiationException) or error.__cause__ is None:
        return None
    target, _, key = str(error).replace("full_key:", "\0").partition("\0")
    reason = str(error.__cause__).strip().splitlines()
    where = key.strip() or target.strip().splitlines()[0]
    message = f"{where}: {reason[0] if reason else type(error.__cause__).__name__}"
    if unknown := re.search(r"unexpected keyword argument '(\w+)'", message):
        group = where.rpartition(".")[2]
        message += f"; a recipe or an override sets it for another {group}: remove it with ~{group}.{unknown[1]}"
    return ConfigurationError(message)


def _exit_with(error: UserError) -> None:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


def check_overrides(config_name: str, overrides: list[str]) -> None:
    """Reject unknown keys and choices, and suggest the nearest known one.

    Raises:
        ConfigurationError: a key, group or choice does not exist, or an argument is not `key=value`.
    """
    line = CommandLine.current()
    path, more = line.value_of(CONFIG_PATH_FLAGS), line.value_of(CONFIG_DIR_FLAGS)
    searched = [text for text in overrides if text.startswith("hydra.searchpath=")]
    if any("://" in place for place in (path or "", *searched)):
        return  # a package, whose files only Hydra can find
    name = line.value_of(CONFIG_NAME_FLAGS) or config_name
    folder, *others = [Path(path) if path else find_folder("conf"), *([Path(more)] if more else [])]
    if others and not (folder / f"{name}.yaml").is_file():  # the first folder must contain the command's configuration
        folder, others = others[0], [folder]
    if others and not searched:
        searched = [f'hydra.searchpath=["{os.path.abspath(others[0])}"]']

    def compose_as_here(overrides: list[str]) -> DictConfig:
        return compose_config(name, [*searched, *overrides], folder=folder, return_hydra_config=True)

    check_each(overrides, known_groups(folder, *others), compose_as_here)


def known_groups(*roots: Path) -> dict[str, list[str]]:
    """List the choices of every group in folders of configurations, and the recipes."""
    groups: dict[str, set[str]] = defaultdict(set)
    for root in roots:
        for path in root.rglob("*/*.yaml"):
            groups[str(path.parent.relative_to(root))].add(path.stem)
    groups[EXPERIMENT_GROUP] |= {path.stem for path in find_folder("experiments").glob("*.yaml")}
    return {name: sorted(choices) for name, choices in groups.items()}
