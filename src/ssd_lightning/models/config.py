"""Convert objects to plain data and back, so that a checkpoint can store its network without pickling a class.

The notation is Hydra's (`_target_`, `_partial_`), as in the configuration. Building does not need Hydra and accepts
only the networks of this package and the layers of torch.
"""

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import nn

from ssd_lightning.errors import ConfigurationError, WeightsError

TRUSTED_MODULES = ("ssd_lightning.models.", "ssd_lightning.ops.", "torch.nn.")
NOT_IN_CONFIG = ("weights", "init")
"""Arguments that only construction needs: a file of weights, and how random weights are drawn."""


class ConfigMixin:
    """Records the constructor arguments of an object for `to_config`."""

    _arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        original = cls.__init__
        signature = inspect.signature(original)

        @functools.wraps(original)
        def remember(self: "ConfigMixin", *args: Any, **kwargs: Any) -> None:
            if "_arguments" not in self.__dict__:  # the outermost class of a hierarchy
                bound = signature.bind(self, *args, **kwargs)
                self.__dict__["_arguments"] = dict(list(bound.arguments.items())[1:])
            original(self, *args, **kwargs)

        cls.__init__ = remember  # type: ignore[assignment, method-assign]


def to_config(value: Any) -> Any:
    """Convert an object to plain dicts, lists and numbers that `from_config` reads.

    Raises:
        TypeError: the object has no plain form.
    """
    if isinstance(value, np.generic | np.ndarray):  # also those that are floats: a file with them could not be read
        return value.tolist()
    if isinstance(value, type):
        return _spec(value, {}, _partial_=True)
    if isinstance(value, ConfigMixin):
        return _spec(type(value), value._arguments)
    if isinstance(value, functools.partial) and not value.args:
        return _spec(value.func, value.keywords, _partial_=True)
    if dataclasses.is_dataclass(value):
        return _spec(type(value), {field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return {str(k): to_config(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_config(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} has no plain form; derive it from ConfigMixin")


def _spec(target: Any, arguments: Mapping[str, Any], **flags: bool) -> dict[str, Any]:
    kept = {name: to_config(value) for name, value in arguments.items() if name not in _not_in_config(target)}
    return {"_target_": f"{target.__module__}.{target.__qualname__}", **flags, **kept}


def _not_in_config(target: Any) -> tuple[str, ...]:
    return () if target.__module__.startswith("torch.") else NOT_IN_CONFIG  # torch's PReLU has an `init`


def from_config(spec: Any) -> Any:
    """Build the object of a configuration from `to_config`.

    Raises:
        WeightsError: a target is outside `TRUSTED_MODULES` or does not exist, its arguments do not fit, or they
            include one of `NOT_IN_CONFIG`.
    """
    if isinstance(spec, list):
        return [from_config(item) for item in spec]
    if not isinstance(spec, dict):
        return spec
    if "_target_" not in spec:
        return {k: from_config(v) for k, v in spec.items()}
    target = _trusted(spec["_target_"])
    for name in _not_in_config(target):
        if name in spec:
            raise WeightsError(f"checkpoint: {spec['_target_']} does not accept '{name}'")
    arguments = {k: from_config(v) for k, v in spec.items() if k not in ("_target_", "_partial_")}
    try:
        return functools.partial(target, **arguments) if spec.get("_partial_") else target(**arguments)
    except TypeError as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(f"checkpoint: cannot build {spec['_target_']}: {reason}") from error


def check_rebuildable(net: nn.Module) -> None:
    """Check before a training that a checkpoint can rebuild the network afterwards.

    Raises:
        ConfigurationError: a part does not derive from `ConfigMixin`, or is not defined in a trusted module.
    """
    try:
        for target in _targets(to_config(net)):
            _trusted(target)
    except TypeError as error:
        raise ConfigurationError(f"a checkpoint could not rebuild this network: {error}") from error
    except WeightsError as error:
        raise ConfigurationError(
            f"a checkpoint could not rebuild this network: {target} is not a class of ssd_lightning.models or torch.nn"
        ) from error


def _targets(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        if "_target_" in config:
            yield config["_target_"]
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from _targets(value)


def _trusted(path: str) -> type:
    refused = WeightsError(
        f"checkpoint: '{path}' is not a network class of this package or of torch; nothing was built"
    )
    module, _, name = str(path).rpartition(".")
    if not any(f"{module}.".startswith(trusted) for trusted in TRUSTED_MODULES):
        raise refused
    try:
        target = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise WeightsError(f"checkpoint: this version of the package has no '{path}'") from error
    # Reject functions, and classes that a trusted module imports from elsewhere.
    ours = isinstance(target, type) and target.__module__.startswith(TRUSTED_MODULES)
    if not ours or not (issubclass(target, nn.Module) or dataclasses.is_dataclass(target)):
        raise refused
    return target
