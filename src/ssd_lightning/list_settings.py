"""Check settings that are lists against their constructors: text would be split into letters."""

import inspect
import shlex
import typing
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssd_lightning.errors import ConfigurationError
from ssd_lightning.overrides import quoted

LISTS = (list, tuple, set, Sequence)


def check_lists(config: DictConfig) -> None:
    """Reject a single value where a constructor takes a list, and a number or boolean in a list of texts.

    Every node with a `_target_` is checked.

    Raises:
        ConfigurationError: a setting is wrong. The message contains its name, the value and the correct list.
    """
    for prefix, node in _targets(config):
        for name, kinds in _kinds_of(node["_target_"]).items():
            if name not in node:
                continue
            try:
                value = node[name]
            except OmegaConfBaseException:  # only known at run time, or missing
                continue
            key = _source(node, name) or f"{prefix}{name}"
            if isinstance(value, ListConfig) and Sequence[str] in kinds:
                numbers = [item for item in value if isinstance(item, (bool, int, float))]
                if numbers:
                    texts = ",".join(item if isinstance(item, str) else f'"{item}"' for item in value)
                    raise _refusal(f"{key} holds {numbers[0]!r}, which is not read as text; quote it", key, texts)
            elif isinstance(value, (str, int, float)) and not _admits(kinds, value):
                length = _length(kinds)
                wanted = "a list" if length == 1 else f"a list of {length}"
                raise _refusal(f"{key} is {value!r}; it takes {wanted}", key, ",".join([str(value)] * length))


def _refusal(sentence: str, key: str, items: str) -> ConfigurationError:
    a_list = quoted(f"[{items}]")
    return ConfigurationError(f"{sentence}: {shlex.quote(f'{key}={a_list}')}")


def _targets(config: DictConfig, prefix: str = "") -> Iterator[tuple[str, DictConfig]]:
    if isinstance(config.get("_target_"), str):
        yield prefix, config
    for key in map(str, config):
        if not OmegaConf.is_missing(config, key) and not OmegaConf.is_interpolation(config, key):
            child = config[key]
            if isinstance(child, DictConfig):
                yield from _targets(child, f"{prefix}{key}.")


@cache
def _kinds_of(target: str) -> dict[str, tuple[Any, ...]]:
    """Return the types that each argument accepts; empty if the target does not exist, which is reported elsewhere."""
    try:
        made = get_object(target)
        hints = typing.get_type_hints(made.__init__ if inspect.isclass(made) else made)
    except Exception:
        return {}
    return {name: tuple(_members(hint)) for name, hint in hints.items() if name != "return"}


def _members(hint: Any) -> Iterator[Any]:
    if isinstance(hint, UnionType) or typing.get_origin(hint) is typing.Union:
        for member in typing.get_args(hint):
            yield from _members(member)
    else:
        yield hint


def _admits(kinds: tuple[Any, ...], value: str | int | float) -> bool:
    origins = {typing.get_origin(kind) or kind for kind in kinds}
    if not origins & set(LISTS) or any(kind is Any or isinstance(kind, TypeVar) for kind in kinds):
        return True
    return bool(origins & ({str, Path, Literal} if isinstance(value, str) else {int, float}))


def _length(kinds: tuple[Any, ...]) -> int:
    """Return the required length of a list; 1 if any length is accepted."""
    items = [typing.get_args(kind) for kind in kinds if typing.get_origin(kind) is tuple]
    return next((len(each) for each in items if each and Ellipsis not in each), 1)


def _source(node: DictConfig, name: str) -> str | None:
    """Name the setting that a value is interpolated from, such as `data.class_names` for the data module."""
    if not OmegaConf.is_interpolation(node, name):
        return None
    text = str(OmegaConf.to_container(node, resolve=False)[name])  # type: ignore[call-overload,index]
    return text[2:-1] if text.count("${") == 1 and text.startswith("${") and ":" not in text else None
