import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from ssd_lightning.checks import require_bool, require_choice, require_number, require_object
from ssd_lightning.errors import ConfigurationError

RATIO, POSITIVE = partial(require_number, low=0, high=1), partial(require_number, low=0, above_low=True)
COUNT, CHOICE = partial(require_number, low=1, whole=True), partial(require_choice, choices=("one", "two"))


@pytest.mark.parametrize(
    ("require", "value", "rule"),
    [
        *((RATIO, value, "must be a number of at least 0 and at most 1") for value in ("0.5", None, True, -0.1, 1.1)),
        *((RATIO, value, "must be a number of at least 0 and at most 1") for value in (math.nan, [0.5], 1 + 2j)),
        (POSITIVE, 0.0, "must be a number above 0"),
        (POSITIVE, math.inf, "must be a number above 0"),
        (COUNT, 2.5, "must be a whole number of at least 1"),
        (CHOICE, "three", "can be one or two"),
        *((require_bool, value, "must be true or false") for value in ("true", None, 1)),
        (partial(require_object, kind=Exception), "x", "must be a Exception"),
    ],
)
def test_wrong_settings_are_named_with_their_value(
    require: Callable[[str, object], None], value: object, rule: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        require("a.b", value)
    assert str(caught.value) == f"a.b is {value!r}; it {rule}"


@pytest.mark.parametrize(
    ("require", "values"),
    [
        (RATIO, (0, 1, 0.5, np.float32(0.5))),
        (POSITIVE, (1e-9,)),
        (COUNT, (1, 10**9, np.int64(2))),
        (CHOICE, ("two",)),
        (require_bool, (False,)),
    ],
)
def test_right_settings_pass(require: Callable[[str, object], None], values: tuple[object, ...]) -> None:
    for value in values:
        require("a.b", value)
