"""What stands on a command line, checked against what a configuration knows."""

import difflib
import os
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssd_lightning.errors import ConfigurationError

CONFIG_PATH_FLAGS = {"-cp", "--config-path"}
CONFIG_NAME_FLAGS = {"-cn", "--config-name"}
OWN_CONFIG_FLAGS = CONFIG_PATH_FLAGS | CONFIG_NAME_FLAGS | {"-cd", "--config-dir"}
FLAGS_WITH_VALUES = OWN_CONFIG_FLAGS | {"--package", "-p", "--cfg", "-c"}


def command_line_overrides() -> list[str]:
    """Give the arguments that are neither flags nor a flag's value."""
    overrides, arguments = [], iter(sys.argv[1:])
    for argument in arguments:
        if argument in FLAGS_WITH_VALUES:
            next(arguments, None)
        elif not argument.startswith("-"):
            overrides.append(argument)
    return overrides


def has_own_config() -> bool:
    """Say whether the command line names a configuration of the user's."""
    return bool(OWN_CONFIG_FLAGS & {argument.partition("=")[0] for argument in sys.argv})


def flag_value(flags: Collection[str]) -> str | None:
    """Give the value of a flag on the command line, `--flag value` or `--flag=value`; None where it is not there."""
    for argument, following in zip(sys.argv[1:], [*sys.argv[2:], None], strict=False):
        name, sign, value = argument.partition("=")
        if name in flags:
            return value if sign else following
    return None


REPEATED = "repeated_run"
"""Name of the configuration that `--config-path RUN/.hydra` stands for."""


def repeated_run() -> Path | None:
    """Give the directory of the run that `--config-path RUN/.hydra` repeats; None if the command repeats none."""
    folder = Path(flag_value(CONFIG_PATH_FLAGS) or "")
    is_left_by_hydra = (folder / "config.yaml").is_file() and (folder / "hydra.yaml").is_file()
    return folder.parent if is_left_by_hydra and flag_value(CONFIG_NAME_FLAGS) in (None, REPEATED) else None


def take_config_path_from_here(config_name: str) -> None:
    """Make the folder of `--config-path` absolute: Hydra looks for it beside the package instead.

    Args:
        config_name: of the command's configuration.

    Raises:
        ConfigurationError: there is no such folder, or it is a run's and not that of its configuration.
    """
    given = flag_value(CONFIG_PATH_FLAGS)
    if given is not None and "://" not in given:  # as in pkg://
        if not Path(given).is_dir():
            raise ConfigurationError(f"--config-path={given}: there is no such folder")
        kept = Path(given) / ".hydra"
        has_own = (Path(given) / f"{config_name}.yaml").is_file() or flag_value(CONFIG_NAME_FLAGS) is not None
        if (kept / "config.yaml").is_file() and not has_own:
            raise ConfigurationError(f"--config-path={given}: a run is repeated by --config-path={kept}")
        absolute = os.path.abspath(given)
        places = [index for index, argument in enumerate(sys.argv) if argument.partition("=")[0] in CONFIG_PATH_FLAGS]
        name, sign, _ = sys.argv[places[0]].partition("=")
        if sign:
            sys.argv[places[0]] = f"{name}={absolute}"
        else:
            sys.argv[places[0] + 1] = absolute


def asks_for_help() -> bool:
    """Say whether the command line wants nothing but an explanation."""
    return bool({"-h", "--help"} & set(sys.argv))


def check_words(overrides: list[str], groups: dict[str, list[str]], compose: Callable[[list[str]], DictConfig]) -> None:
    """Refuse what a configuration does not know, and name what comes nearest.

    Args:
        overrides: `key=value` and `group=choice`, as on the command line.
        groups: choices of every group.
        compose: makes the configuration of chosen groups.

    Raises:
        ConfigurationError: a key, group or choice does not exist, or an argument is no `key=value`.
    """
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            raise ConfigurationError(f"'{text}' is no key=value")
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise ConfigurationError(str(error).splitlines()[0]) from error
    chosen, settings = [], []
    for override in parsed:
        name = override.key_or_group
        if override.is_delete() or name.startswith("hydra"):
            continue
        if name in groups:
            _check_choice(override, groups[name])
            chosen.append(_first_choice(override))
        elif not override.is_add():
            settings.append(name)
    known = set(_keys(_compose(compose, [text for text in chosen if text])))
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known | groups.keys(), n=1, cutoff=0.5)
            tail = [key for key in sorted(known) if key.rpartition(".")[2] == name.rpartition(".")[2]]
            guess = tail[:1] or near
            hint = f"; did you mean '{guess[0]}'?" if guess else ""
            raise ConfigurationError(f"there is no setting '{name}'{hint} (--cfg job shows all)")


def missing_keys(config: DictConfig) -> Iterator[str]:
    """List the dotted keys whose value is `???`; interpolations that lead to one are not counted again."""
    for name in _keys(config):
        node, _, key = name.rpartition(".")
        parent = OmegaConf.select(config, node) if node else config
        if OmegaConf.is_missing(parent, key):
            yield name


def _compose(compose: Callable[[list[str]], DictConfig], overrides: list[str]) -> DictConfig:
    try:
        return compose(overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigurationError(str(error).strip().splitlines()[0]) from error


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
