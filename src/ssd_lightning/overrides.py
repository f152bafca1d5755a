"""Check command-line overrides against the known settings."""

import contextlib
import logging
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from ssd_lightning.errors import ConfigurationError, did_you_mean

log = logging.getLogger(__name__)

REFUSALS = (HydraException, OmegaConfBaseException, ValueError)
"""What Hydra and OmegaConf raise for overrides and configurations that they do not accept."""


def refuse_sweep(overrides: Sequence[str]) -> None:
    """Reject several values for one key on the command line of a single run. All overrides must be parsable.

    Raises:
        ConfigurationError: a key has several values; the message shows how to write a list or a text with a comma.
    """
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if not override.is_sweep_override():
            continue
        name, _, value = str(override.input_line).partition("=")
        if not override.is_choice_sweep() or "choice(" in value:
            raise ConfigurationError(f"{override.input_line}: several values are several runs; add --multirun")
        a_list, a_text = (shlex.quote(f"{name}={form}") for form in (f"[{value}]", f'"{value}"'))
        raise ConfigurationError(
            f"{override.input_line}: a list is {a_list}, a text with a comma {a_text}; several runs need --multirun"
        )


def let_epochs_replace_budget(config: DictConfig, overrides: Sequence[str]) -> None:
    """Drop the `budget` of a recipe if the command line has a number of epochs, which has no effect beside a budget.

    Raises:
        ConfigurationError: the command line has both.
    """
    keys = {override.lstrip("+").partition("=")[0] for override in overrides}
    epochs = config.trainer.max_epochs
    if "trainer.max_epochs" not in keys or epochs in (None, -1) or config.budget is None:
        return
    if "budget" in keys:
        raise ConfigurationError(f"trainer.max_epochs={epochs} has no effect beside budget={config.budget}; give one")
    log.info("trainer.max_epochs=%s takes the place of budget=%s", epochs, config.budget)
    config.budget = None


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
        if override.is_sweep_override():
            _check_choice(override, groups)
    try:
        config = compose(_for_composing(parsed, groups))
    except REFUSALS as error:
        _explain_refusal(error, parsed, groups, compose)
    check_references(config, overrides)
    chosen = OmegaConf.select(config, "hydra.runtime.choices", default={})  # includes groups that only Hydra can find
    known = set(_keys(config))
    for override in parsed:
        name = override.key_or_group
        if not (_is_new(override) or override.is_delete() or name in known or name in {*groups, *chosen}):
            raise _unknown(name, known, groups)


def check_references(config: DictConfig, overrides: Iterable[str]) -> None:
    """Reject overrides whose value contains `${NAME}` where there is no setting NAME.

    Raises:
        ConfigurationError: there is one; the message contains it.
    """
    for text in overrides:
        key, _, value = text.partition("=")
        if "${" not in value:
            continue
        try:
            OmegaConf.select(config, key.lstrip("+"))
        except InterpolationKeyError as error:
            reason = str(error).partition("\n")[0]
            raise ConfigurationError(f"{text}: {reason}; ${{NAME}} stands for another setting") from error
        except REFUSALS:
            continue  # only known at run time, such as ${hydra:runtime.output_dir}


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
    if meant is None:
        raise ConfigurationError(f"{text} cannot be read; write it into a YAML file and give that, see --config-dir")
    _check_choice(meant, groups)
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


def _explain_refusal(
    error: Exception,
    parsed: Sequence[Override],
    groups: Mapping[str, Sequence[str]],
    compose: Callable[[list[str]], DictConfig],
) -> NoReturn:
    """Name the choice or key that caused the error, else return Hydra's message in one line."""
    chosen = [override for override in parsed if override.key_or_group in groups and not override.is_delete()]
    for override in chosen:
        _check_choice(override, groups)
        if not override.is_sweep_override() and override.value() is None:
            name = override.key_or_group
            raise ConfigurationError(f"there is no {name}=null. There is {', '.join(groups[name])}") from error
    known: set[str] = set()
    with contextlib.suppress(*REFUSALS):
        known |= set(_keys(compose(_for_composing(chosen, groups))))
    for override in parsed:
        name = override.key_or_group
        if known and not _is_new(override) and name not in known | groups.keys():
            raise _unknown(name, known, groups) from error
    raise ConfigurationError(" ".join(str(error).strip().partition("\n\n")[0].split())) from error


def _is_new(override: Override) -> bool:
    """Tell whether an override is for a key that may be missing, or that only Hydra knows."""
    return override.is_add() or override.is_force_add() or override.key_or_group.partition(".")[0] == "hydra"


def _unknown(name: str, known: Collection[str], groups: Mapping[str, Sequence[str]]) -> ConfigurationError:
    tail = [key for key in sorted(known) if key.rpartition(".")[2] == name.rpartition(".")[2]]
    hint = did_you_mean(name, tail[:1] or {*known, *groups}, cutoff=0 if tail else 0.5)
    return ConfigurationError(f"there is no setting '{name}'{hint} (--cfg job shows all)")


def missing_keys(config: DictConfig) -> Iterator[str]:
    """List the dotted keys whose value is `???`. Interpolations that refer to one are not counted again."""
    return (name for name, parent, key in nodes(config) if OmegaConf.is_missing(parent, key))


def _choices(override: Override) -> list[str]:
    values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return [str(item).strip("'\"") for item in flat if item is not None]


def _check_choice(override: Override, groups: Mapping[str, Sequence[str]]) -> None:
    group = override.key_or_group
    for choice in _choices(override) if group in groups else []:
        if choice not in groups[group]:
            hint = did_you_mean(choice, groups[group], cutoff=0.4)
            raise ConfigurationError(f"there is no {group}={choice}{hint or '.'} There is {', '.join(groups[group])}")


def _for_composing(parsed: Iterable[Override], groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Keep single values, of several choices the first, and nothing of several values."""
    kept = []
    for override in parsed:
        if not override.is_sweep_override():
            kept.append(str(override.input_line))
        elif override.key_or_group in groups:
            kept += [f"{override.key_or_group}={choice}" for choice in _choices(override)[:1]]
    return kept


def _keys(config: Any) -> Iterator[str]:
    return (name for name, _, _ in nodes(config))


def nodes(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """List dotted name, parent and key of each node, inner nodes included, without resolving interpolations.

    A key may be a number, or contain dots: `data.rename_classes` has the names of classes as keys.
    """
    for key in config:
        name = f"{prefix}{key}"
        yield name, config, key
        if OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, key):
            continue
        if isinstance(config[key], DictConfig):
            yield from nodes(config[key], f"{name}.")
