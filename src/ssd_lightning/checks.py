"""Checks for settings, so that an invalid one ends a run before it starts."""

import math
from collections.abc import Sequence

from ssd_lightning.errors import ConfigurationError


def require_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Check that a setting is one of the given choices.

    Raises:
        ConfigurationError: it is not; the message contains the setting's full name, its value and the choices.
    """
    if value not in choices:
        raise ConfigurationError(f"{name} is '{value}'; it can be {', '.join(choices[:-1])} or {choices[-1]}")


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
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    is_number = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)  # type: ignore[arg-type]
    if is_number and (low < value if above_low else low <= value) and value <= high:  # type: ignore[operator]
        return
    noun = "a whole number" if whole else "a number"
    start = f"above {low}" if above_low else f"of at least {low}"
    end = "" if math.isinf(high) else f" and at most {high}"
    raise ConfigurationError(f"{name} is {value!r}; it must be {noun} {start}{end}")
