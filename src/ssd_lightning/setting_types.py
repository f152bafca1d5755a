"""Check settings against the types of the constructors that take them, and of the few that no constructor takes."""

import inspect
import math
import shlex
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssd_lightning.config import find_folder
from ssd_lightning.errors import ConfigurationError
from ssd_lightning.overrides import nodes, quoted

LISTS = (list, tuple, set, Sequence, Iterable)
SCALARS = (bool, int, float, str, Path, type(None))
PLAIN: dict[Any, tuple[str, ...]] = {
    bool: ("true", "false"),
    int: ("a whole number",),
    float: ("a number",),
    str: ("text",),
    Path: ("text",),
    Mapping: ("a mapping {name: value}",),
    dict: ("a mapping {name: value}",),
}
"""Types of values that can be typed, besides lists, and what they are called."""
WITHOUT_LIGHTNING = {
    "ssd_lightning.training.DetectionDataModule": "ssd_lightning.data.detection_data.DetectionData",
}
"""Classes whose arguments are those of another class, which is much faster to import."""
NAMES_MAY_BE_EMPTY = "logger."

TEXTS = str | list[str] | None
OF_NO_CONSTRUCTOR: dict[str, Any] = {
    "name": str | float,
    "compile": str | bool | None,
    "resume": str | None,
    "init_from": str | None,
    "budget": str | float | None,
    "seeds": int | None,
    "checkpoint": str | None,
    "source": str | int | list[str | int],
    "run": str | int | list[str | int],
    "image": str | None,
    "images": str | int,
    "output": str | None,
    "record": str | None,
    "visualizations": str | None,
    "examples": str | None,
    "space": str | None,
    "classes": TEXTS,
    "save": TEXTS,
    "quantize": str | None,
    "layout": str | None,
    "backbone.freeze": str | int | None,
    "backbone.freeze_norm": bool,
    "priors.fit": bool,
    "optimizer.decay_biases": bool,
    "trainer.sync_batchnorm": bool | None,
    "data.checksum": bool,
    "data.module": Mapping,
    "data.module.train.splits": list[dict],
    "data.module.val.splits": list[dict],
    "data.module.test.splits": list[dict],
    "data.root": str,
    "data.side_px": int,
    "data.train_difficult": bool,
}
"""Types of settings that no constructor takes, or whose null is replaced before. Of the others in the files of the
commands, the default tells the type."""


def check_types(config: DictConfig, config_name: str) -> None:
    """Reject values of a wrong type: text for a number, one value for a list, null for what is needed, NaN.

    Every node with a `_target_` is checked, and the settings of the command `config_name`.

    Raises:
        ConfigurationError: a setting is wrong. The message contains its name, the value and what it can be.
    """
    defaults = _defaults(config_name)
    for key, default in defaults.items():
        if default is not None and key in config and config[key] is None:
            raise ConfigurationError(f"{key} is null; it needs a value: {key}=VALUE")
    for key, hint in {**_types_of(defaults), **OF_NO_CONSTRUCTOR}.items():
        _check(config, key, hint)
    filled_in = {key for key, default in defaults.items() if default is None}  # by the command
    for name, node, last in nodes(config):
        if last != "_target_" or OmegaConf.is_missing(node, last):
            continue
        prefix = name.removesuffix(last)
        for key, hint in {"_target_": str, "_partial_": bool}.items():
            _check(config, f"{prefix}{key}", hint)
        for argument, (hint, default) in _arguments(node["_target_"]).items():
            key = f"{prefix}{argument}"
            if argument in node and key not in OF_NO_CONSTRUCTOR and _source(node, argument) not in filled_in:
                _check(config, key, hint, default)


def _check(config: DictConfig, key: str, hint: Any, default: Any = inspect.Parameter.empty) -> None:
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if not isinstance(node, DictConfig) or name not in node or "${hydra:" in _reference(node, name):
        return  # what Hydra fills in is only known in a run
    try:
        value = node[name]
        value = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException:  # missing
        return
    if (type(value) is type(default) and value == default) or (value == "" and key.startswith(NAMES_MAY_BE_EMPTY)):
        return
    if not _admits(hint, value):
        raise ConfigurationError(_refusal(_source(node, name) or key, value, list(_members(hint))))


def _refusal(key: str, value: Any, kinds: Sequence[Any]) -> str:
    """Say what a setting can be, with the override to type where the value shows what was meant."""
    if isinstance(value, list) and (Sequence[str] in kinds or list[str] in kinds):
        numbers = [item for item in value if isinstance(item, (bool, int, float))]
        if numbers and all(isinstance(item, (str, bool, int, float)) for item in value):
            texts = ",".join(item if isinstance(item, str) else f'"{item}"' for item in value)
            return f"{key} holds {numbers[0]!r}, which is not read as text; quote it: {_override(key, f'[{texts}]')}"
    is_scalar = isinstance(value, (str, int, float)) and value == value
    if is_scalar and all(_is_list(kind) or kind is type(None) for kind in kinds):
        length = next(filter(None, map(_length, kinds)), 1)
        wanted = "a list" if length == 1 else f"a list of {length}"
        items = ",".join([str(value)] * length)
        return f"{key} is {value!r}; it takes {wanted}: {_override(key, f'[{items}]')}"
    *others, last = dict.fromkeys(_called(kinds))
    text = f"{', '.join(others)} or {last}" if others else last
    sentence = f"{key} is {_shown(value)}; it must be {text}"
    if is_scalar and not isinstance(value, str) and str in kinds:
        text = f'{key}="{_shown(value)}"'
        return f"{sentence}; to pass it as text, quote it: {shlex.quote(text)}"
    return sentence


def _override(key: str, value: str) -> str:
    return shlex.quote(f"{key}={quoted(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return repr(value) if value else "empty"
    return "null" if value is None else repr(value).lower() if isinstance(value, bool) else repr(value)


def _called(kinds: Sequence[Any]) -> list[str]:
    """List what can be typed: plain values, then lists, then null. A class is named if nothing can be typed."""
    texts: dict[int, list[str]] = {rank: [] for rank in range(4)}
    for kind in kinds:
        origin = typing.get_origin(kind) or kind
        if origin is Literal:
            texts[0] += [value if isinstance(value, str) else _shown(value) for value in typing.get_args(kind)]
        elif origin in LISTS:
            length, items = _length(kind), [item for item in typing.get_args(kind) if item is not Ellipsis][:1]
            each = " or ".join(_called(list(_members(items[0])))) if items else ""
            texts[1].append(f"a list{f' of {length}' if length else ''}{f' (each {each})' if each else ''}")
        elif origin is type(None):
            texts[2].append("null")
        elif origin in PLAIN:
            texts[0] += PLAIN[origin]
        else:
            texts[3].append(f"a {getattr(origin, '__name__', origin)}")
    return [*texts[0], *texts[1], *(() if texts[0] or texts[1] else texts[3]), *texts[2]]


def _types_of(defaults: Mapping[str, Any]) -> dict[str, Any]:
    kinds: dict[type, Any] = {bool: bool, int: float, float: float, str: str, dict: Mapping}
    return {key: kinds[type(value)] for key, value in defaults.items() if type(value) in kinds}


@cache
def _defaults(config_name: str) -> dict[str, Any]:
    """Read the command's own settings from `conf/`, without those of groups; `???` where a value is required."""
    path = find_folder("conf") / f"{config_name}.yaml"
    if not path.is_file():
        return {}
    settings: Any = OmegaConf.to_container(OmegaConf.load(path))
    inherited = _defaults("train") if "train" in settings["defaults"] else {}
    return inherited | {key: value for key, value in settings.items() if not isinstance(value, list) and key != "hydra"}


@cache
def _arguments(target: str) -> dict[str, tuple[Any, Any]]:
    """Return type and default of each argument; empty if the target does not exist, which is reported elsewhere."""
    try:
        made = get_object(WITHOUT_LIGHTNING.get(target, target))
        hints = typing.get_type_hints(made.__init__ if inspect.isclass(made) else made)
        parameters = inspect.signature(made).parameters
    except Exception:
        return {}
    named = {name for name, one in parameters.items() if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
    return {name: (hint, parameters[name].default) for name, hint in hints.items() if name in named}


def _members(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (UnionType, typing.Union) else (hint,)


def _is_list(kind: Any) -> bool:
    return (typing.get_origin(kind) or kind) in LISTS


def _length(kind: Any) -> int | None:
    """Return the required length of a list; None if any length is accepted."""
    items = typing.get_args(kind)
    return len(items) if typing.get_origin(kind) is tuple and items and Ellipsis not in items else None


def _admits(hint: Any, value: Any) -> bool:
    """Tell whether a plain value fits a type. True for types that are not understood, such as type variables."""
    if isinstance(value, float) and math.isnan(value):
        return False
    return any(_admits_kind(kind, value) for kind in _members(hint))


def _admits_kind(kind: Any, value: Any) -> bool:
    origin = typing.get_origin(kind) or kind
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in typing.get_args(kind))
    if origin is Callable or origin is type:
        return isinstance(value, dict) and "_target_" in value
    if not isinstance(origin, type) or origin in (object, Any):
        return True
    if isinstance(value, dict) and "_target_" in value:
        if origin in LISTS or getattr(origin, "_is_protocol", False):
            return True
        return not (issubclass(origin, SCALARS) or value.get("_partial_"))
    if isinstance(value, dict):
        return issubclass(origin, Mapping)
    if isinstance(value, list):
        items, length = [item for item in typing.get_args(kind) if item is not Ellipsis], _length(kind)
        each = items if length is not None else items[:1] * len(value)
        return _is_list(kind) and length in (None, len(value)) and all(map(_admits, each, value))
    if isinstance(value, str):
        return bool(value) and issubclass(origin, (str, Path, Enum))
    accepted = {bool: (bool,), int: (int, float), float: (float,), type(None): (type(None),)}
    return origin in accepted[type(value)]


def _source(node: DictConfig, name: str) -> str | None:
    """Name the setting that a value is interpolated from, such as `data.class_names` for the data module."""
    text = _reference(node, name)
    return text[2:-1] if text.count("${") == 1 and text.startswith("${") and ":" not in text else None


def _reference(node: DictConfig, name: str) -> str:
    """Return the interpolation that a setting consists of, such as `${image_size}`; empty if it is a value."""
    if not OmegaConf.is_interpolation(node, name):
        return ""
    return str(OmegaConf.to_container(node, resolve=False)[name])  # type: ignore[call-overload,index]
