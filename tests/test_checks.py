import math

import pytest

from ssd_lightning.checks import require_bool, require_choice, require_number
from ssd_lightning.errors import ConfigurationError


@pytest.mark.parametrize("value", ["0.5", None, True, math.nan, math.inf, -0.1, 1.1, [0.5], 1 + 2j])
def test_what_is_no_number_of_the_range_is_named(value: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        require_number("loss.x", value, 0, 1)
    assert str(caught.value) == f"loss.x is {value!r}; it must be a number of at least 0 and at most 1"


def test_ends_belong_to_the_range_unless_they_are_left_out() -> None:
    for value in (0, 1, 0.5):
        require_number("a.b", value, 0, 1)
    with pytest.raises(ConfigurationError, match="a number above 0"):
        require_number("a.b", 0.0, 0, 1, above_low=True)
    with pytest.raises(ConfigurationError, match=r"a\.b is 2\.5; it must be a whole number of at least 1"):
        require_number("a.b", 2.5, 1, whole=True)
    require_number("a.b", 10**9, 1, whole=True)


@pytest.mark.parametrize("value", ["three", None, 1, ""])
def test_choices_are_listed(value: object) -> None:
    require_choice("a.b", "two", ("one", "two"))
    with pytest.raises(ConfigurationError, match=rf"a\.b is '{value}'; it can be one or two"):
        require_choice("a.b", value, ("one", "two"))


@pytest.mark.parametrize("value", ["true", None, 1, 0.0])
def test_what_is_neither_true_nor_false_is_named(value: object) -> None:
    require_bool("a.b", False)
    with pytest.raises(ConfigurationError, match=rf"a\.b is {value!r}; it must be true or false"):
        require_bool("a.b", value)
