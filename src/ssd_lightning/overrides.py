"""Check command-line overrides against the known settings."""

import contextlib
import difflib
import os
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from ssd_lightning.errors import ConfigurationError

CONFIG_PATH_FLAGS = {"-cp", "--config-path"}
CONFIG_NAME_FLAGS = {"-cn", "--config-name"}
CONFIG_DIR_FLAGS = {"-cd", "--config-dir"}
OWN_CONFIG_FLAGS = CONFIG_PATH_FLAGS | CONFIG_NAME_FLAGS | CONFIG_DIR_FLAGS
FLAGS_WITH_VALUES = OWN_CONFIG_FLAGS | {"--package", "-p", "--cfg", "-c", "--experimental-rerun"}
INFO_FLAGS = {"--info", "-i"}
"""Flags that print information; a value is optional."""


ABBREVIATIONS = {"priors=auto": "priors.fit=true"}
"""Shortcuts. Fitting works with every choice of priors, whereas a group choice would replace it."""


def spell_out(overrides: Iterable[str]) -> list[str]:
    """Replace abbreviations on a command line."""
    return [ABBREVIATIONS.get(override, override) for override in overrides]


def command_line_overrides() -> list[str]:
    """Return the arguments that are neither flags nor values of flags."""
    overrides, previous, arguments = [], "", iter(sys.argv[1:])
    for argument in arguments:
        if argument in FLAGS_WITH_VALUES:
            next(arguments, None)
        elif not argument.startswith("-") and ("=" in argument or previous not in INFO_FLAGS):
            overrides.append(argument)
        previous = argument
    return overrides


def refuse_sweep(overrides: Sequence[str]) -> None:
    """Reject several values for one key when the command line asks for a single run.

    Args:
        overrides: `key=value` as on the command line; all of them must be parsable.

    Raises:
        ConfigurationError: a key has several values; the message shows how to write a list or a text with a comma.
    """
    if {"-m", "--multirun"} & set(sys.argv) or "hydra.mode=MULTIRUN" in overrides:
        return
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.is_sweep_override():
            raise ConfigurationError(_explain_sweep(override))


def has_own_config() -> bool:
    """Tell whether the command line names a configuration of the user."""
    return bool(OWN_CONFIG_FLAGS & {argument.partition("=")[0] for argument in sys.argv})


def flag_value(flags: Collection[str]) -> str | None:
    """Return the value of a flag, `--flag value` or `--flag=value`; None if the flag is missing."""
    for argument, following in zip(sys.argv[1:], [*sys.argv[2:], None], strict=False):
        name, sign, value = argument.partition("=")
        if name in flags:
            return value if sign else following
    return None


REPEATED = "repeated_run"
"""Name of the configuration that `--config-path RUN/.hydra` stands for."""


def repeated_run() -> Path | None:
    """Return the run directory that `--config-path RUN/.hydra` repeats; None if no run is repeated."""
    folder = Path(flag_value(CONFIG_PATH_FLAGS) or "")
    is_left_by_hydra = (folder / "config.yaml").is_file() and (folder / "hydra.yaml").is_file()
    return folder.parent if is_left_by_hydra and flag_value(CONFIG_NAME_FLAGS) in (None, REPEATED) else None


def take_config_path_from_here(config_name: str) -> None:
    """Make the folder of `--config-path` absolute, since Hydra would search it next to the package.

    Args:
        config_name: name of the command's configuration.

    Raises:
        ConfigurationError: the folder of `--config-path` or `--config-dir` does not exist, or it is a run directory
            and not its configuration folder.
    """
    more = flag_value(CONFIG_DIR_FLAGS)
    if more is not None and not Path(more).is_dir():
        raise ConfigurationError(f"--config-dir={more}: there is no such folder")
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
    """Tell whether the command line only asks for help."""
    return bool({"-h", "--help"} & set(sys.argv))


def check_each(
    overrides: list[str],
    groups: Mapping[str, Sequence[str]],
    compose: Callable[[list[str]], DictConfig],
) -> None:
    """Reject unknown settings, and suggest the nearest known one.

    Args:
        overrides: `key=value` and `group=choice`, as on the command line.
        groups: choices of every group.
        compose: composes a configuration from overrides, with Hydra's own settings if possible.

    Raises:
        ConfigurationError: a key, group or choice does not exist, an argument is not `key=value` or cannot be parsed,
            or Hydra rejects it for another reason.
    """
    parsed = [_parse(text, groups, compose) for text in overrides]
    for override in parsed:
        if override.is_sweep_override() and override.key_or_group in groups:
            _check_choice(override, groups[override.key_or_group])
    composed = [text for override in parsed if (text := _without_sweep(override, groups)) is not None]
    try:
        config = compose(composed)
    except REFUSALS as error:
        _explain_refusal(error, parsed, groups, compose)
    chosen = OmegaConf.select(config, "hydra.runtime.choices", default={})  # includes groups that only Hydra can find
    known = set(_keys(config))
    for override in parsed:
        name = override.key_or_group
        if not (_is_new(override) or override.is_delete() or name in known or name in {*groups, *chosen}):
            raise _unknown(name, known, groups)
        if "${" in str(override.input_line) and not override.is_sweep_override():
            _check_reference(config, override)


REFUSALS = (HydraException, OmegaConfBaseException, ValueError)


def _parse(text: str, groups: Mapping[str, Sequence[str]], compose: Callable[[list[str]], DictConfig]) -> Override:
    if "=" not in text and not text.startswith("~"):
        raise ConfigurationError(f"'{text}' is not key=value")
    if (override := _try_to_parse(text)) is not None:
        return override
    key, _, value = text.partition("=")
    if _try_to_parse(f"{key}=0") is None:
        raise _unknown(key.lstrip("+~"), set(_keys(compose([]))), groups)
    opening = next((pair[0] for pair in ("[]", "{}") if value[:1] == pair[0] and value[-1:] != pair[1]), None)
    fault = f"'{opening}' is not closed; a text that starts with it" if opening else "a value with such letters"
    suggestion = f"{key}={quoted(value)}"
    meant = _try_to_parse(suggestion)
    if meant is not None and meant.key_or_group in groups:
        _check_choice(meant, groups[meant.key_or_group])
    if meant is None:
        raise ConfigurationError(f"{text} cannot be read; write it into a YAML file and give that, see --config-dir")
    raise ConfigurationError(f"{text} cannot be read: {fault} needs quotes: {shlex.quote(suggestion)}")


def _try_to_parse(text: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        return None


def quoted(value: str) -> str:
    """Quote a value for the command line. In a list or mapping, only the items that need quotes get them."""
    if _try_to_parse(f"key={value}") is not None:
        return value
    if value[:1] == "[" and value[-1:] == "]":
        return f"[{','.join(quoted(item.strip()) for item in _items(value[1:-1]))}]"
    if value[:1] == "{" and value[-1:] == "}":
        pairs = (item.partition(":") for item in _items(value[1:-1]))
        return f"{{{','.join(f'{key.strip()}:{quoted(item.strip())}' for key, _, item in pairs)}}}"
    return '"' + value.replace('"', '\\"') + '"'


def _items(text: str) -> list[str]:
    """Split at commas that are not inside brackets."""
    items, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            items.append("")
        else:
            items[-1] += letter
    return items


def _check_reference(config: DictConfig, override: Override) -> None:
    try:
        OmegaConf.select(config, override.key_or_group)
    except InterpolationKeyError as error:
        reason = str(error).partition("\n")[0]
        raise ConfigurationError(f"{override.input_line}: {reason}; ${{NAME}} stands for another setting") from error
    except REFUSALS:
        return  # only known at run time, such as ${hydra:runtime.output_dir}


def _explain_sweep(override: Override) -> str:
    name, _, value = str(override.input_line).partition("=")
    if not override.is_choice_sweep() or "choice(" in value:
        return f"{override.input_line}: several values are several runs; add --multirun"
    a_list, a_text = (shlex.quote(f"{name}={form}") for form in (f"[{value}]", f'"{value}"'))
    return f"{override.input_line}: a list is {a_list}, a text with a comma {a_text}; several runs need --multirun"


def _explain_refusal(
    error: Exception,
    parsed: Sequence[Override],
    groups: Mapping[str, Sequence[str]],
    compose: Callable[[list[str]], DictConfig],
) -> NoReturn:
    """Name the choice or key that caused the error, else return Hydra's message in one line."""
    chosen = [override for override in parsed if override.key_or_group in groups and not override.is_delete()]
    for override in chosen:
        _check_choice(override, groups[override.key_or_group])
    known: set[str] = set()
    with contextlib.suppress(*REFUSALS):
        known |= set(_keys(compose([text for override in chosen if (text := _without_sweep(override, groups))])))
    for override in parsed:
        name = override.key_or_group
        if known and not _is_new(override) and name not in known | groups.keys():
            raise _unknown(name, known, groups) from error
    raise ConfigurationError(" ".join(str(error).strip().partition("\n\n")[0].split())) from error


def _is_new(override: Override) -> bool:
    """Tell whether an override is for a key that may be missing, or that only Hydra knows."""
    return override.is_add() or override.is_force_add() or override.key_or_group.partition(".")[0] == "hydra"


def _unknown(name: str, known: Collection[str], groups: Mapping[str, Sequence[str]]) -> ConfigurationError:
    near = difflib.get_close_matches(name, {*known, *groups}, n=1, cutoff=0.5)
    tail = [key for key in sorted(known) if key.rpartition(".")[2] == name.rpartition(".")[2]]
    guess = tail[:1] or near
    hint = f"; did you mean '{guess[0]}'?" if guess else ""
    return ConfigurationError(f"there is no setting '{name}'{hint} (--cfg job shows all)")


def missing_keys(config: DictConfig) -> Iterator[str]:
    """List the dotted keys whose value is `???`. Interpolations that refer to one are not counted again."""
    for name in _keys(config):
        node, _, key = name.rpartition(".")
        parent = OmegaConf.select(config, node) if node else config
        if OmegaConf.is_missing(parent, key):
            yield name


def _choices(override: Override) -> list[str]:
    values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return [str(item).strip("'\"") for item in flat if item is not None]


def _check_choice(override: Override, options: Sequence[str]) -> None:
    for choice in _choices(override):
        if choice not in options:
            near = difflib.get_close_matches(choice, options, n=1, cutoff=0.4)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigurationError(
                f"there is no {override.key_or_group}={choice}{hint or '.'} There is {', '.join(options)}"
            )


def _without_sweep(override: Override, groups: Mapping[str, Sequence[str]]) -> str | None:
    """Return an override for composing: of several choices the first; None for several values."""
    if not override.is_sweep_override():
        return override.input_line
    choices = _choices(override) if override.key_or_group in groups else []
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
