"""Creates optimisers and schedules, and turns their errors into messages with the setting's name and value."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from ssd_lightning.errors import ConfigurationError, UserError

Made = TypeVar("Made")

REFUSALS = (TypeError, ValueError, IndexError, RuntimeError)
"""Errors of torch's constructors. IndexError: too few betas. RuntimeError: two settings exclude each other."""


def make_part(name: str, make: Callable[..., Made], *arguments: Any, **more: Any) -> Made:
    """Call the factory of an optimiser or a schedule.

    Args:
        name: name of the settings group, such as `optimizer`.
        make: a `partial` whose keywords are the settings.
        arguments: positional arguments from the run.
        more: keyword arguments from the run.

    Raises:
        ConfigurationError: the factory rejects its settings. The message names the setting that causes the error, or
            all settings if it is not a single one, and ends with the factory's own message.
    """
    try:
        return make(*arguments, **more)
    except UserError:
        raise
    except REFUSALS as error:
        settings: Mapping[str, Any] = getattr(make, "keywords", {})
        blamed = _to_blame(make, settings, arguments, more)
        if blamed is None and isinstance(error, RuntimeError):
            raise  # not caused by the configuration, for example a lost device
        if blamed is None:
            stated = ", ".join(f"{key}={_as_typed(value)}" for key, value in settings.items())
            where = f"{name} with {stated}" if stated else name
        else:
            where = f"{name}.{blamed}={_as_typed(settings[blamed])}"
        reason = str(error).strip().splitlines()
        raise ConfigurationError(f"{where}: {reason[0] if reason else type(error).__name__}") from error


def _to_blame(
    make: Callable[..., Any], settings: Mapping[str, Any], arguments: tuple[Any, ...], more: Mapping[str, Any]
) -> str | None:
    """Find the setting without which the factory accepts the others."""
    for key in settings:
        others = {other: value for other, value in settings.items() if other != key}
        try:
            partial(make.func, *make.args, **others)(*arguments, **more)  # type: ignore[attr-defined]
        except REFUSALS:
            continue
        return key
    return None


def _as_typed(value: Any) -> str:
    """Write a value as on the command line."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
