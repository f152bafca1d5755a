from types import SimpleNamespace
from typing import Any

import pytest

from ssd_lightning.training.trainer_settings import warn_of_overfitting, warn_of_unvalidated_epochs


@pytest.mark.parametrize(
    ("epochs", "every", "told"),
    [
        (12, 4, ""), (10, 4, "nothing is validated after epoch 8"), (2, 4, "nothing is validated"),
        (-1, 4, ""), (None, 1, ""), (7, None, ""),
    ],
)  # fmt: skip
def test_epochs_after_the_last_validation_are_a_warning(
    caplog: pytest.LogCaptureFixture, epochs: int | None, every: int | None, told: str
) -> None:
    trainer: Any = SimpleNamespace(max_epochs=epochs, check_val_every_n_epoch=every)
    warn_of_unvalidated_epochs(trainer)
    assert caplog.text.strip().endswith(told)
    assert bool(caplog.text) == bool(told)


@pytest.mark.parametrize(
    ("batches", "data", "told"),
    [
        (1, {"repeat_rare": True, "multiscale": [64, 96]}, "data.repeat_rare=true and data.multiscale=[64, 96] has no"),
        (0.5, {"repeat_rare": False, "multiscale": None}, ""),
        (0.0, {"repeat_rare": True}, ""),
    ],
)
def test_what_overfitting_ignores_is_a_warning(
    caplog: pytest.LogCaptureFixture, batches: float, data: dict[str, Any], told: str
) -> None:
    warn_of_overfitting(batches, data)
    assert told in caplog.text
    assert bool(caplog.text) == bool(told)
