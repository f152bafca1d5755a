"""Convert objects to plain data and back, so that a checkpoint can store its network without pickling a class.

The notation is Hydra's (`_target_`, `_partial_`), as in the configuration. Building does not need Hydra and accepts
only the networks of this package and the layers of torch.
"""

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from ssd_lightning.errors import ConfigurationError, WeightsError

TRUSTED_MODULES = ("ssd_lightning.models.", "ssd_lightning.ops.", "torch.nn.")


class ConfigMixin:
    """Records the constructor arguments of an object for `to_config`.

    The class attribute `not_in_config` names arguments that only construction needs, such as a weights file.
    """

    not_in_config: tuple[str, ...] = ()
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

    def update_config(self, **arguments: Any) -> None:
        """Update recorded arguments, for example after the constructor resolved a default."""
        self._arguments.update(arguments)


def to_config(value: Any) -> Any:
    """Convert an object to plain dicts, lists and numbers that `from_config` reads.

    Raises:
        TypeError: the object has no plain form.
    """
    if isinstance(value, ConfigMixin):
        return {"_target_": _path(type(value)), **_config_of_arguments(type(value), value._arguments)}
    if isinstance(value, functools.partial) and not value.args:
        return {
            "_target_": _path(value.func),
            "_partial_": True,
            **_config_of_arguments(value.func, value.keywords),
        }
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: to_config(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"_target_": _path(type(value)), **fields}
    if isinstance(value, Mapping):
        return {str(k): to_config(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_config(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, type):
        return {"_target_": _path(value), "_partial_": True}
    raise TypeError(f"{type(value).__name__} has no plain form; derive it from ConfigMixin")


def _config_of_arguments(target: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    spent = getattr(target, "not_in_config", ())
    return {name: to_config(value) for name, value in arguments.items() if name not in spent}


def from_config(spec: Any) -> Any:
    """Build the object of a configuration from `to_config`.

    Raises:
        WeightsError: a target is outside `TRUSTED_MODULES` or does not exist, its arguments do not fit, or they
            include one of `not_in_config`.
    """
    if isinstance(spec, list):
        return [from_config(item) for item in spec]
    if not isinstance(spec, dict):
        return spec
    if "_target_" not in spec:
        return {k: from_config(v) for k, v in spec.items()}
    target = _trusted(spec["_target_"])
    spent = [name for name in getattr(target, "not_in_config", ()) if name in spec]
    if spent:
        raise WeightsError(f"checkpoint: {spec['_target_']} does not accept '{spent[0]}'")
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
        refused = _untrusted_targets(to_config(net))
    except TypeError as error:
        raise ConfigurationError(f"a checkpoint could not rebuild this network: {error}") from error
    if refused:
        raise ConfigurationError(
            f"a checkpoint could not rebuild this network: {refused[0]} is not a class of ssd_lightning.models or "
            "torch.nn"
        )


def _untrusted_targets(config: Any) -> list[str]:
    if isinstance(config, list):
        return [target for item in config for target in _untrusted_targets(item)]
    if not isinstance(config, dict):
        return []
    found = [target for value in config.values() for target in _untrusted_targets(value)]
    if "_target_" in config:
        try:
            _trusted(config["_target_"])
        except WeightsError:
            found.append(config["_target_"])
    return found


def _path(target: Any) -> str:
    return f"{target.__module__}.{target.__qualname__}"


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
