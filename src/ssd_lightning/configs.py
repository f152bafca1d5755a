"""Where the configurations are, and how a command line becomes one. Imports no torch: `--help` has to be quick."""

import difflib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssd_lightning.errors import ConfigurationError, UserError

PACKAGE = Path(__file__).resolve().parent
EXPERIMENT_GROUP = "experiment"


def find_folder(name: str) -> Path:
    """Find `conf` or `experiments`: inside the package where it was installed from a wheel, else in the checkout.

    Raises:
        ConfigurationError: it is in neither place.
    """
    for folder in (PACKAGE / name, PACKAGE.parents[1] / name):
        if folder.is_dir():
            return folder
    raise ConfigurationError(f"the installation is incomplete: no folder {name} in {PACKAGE} or {PACKAGE.parents[1]}")


def register_experiments() -> None:
    """Offer every file of `experiments/` as a choice of the group `experiment`."""
    store = ConfigStore.instance()
    for path in sorted(find_folder("experiments").glob("*.yaml")):
        node = OmegaConf.load(path)
        store.store(group=EXPERIMENT_GROUP, name=path.stem, node=node, package="_global_", provider="experiments")


def compose_config(config_name: str, overrides: list[str] | None = None) -> DictConfig:
    """Compose a configuration as the command of that name does, without running anything.

    Args:
        config_name: `train`, `evaluate` or `predict`.
        overrides: `key=value` and `group=choice`, as on the command line.
    """
    register_experiments()
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(find_folder("conf")), version_base="1.3"):
        return compose(config_name, overrides=overrides or [])


def run_command(config_name: str, task: Callable[[DictConfig], Any]) -> None:
    """Run a command: compose the configuration from `sys.argv` and call the task with it.

    What the user can mend is told in one message, without a stack trace, and ends with exit code 2.
    """
    # OpenMP threads that spin while they wait halve the speed of a training that shares its cores with its own
    # data workers; it has to be said before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    try:
        register_experiments()
        check_overrides(config_name, command_line_overrides())
    except UserError as error:
        _exit_with(error)

    def guarded(config: DictConfig) -> Any:
        quieten_libraries()
        try:
            for missing in sorted(_missing_keys(config)):
                raise ConfigurationError(f"{missing} has to be given: add {missing}=VALUE")
            return task(config)
        except Exception as error:
            user_error = find_user_error(error) or refused_value(error)
            if user_error is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            logging.getLogger(__name__).debug("stack trace of the error below", exc_info=True)
            _exit_with(user_error)

    decorate = hydra.main(version_base="1.3", config_path=str(find_folder("conf")), config_name=config_name)
    decorate(guarded)()


def quieten_libraries() -> None:
    """Keep libraries' progress talk out of the log; their warnings stay."""
    for name in ("faster_coco_eval", "pytorch_lightning.utilities.rank_zero", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*isinstance.treespec, LeafSpec.* is deprecated",  # Lightning with the newest torch
        "Experiment logs directory .* exists and is not empty",  # the run directory holds more than the log
        "The dirpath has changed from",  # a resumed run has a directory of its own
        ".*does not have many workers which may be a bottleneck",  # the data module counts the cores
    ):
        warnings.filterwarnings("ignore", message)


def find_user_error(error: BaseException) -> UserError | None:
    """Find the cause that a user can mend, however many libraries wrapped it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, UserError):
            return _unwrapped(seen)
        seen = seen.__cause__ or seen.__context__
    return None


def refused_value(error: BaseException) -> UserError | None:
    """Say which part of the configuration a library refused, and why, if that is what happened."""
    if not isinstance(error, InstantiationException) or error.__cause__ is None:
        return None
    target, _, key = str(error).replace("full_key:", "\0").partition("\0")
    reason = str(error.__cause__).strip().splitlines()
    where = key.strip() or target.strip().splitlines()[0]
    return ConfigurationError(f"{where}: {reason[0] if reason else type(error.__cause__).__name__}")


def _unwrapped(error: UserError) -> UserError:
    # A DataLoader's worker hands an error over as one of the same class whose message holds the whole stack trace.
    _, marker, message = str(error).rpartition(f"{type(error).__name__}: ")
    return UserError(message.strip()) if marker else error


def _exit_with(error: UserError) -> None:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


def command_line_overrides() -> list[str]:
    """Give the arguments that are neither flags nor a flag's value."""
    overrides, arguments = [], iter(sys.argv[1:])
    for argument in arguments:
        if argument in (
            "--config-path",
            "-cp",
            "--config-name",
            "-cn",
            "--config-dir",
            "-cd",
            "--package",
            "-p",
            "--cfg",
            "-c",
        ):
            next(arguments, None)
        elif not argument.startswith("-"):
            overrides.append(argument)
    return overrides


def check_overrides(config_name: str, overrides: list[str]) -> None:
    """Refuse what the configuration does not know, and name what comes nearest.

    Raises:
        ConfigurationError: a key, group or choice does not exist, or an argument is no `key=value`.
    """
    if {"-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir"} & set(sys.argv):
        return  # the user's own configuration has keys of its own
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            raise ConfigurationError(f"'{text}' is no key=value")
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise ConfigurationError(str(error).splitlines()[0]) from error
    groups = _groups()
    chosen = []
    for override in parsed:
        if override.is_delete() or override.key_or_group.startswith("hydra."):
            continue
        name = override.key_or_group
        if name in groups:
            _check_choice(override, groups[name])
            chosen.append(_first_choice(override))
    known = set(_keys(_compose_groups(config_name, [text for text in chosen if text])))
    for override in parsed:
        name = override.key_or_group
        if override.is_delete() or override.is_add() or name.startswith("hydra") or name in groups:
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known | groups.keys(), n=1, cutoff=0.5)
            tail = [key for key in sorted(known) if key.rpartition(".")[2] == name.rpartition(".")[2]]
            guess = tail[:1] or near
            hint = f"; did you mean '{guess[0]}'?" if guess else ""
            raise ConfigurationError(f"there is no setting '{name}'{hint} (--cfg job shows all)")


def _missing_keys(config: DictConfig) -> Iterator[str]:
    """List the dotted keys whose value is `???`; interpolations that lead to one are not counted again."""
    for name in _keys(config):
        node, _, key = name.rpartition(".")
        parent = OmegaConf.select(config, node) if node else config
        if OmegaConf.is_missing(parent, key):
            yield name


def _compose_groups(config_name: str, overrides: list[str]) -> DictConfig:
    try:
        return compose_config(config_name, overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigurationError(str(error).strip().splitlines()[0]) from error


def _groups() -> dict[str, list[str]]:
    root = find_folder("conf")
    groups = {
        str(folder.relative_to(root)): sorted(path.stem for path in folder.glob("*.yaml"))
        for folder in sorted(root.rglob("*"))
        if folder.is_dir()
    }
    groups[EXPERIMENT_GROUP] = sorted(path.stem for path in find_folder("experiments").glob("*.yaml"))
    return groups


def _choices(override: Override) -> list[str]:
    values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return [str(item).strip("'\"") for item in flat if item is not None]


def _check_choice(override: Override, options: list[str]) -> None:
    for choice in _choices(override):
        if choice not in options:
            near = difflib.get_close_matches(choice, options, n=1, cutoff=0.4)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigurationError(
                f"there is no {override.key_or_group}={choice}{hint} There is {', '.join(options)}"
            )


def _first_choice(override: Override) -> str | None:
    if not override.is_sweep_override():
        return override.input_line
    choices = _choices(override)
    return f"{override.key_or_group}={choices[0]}" if choices else None


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    """List the dotted keys of a configuration, inner nodes included, without resolving interpolations."""
    for key in config:
        name = f"{prefix}{key}"
        yield name
        if OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, key):
            continue
        if isinstance(config[key], DictConfig):
            yield from _keys(config[key], f"{name}.")
