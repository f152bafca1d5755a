"""Checks for settings and optional packages, so that what is invalid or missing ends a run before it starts."""

import importlib
import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from ssd_lightning.errors import ConfigurationError, one_line

LOWER_IS_BETTER = ("loss", "loss_box", "loss_cls", "class_error", "box_mae")
"""Logged values, without their stage."""


def require_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Check that a setting is one of the given choices.

    Raises:
        ConfigurationError: it is not; the message contains the setting's full name, its value and the choices.
    """
    if value not in choices:
        *others, last = map(str, choices)
        raise ConfigurationError(f"{name} is '{value}'; it can be {', '.join(others)} or {last}")


def require_score(name: str, value: str) -> None:
    """Check that a setting names a logged value of which the highest is the best, not a loss or an error.

    Raises:
        ConfigurationError: it is a loss or an error; the message contains the setting's full name and its value.
    """
    if value.rpartition("/")[2] in LOWER_IS_BETTER:
        raise ConfigurationError(f"{name}={value}: the highest value counts as the best, and here it is the worst")


def require_number(
    name: str,
    value: object,
    low: float,
    high: float = math.inf,
    *,
    above_low: bool = False,
    whole: bool = False,
) -> None:
    """Check that a setting is a finite number in a range.

    Args:
        name: the setting's full name, such as `loss.matcher.iou_threshold`.
        value: the given value.
        low: smallest allowed value.
        high: largest allowed value.
        above_low: exclude `low` itself.
        whole: allow only whole numbers.

    Raises:
        ConfigurationError: it is not; the message contains the setting's full name, its value and the range.
    """
    kind = Integral if whole else Real  # of numpy too
    is_number = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    if is_number and (low < value if above_low else low <= value) and value <= high:  # type: ignore[operator]
        return
    noun = "a whole number" if whole else "a number"
    start = f"above {low}" if above_low else f"of at least {low}"
    end = "" if math.isinf(high) else f" and at most {high}"
    raise ConfigurationError(f"{name} is {one_line(f'{value!r:.200}')}; it must be {noun} {start}{end}")


def require_positive_pair(name: str, values: object) -> None:
    """Check that a setting is two numbers above 0, such as the variances of a box coder.

    Raises:
        ConfigurationError: it is not; the message contains the setting's full name and its value.
    """
    if not isinstance(values, list | tuple) or len(values) != 2:
        raise ConfigurationError(f"{name} is {values!r}; it must be two numbers")
    for value in values:
        require_number(name, value, 0, above_low=True)


def require_bool(name: str, value: object) -> None:
    """Check that a setting is true or false.

    Raises:
        ConfigurationError: it is neither; the message contains the setting's full name and its value.
    """
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} is {value!r}; it must be true or false")


def require_object(name: str, value: object, kind: type) -> None:
    """Check that a setting is an object of a class: on the command line, `name=null` leaves none.

    Raises:
        ConfigurationError: it is not; the message contains the setting's full name and its value.
    """
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name} is {value!r}; it must be a {kind.__name__}")


def require_package(name: str, needed_by: object, install: str) -> Any:
    """Import an optional package.

    Args:
        name: name of the module.
        needed_by: setting, file or function that needs it.
        install: argument of `pip install`.

    Raises:
        ConfigurationError: it is not installed; the message contains `needed_by` and how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(f"{needed_by} needs {name}: pip install {install}") from error
