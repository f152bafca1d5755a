"""Optimisers and schedules are made by classes of others; what these refuse is told by key and value."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from ssd_lightning.errors import ConfigurationError, UserError

Made = TypeVar("Made")

REFUSALS = (TypeError, ValueError, IndexError, RuntimeError)
"""What torch's constructors answer to settings: the third to too few betas, the last to two that exclude each other."""


def make_part(name: str, make: Callable[..., Made], *arguments: Any, **more: Any) -> Made:
    """Call the factory of an optimiser or a schedule.

    Args:
        name: of its group of settings, such as `optimizer`.
        make: a `partial` whose keywords are the settings.
        arguments: what the run gives it.
        more: the same, by keyword.

    Raises:
        ConfigurationError: it refuses its settings. The message names the one without which it would not, or all where
            no single one is to blame, and ends with the factory's own sentence.
    """
    try:
        return make(*arguments, **more)
    except UserError:
        raise
    except REFUSALS as error:
        settings: Mapping[str, Any] = getattr(make, "keywords", {})
        blamed = _to_blame(make, settings, arguments, more)
        if blamed is None and isinstance(error, RuntimeError):
            raise  # what no setting mends, such as a lost device, is no fault of the configuration
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
